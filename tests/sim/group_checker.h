#ifndef WITAN_TESTS_SIM_GROUP_CHECKER_H_
#define WITAN_TESTS_SIM_GROUP_CHECKER_H_

// What the groups of one replica must keep to, seen at the coordinator's end of
// the wire and at the workers:
//   - epochs: each group has a higher one, ranks are given once, nothing of an
//     epoch follows its end, and no rank of it is two workers;
//   - steps: in order, to all ranks, no more in flight than may be, none for
//     sequences that have ended;
//   - order: whose turn it is (order_checker.h);
//   - blocks and slots: a rank of ours executes every plan as it leaves, and
//     knows, as no worker can, which steps the coordinator has applied: what a
//     step in flight uses may not change hands.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/worker_protocol.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/replica.h"
#include "coordinator/cluster/replica_snapshot.h"
#include "tests/sim/order_checker.h"
#include "tests/sim/sim_journal.h"
#include "tests/sim/sim_worker.h"
#include "tests/sim/token_checker.h"
#include "tests/testing/fake_worker_group.h"

namespace witan {

class GroupChecker {
 public:
  // References outlive the checker.
  GroupChecker(SimJournal& journal, TokenChecker& tokens,
               const ReplicaOptions& options);

  // --- At the coordinator, in this order
  // ----------------------------------------
  void OnSubmitted(SequenceId id) { order_.OnSubmitted(id); }
  void OnReceived(WorkerId worker, const WorkerMessage& message);
  void OnClosed(WorkerId worker);
  // The coordinator ends the connection itself.
  void OnClosing(WorkerId worker);
  // After what the coordinator sends because of it.
  void OnSent(const SendMessage& send);
  // After the outputs that followed OnReceived and OnClosed.
  void CheckEnded(ReplicaState state);

  // --- At the workers
  // -------------------------------------------------------------
  void OnExecuted(const ExecutedStep& executed);

  // Whether a message concerns a group that is over.
  bool IsStale(const WorkerMessage& message) const;
  bool has_steps_in_flight() const { return !in_flight_.empty(); }
  int num_epochs() const { return static_cast<int>(epoch_); }
  // Most sequences of one step since it was last forgotten.
  int most_sequences() const { return most_sequences_; }
  int64_t num_shared_blocks() const { return num_shared_blocks_; }
  void ForgetMostSequences() { most_sequences_ = 0; }

 private:
  struct InFlight {
    StepNumber step = 0;
    size_t num_answers = 0;
    std::vector<SequenceId> sampled;
  };

  void OnPrepare(WorkerId worker, const PrepareGroup& prepare);
  void OnPlan(const std::vector<WorkerId>& workers, const StepPlan& plan);
  void CheckSequences(const StepPlan& plan, InFlight& step);
  // Cached blocks come from the same tenant.
  void CheckTenant(const StepPlan& plan, int sequence, SequenceId id);
  void OnResult(WorkerId worker, const StepResult& result);
  void EndEpoch();

  SimJournal& journal_;
  TokenChecker& tokens_;
  OrderChecker order_;
  const size_t num_ranks_;
  const int64_t vocab_size_;

  // --- The current epoch
  // ----------------------------------------------------------
  Epoch epoch_ = 0;
  bool alive_ = false;
  // A rank is gone or gave up, and the coordinator has to end the group.
  bool must_end_ = false;
  // Its only rank is being closed: nobody is left to be told of the end.
  bool may_end_ = false;
  std::map<WorkerId, StepNumber> workers_;  // -> last step answered
  std::set<int32_t> ranks_;
  std::optional<FakeRank> rank_;
  StepNumber applied_ = 0;
  std::deque<InFlight> in_flight_;
  std::map<int32_t, SequenceId> sequence_of_slot_;
  std::map<int32_t, std::string> tenant_of_block_;
  int64_t num_shared_blocks_ = 0;  // of all epochs
  int most_sequences_ = 0;

  // --- At the workers
  // -------------------------------------------------------------
  std::map<int, Epoch> epoch_of_worker_;
  std::map<std::pair<Epoch, int>, std::pair<int, StepNumber>> executed_;
};

}  // namespace witan

#endif  // WITAN_TESTS_SIM_GROUP_CHECKER_H_
