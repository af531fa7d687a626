#ifndef WITAN_TESTS_SIM_SIM_FAULTS_H_
#define WITAN_TESTS_SIM_SIM_FAULTS_H_

// What goes wrong in a simulated world, and when: every kind of fault of the
// profile strikes at random moments until Stop, and none of them lasts longer.

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "tests/sim/sim_clock.h"
#include "tests/sim/sim_coordinator.h"
#include "tests/sim/sim_network.h"
#include "tests/sim/sim_profile.h"
#include "tests/sim/sim_random.h"
#include "tests/sim/sim_worker.h"

namespace witan {

struct FaultCounters {
  int64_t num_partitions = 0;
  int64_t num_one_way_partitions = 0;
  int64_t num_resets = 0;
  int64_t num_reported_failures = 0;
  int64_t num_hangs = 0;
  int64_t num_lost_for_good = 0;
};

class SimFaults {
 public:
  // References outlive it.
  SimFaults(SimClock& clock, SimRandom& random, const SimProfile& profile,
            SimNetwork& network, SimCoordinator& coordinator,
            std::vector<std::unique_ptr<SimWorker>>& workers);

  void Start();
  // At profile.faults_us: from now on nothing goes wrong any more.
  void Stop();
  const FaultCounters& counters() const { return counters_; }

 private:
  using Fault = void (SimFaults::*)();

  void Every(Micros mean, Fault fault);
  SimWorker& AnyWorker();
  // Until when something lasts that begins now.
  Micros DrawEnd(Micros longest);

  void Crash();
  void Pause();
  void Reset();
  void Partition();
  void PauseCoordinator();
  void ReportFailure();
  void Hang();
  void LoseForGood();

  SimClock& clock_;
  SimRandom& random_;
  const SimProfile& profile_;
  SimNetwork& network_;
  SimCoordinator& coordinator_;
  std::vector<std::unique_ptr<SimWorker>>& workers_;
  FaultCounters counters_;
};

}  // namespace witan

#endif  // WITAN_TESTS_SIM_SIM_FAULTS_H_
