#ifndef WITAN_TESTS_SIM_SIM_COORDINATOR_H_
#define WITAN_TESTS_SIM_SIM_COORDINATOR_H_

// The coordinator's process: real Replicas, driven as ReplicaLoop does. Inputs
// wait until its thread wakes up and are taken together; it sleeps until
// NextWakeup, and sometimes pauses as a whole.

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "coordinator/cluster/replica.h"
#include "coordinator/cluster/router.h"
#include "coordinator/cluster/worker_placement.h"
#include "tests/sim/group_checker.h"
#include "tests/sim/sim_clock.h"
#include "tests/sim/sim_journal.h"
#include "tests/sim/sim_network.h"
#include "tests/sim/sim_random.h"
#include "tests/sim/token_checker.h"

namespace witan {

struct CoordinatorCounters {
  int64_t num_stale_messages = 0;  // of groups that were over
  int64_t num_pauses = 0;
  int64_t num_spare_moves = 0;       // asked for
  int64_t num_routed_to_others = 0;  // than the first replica
  // Connections, by state of the replica; serving is the last one.
  std::array<int64_t, static_cast<size_t>(ReplicaState::kServing) + 1>
      num_lost_while = {};
};

class SimCoordinator {
 public:
  // All references outlive it.
  SimCoordinator(const std::vector<ReplicaOptions>& replicas,
                 RoutingPolicy policy, std::vector<std::string> host_of_worker,
                 SimClock& clock, SimRandom& random, SimJournal& journal,
                 SimNetwork& network, TokenChecker& tokens);

  // --- Clients
  // --------------------------------------------------------------------
  void Submit(SequenceSpec spec, std::unique_ptr<TokenSink> sink);
  // To one replica, for the world's last requests.
  void SubmitTo(int replica, SequenceSpec spec,
                std::unique_ptr<TokenSink> sink);
  void Cancel(SequenceId id);
  // Its client takes no tokens until Resume.
  void Pause(SequenceId id);
  void Resume(SequenceId id);

  // --- Workers
  // --------------------------------------------------------------------
  // A connection joins a replica for its whole life.
  void OnArrival(int worker, WorkerId connection, const ToCoordinator& item);

  // Nothing is done until then.
  void PauseUntil(Micros until);

  int num_replicas() const { return static_cast<int>(hosts_.size()); }
  const Replica& replica(int index) const { return hosts_[index]->replica; }
  GroupChecker& groups(int index) { return hosts_[index]->groups; }
  // REQUIRES: it arrived.
  int ReplicaOf(WorkerId connection) const {
    return replica_of_.at(connection);
  }
  // Nothing lives, so the router expects nothing to be computed.
  void CheckRouter();
  bool ever_served(int index) const { return hosts_[index]->ever_served; }
  const CoordinatorCounters& counters() const { return counters_; }

 private:
  struct Host {
    Host(const ReplicaOptions& options, int replica_index, SimJournal& journal,
         TokenChecker& tokens);

    const int index;
    Replica replica;
    GroupChecker groups;
    std::deque<std::function<void()>> inbox;
    Micros wake_at = 0;  // when its thread wakes up; 0: it does not
    ReplicaState last_state = ReplicaState::kWaitingForWorkers;
    Epoch last_epoch = 0;
    bool ever_served = false;
  };
  class RoutedSink;

  void Post(Host& host, std::function<void()> input);
  void WakeAt(Host& host, Micros when);
  void Wake(Host& host);
  void TakeMessage(Host& host, WorkerId worker, const WorkerMessage& message);
  void TakeClosed(Host& host, WorkerId worker, const std::string& cause);
  void TakeOutputs(Host& host, bool closed_are_lost = false);
  void CheckIdle(Host& host);
  // What ReplicaSet and the edge of the workers do when they learn of it.
  void OnStateChanged(Host& host);
  void Place(WorkerId connection, int worker);
  std::vector<ReplicaWorkers> PlacedWorkers() const;
  void MoveSpare();

  const std::vector<std::string> host_of_worker_;
  const int num_ranks_;
  Router router_;
  SpareMoves spare_moves_;
  std::map<WorkerId, int> replica_of_;       // of all that ever were
  std::map<WorkerId, std::string> host_of_;  // of those that live
  SimClock& clock_;
  SimRandom& random_;
  SimJournal& journal_;
  SimNetwork& network_;
  TokenChecker& tokens_;
  std::vector<std::unique_ptr<Host>> hosts_;
  std::map<SequenceId, int> host_of_sequence_;
  Micros paused_until_ = 0;
  CoordinatorCounters counters_;
};

}  // namespace witan

#endif  // WITAN_TESTS_SIM_SIM_COORDINATOR_H_
