#ifndef WITAN_TESTS_SIM_SIM_WORLD_H_
#define WITAN_TESTS_SIM_SIM_WORLD_H_

// One simulated life of a cluster, from a seed: coordinator, workers, clients
// and network, faults for a while, and then the demand that everything
// finishes, that nothing was lost and that the cluster serves as if nothing had
// been.

#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/sim_coordinator.h"
#include "tests/sim/sim_faults.h"
#include "tests/sim/sim_network.h"
#include "tests/sim/sim_worker.h"
#include "tests/sim/token_checker.h"

namespace witan {

// What happened, summed over seeds: the premises of what was checked.
struct SimCounters {
  TokenCounters tokens;
  NetworkCounters network;
  WorkerCounters workers;
  CoordinatorCounters coordinator;
  FaultCounters faults;
  // --- Of the replicas
  // ---------------------------------------------------------
  int64_t num_group_failures = 0;
  int64_t num_epochs = 0;
  int64_t num_steps = 0;
  int64_t num_look_ahead_steps = 0;
  int64_t num_discarded_rows = 0;
  int64_t num_preemptions = 0;
  int64_t num_pauses = 0;
  int64_t num_parked = 0;
  int64_t num_evictions = 0;
  int64_t num_shared_blocks = 0;
  int64_t num_events = 0;
  Micros simulated_us = 0;

  void Add(const SimCounters& other);
};

struct SimOutcome {
  std::string violation;           // empty: none
  std::vector<std::string> trace;  // if asked for
  SimCounters counters;
};

SimOutcome RunSeed(uint64_t seed, bool tracing);

}  // namespace witan

#endif  // WITAN_TESTS_SIM_SIM_WORLD_H_
