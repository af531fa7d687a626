#ifndef WITAN_TESTS_TESTING_FAKE_WORKER_GROUP_H_
#define WITAN_TESTS_TESTING_FAKE_WORKER_GROUP_H_

// Workers without a model. A FakeRank executes step plans as a real rank does,
// with a cache of token ids in place of keys and values, and distrusts every
// one of them; a FakeWorker speaks the worker's side of the protocol around it;
// a FakeWorkerGroup is the network between such workers and a real Replica.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/request.h"
#include "base/step_plan.h"
#include "base/worker_protocol.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/replica.h"

namespace witan {

// The token that follows `history` (prompt and output so far): a pure function
// of its arguments, what every run is compared with.
SampledToken FakeNextToken(const std::vector<TokenId>& history,
                           const SamplingParams& sampling, int32_t choice,
                           int64_t vocab_size);

// How likely `token_id` is after `history`; as pure.
SampledToken FakeScore(const std::vector<TokenId>& history, TokenId token_id);

// The token that a sink forces after `history`, of which the first
// num_prompt_tokens are the prompt; none: the one that is drawn. A pure
// function too.
std::optional<TokenId> FakeForcedToken(const std::vector<TokenId>& history,
                                       int64_t num_prompt_tokens,
                                       int64_t vocab_size);

// One rank. What it samples is computed from what its cache holds at the
// places where the block table points, so that a wrong table, position or
// reuse shows as a wrong token if no check finds it before.
class FakeRank {
 public:
  FakeRank(Epoch epoch, int64_t max_step_tokens, int64_t max_sequences,
           int64_t num_blocks, int64_t vocab_size);

  // Runs a step. The error names the first rule that the plan breaks.
  // `applied` is the last step whose result the coordinator took: a slot or
  // block may change hands only if no later step used it. A plan has no way to
  // tell, so callers that cannot know pass the step before.
  absl::StatusOr<StepResult> Run(const StepPlan& plan, StepNumber applied);

  // Blocks that slots were given as cached.
  int64_t num_shared_blocks() const { return num_shared_blocks_; }
  // Rows that brought another token than the one sampled for their position.
  int64_t num_forced_rows() const { return num_forced_rows_; }

 private:
  struct Slot {
    bool in_use = false;
    bool lost_a_block = false;  // to another slot; may only be restarted
    SlotStart start;
    std::vector<int32_t> blocks;
    int64_t num_positions = 0;  // written
    StepNumber last_step = 0;   // with rows of it
    StepNumber sampled_in_step = 0;
    TokenId last_sampled = 0;
    std::vector<TokenId> penalty_tokens;  // history and rows since
  };
  struct Block {
    std::set<int32_t> users;      // slots that have it in their tables
    StepNumber last_step = 0;     // in which one of them had rows
    StepNumber last_written = 0;  // in which a row of it was written
    std::vector<TokenId> tokens;  // -1: not written
    bool is_full() const { return tokens.back() >= 0; }
  };

  absl::Status CheckShape(const StepPlan& plan) const;
  absl::Status StartSlot(const SlotStart& start, StepNumber applied);
  absl::Status RunSequence(const StepPlan& plan, int sequence,
                           StepNumber applied, StepResult& result);
  absl::Status ScoreRows(const StepPlan& plan, int sequence,
                         StepResult& result) const;
  absl::Status AppendBlocks(const StepPlan& plan, int sequence,
                            StepNumber applied);
  absl::Status AppendBlock(int32_t slot, int32_t id, StepNumber applied);
  absl::StatusOr<TokenId> TokenOfRow(const Slot& slot, const StepPlan& plan,
                                     int row);
  std::vector<TokenId> ReadHistory(const Slot& slot,
                                   int64_t num_positions) const;

  const Epoch epoch_;
  const int64_t max_step_tokens_;
  const int64_t vocab_size_;
  StepNumber last_step_ = 0;
  int64_t num_shared_blocks_ = 0;
  int64_t num_forced_rows_ = 0;
  std::vector<Slot> slots_;
  std::vector<Block> blocks_;
};

// How a FakeWorker misbehaves, and what it claims to be.
struct FakeWorkerOptions {
  RegisterWorker registration;
  std::string numerics_id = "numerics-1";
  std::string config;
  std::vector<std::map<std::string, std::string>> piece_hashes;  // by rank
  int64_t vocab_size = 0;
  std::optional<absl::Status> load_failure;  // instead of GroupPrepared
  bool silent_on_prepare = false;
  bool silent_on_connect = false;
  bool silent_on_steps = false;
  bool silent_on_adapters = false;
  std::optional<absl::Status> adapter_failure;  // instead of adapter_hash
  std::string adapter_hash = "adapter-hash";
  StepNumber wrong_step_number_at = 0;    // answers another step's number
  TokenId known_answer_perturbation = 0;  // added to the token of step 1
};

// The worker's side of one connection. Sans-I/O: a message in, messages out.
class FakeWorker {
 public:
  explicit FakeWorker(FakeWorkerOptions options);

  RegisterWorker Hello() const { return options.registration; }
  // What it answers, in order.
  std::vector<WorkerMessage> OnMessage(const CoordinatorMessage& message);

  FakeWorkerOptions options;  // may be changed between messages

  // --- What it saw ----------------------------------------------------------
  uint64_t worker_id = 0;
  std::optional<PrepareGroup> group;  // none after AbortGroup
  std::vector<AbortGroup> aborts;
  int num_steps = 0;
  std::map<int32_t, std::string> adapters;  // directories, of this group
  int num_loads = 0;                        // answered
  std::vector<LoadAdapter> held_loads;      // that it was silent on
  int32_t adapter_of_last_start = kNoAdapter;
  // The first plan that broke a rule; the worker then fails the group.
  absl::Status violation;

 private:
  AdapterLoaded Load(const LoadAdapter& load);
  std::vector<WorkerMessage> Prepare(const PrepareGroup& prepare);
  std::vector<WorkerMessage> Run(const StepPlan& plan);

  std::optional<FakeRank> rank_;
};

// Fake workers connected with one Replica. Nothing is threaded: messages wait
// in one queue for each worker and direction until they are delivered.
class FakeWorkerGroup {
 public:
  // `replica` outlives the group.
  explicit FakeWorkerGroup(Replica& replica) : replica_(replica) {}

  // A worker dials; its registration is under way.
  WorkerId Connect(const FakeWorkerOptions& options);
  // Its connection ends; what is under way to and from it is lost.
  void Disconnect(WorkerId worker, const std::string& cause, Micros now);

  // Takes the replica's outputs and delivers one message to or from one of the
  // workers, the pick-th (modulo) that has one. False: nothing is under way.
  bool DeliverOne(uint64_t pick, Micros now);
  // Ticks and delivers until nothing is under way.
  void Settle(Micros now);
  // Ticks and delivers until the replica is in `state`. False: it never was.
  bool SettleUntil(ReplicaState state, Micros now);

  bool connected(WorkerId worker) const { return links_.contains(worker); }
  // REQUIRES: connected.
  FakeWorker& worker(WorkerId worker) { return links_.at(worker).worker; }
  std::vector<WorkerId> workers() const;  // connected ones
  // Why the replica closed a connection; OK if it did not.
  absl::Status closed(WorkerId worker) const;
  // First rule of FakeRank that any plan broke.
  const absl::Status& violation() const { return violation_; }

 private:
  struct Link {
    FakeWorker worker;
    std::deque<CoordinatorMessage> to_worker;
    std::deque<WorkerMessage> from_worker;
  };

  void TakeOutputs();

  Replica& replica_;
  WorkerId next_worker_ = 1;
  std::map<WorkerId, Link> links_;
  std::map<WorkerId, absl::Status> closed_;
  absl::Status violation_;
};

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_FAKE_WORKER_GROUP_H_
