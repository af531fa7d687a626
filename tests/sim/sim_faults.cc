#include "tests/sim/sim_faults.h"

#include <algorithm>

namespace witan {
namespace {

constexpr Micros kLongestPause = 15 * kMicrosPerSecond;

}  // namespace

SimFaults::SimFaults(SimClock& clock, SimRandom& random,
                     const SimProfile& profile, SimNetwork& network,
                     SimCoordinator& coordinator,
                     std::vector<std::unique_ptr<SimWorker>>& workers)
    : clock_(clock),
      random_(random),
      profile_(profile),
      network_(network),
      coordinator_(coordinator),
      workers_(workers) {}

void SimFaults::Start() {
  Every(profile_.crash_every_us, &SimFaults::Crash);
  Every(profile_.pause_every_us, &SimFaults::Pause);
  Every(profile_.reset_every_us, &SimFaults::Reset);
  Every(profile_.partition_every_us, &SimFaults::Partition);
  Every(profile_.coordinator_pause_every_us, &SimFaults::PauseCoordinator);
  Every(profile_.failure_every_us, &SimFaults::ReportFailure);
  Every(profile_.hang_every_us, &SimFaults::Hang);
  for (int i = 0; i < profile_.num_lost_for_good; ++i) {
    clock_.At(random_.Between(0, profile_.faults_us - 1),
              [this] { LoseForGood(); });
  }
}

void SimFaults::Stop() {
  network_.StopFaults();
  for (const auto& worker : workers_) worker->Repair();
}

void SimFaults::Every(Micros mean, Fault fault) {
  if (mean == 0) return;
  const Micros when = clock_.now() + random_.Between(1, 2 * mean);
  if (when >= profile_.faults_us) return;
  clock_.At(when, [this, mean, fault] {
    (this->*fault)();
    Every(mean, fault);
  });
}

SimWorker& SimFaults::AnyWorker() {
  return *workers_[random_.Below(workers_.size())];
}

Micros SimFaults::DrawEnd(Micros longest) {
  // Most things are short; those that outlast timeouts must be seen too.
  const Micros end = random_.Chance(0.6) ? longest / 20 : longest;
  return std::min(clock_.now() + random_.Between(1, end), profile_.faults_us);
}

void SimFaults::Crash() {
  const size_t index = random_.Below(workers_.size());
  // Before, what is wrong would be taken for right.
  bool may_be_wrong = true;
  for (int i = 0; i < coordinator_.num_replicas(); ++i) {
    may_be_wrong = may_be_wrong && coordinator_.ever_served(i);
  }
  const bool wrongly =
      may_be_wrong && random_.Chance(profile_.bad_return_probability);
  const bool silently = random_.Chance(0.3);
  workers_[index]->Crash(silently, DrawEnd(kLongestPause) - clock_.now(),
                         wrongly);
}

void SimFaults::Pause() { AnyWorker().PauseUntil(DrawEnd(kLongestPause)); }

void SimFaults::Reset() {
  if (const auto connection = AnyWorker().connection()) {
    ++counters_.num_resets;
    network_.Reset(*connection);
  }
}

void SimFaults::Partition() {
  ++counters_.num_partitions;
  const int worker = static_cast<int>(random_.Below(workers_.size()));
  const uint64_t kind = random_.Below(3);
  if (kind != 0) ++counters_.num_one_way_partitions;
  network_.Partition(worker, kind != 1, kind != 2, DrawEnd(kLongestPause));
}

void SimFaults::PauseCoordinator() {
  coordinator_.PauseUntil(DrawEnd(kLongestPause));
}

void SimFaults::ReportFailure() {
  ++counters_.num_reported_failures;
  AnyWorker().ReportFailure();
}

void SimFaults::LoseForGood() {
  SimWorker& worker = AnyWorker();
  if (worker.is_dead()) return;
  ++counters_.num_lost_for_good;
  worker.Die();
}

void SimFaults::Hang() {
  ++counters_.num_hangs;
  AnyWorker().Hang();
}

}  // namespace witan
