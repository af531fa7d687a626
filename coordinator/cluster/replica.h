#ifndef WITAN_COORDINATOR_CLUSTER_REPLICA_H_
#define WITAN_COORDINATOR_CLUSTER_REPLICA_H_

// One copy of the model: its workers, its scheduler and its requests. The unit
// of failure.
//
//   WaitingForWorkers --enough idle workers--> Preparing   PrepareGroup sent
//   Preparing   --all GroupPrepared, ids agree--> Connecting  ConnectGroup sent
//   Connecting  --all GroupConnected-->           KnownAnswer step 1 sent
//   KnownAnswer --same answer as ever-->          Serving
//   any of them --a rank fails, leaves or is late--> AbortGroup to the others,
//                 live sequences end with UNAVAILABLE, WaitingForWorkers
//
// Each attempt has a new epoch; messages of older epochs are ignored. Survivors
// are idle at once, so the next group forms as soon as a worker comes back; a
// group that fails before it served is retried after a growing pause, so that
// a permanent error (it is in the snapshot) does not spin.
//
// Sans-I/O: time, messages and requests are arguments; what is to be sent is
// taken with TakeOutputs. ReplicaLoop drives it with a thread and a clock,
// tests with whatever they like.

#include <absl/status/status.h>

#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/step_plan.h"
#include "base/worker_protocol.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/planner.h"
#include "coordinator/cluster/replica_output.h"
#include "coordinator/cluster/replica_snapshot.h"
#include "coordinator/cluster/step_observer.h"
#include "coordinator/cluster/token_sink.h"
#include "coordinator/schedule/scheduler.h"
#include "coordinator/schedule/sequence.h"
#include "model/config.h"
#include "model/shard_plan.h"

namespace witan {

struct ReplicaOptions {
  ModelConfig model;
  std::string model_directory;
  Layout layout;
  std::string build_id;
  PlannerOptions planner;
  int64_t max_prefill_chunk_tokens = 0;  // 0: only the budget of a step cuts
  int64_t max_prefill_tokens_beside_decode = 0;  // see SchedulerOptions
  bool prefix_cache = true;
  bool look_ahead = true;
  StepObserver* observer = nullptr;  // outlives the replica; may be null
};

// Used by one thread.
class Replica {
 public:
  // REQUIRES: options.layout from MakeLayout.
  explicit Replica(ReplicaOptions options);
  ~Replica();

  // --- Inputs ---------------------------------------------------------------
  // They take note and call sinks; new steps are planned by Tick only, so that
  // inputs that came together share a step. Call Tick after each batch.

  // A worker made a connection.
  void OnConnected(WorkerId worker, Micros now);
  // A message that arrived on a worker's connection. The first one has to be
  // RegisterWorker; the answer is WorkerAccepted or CloseWorker.
  void OnMessage(WorkerId worker, WorkerMessage message, Micros now);
  // A worker's connection ended. `cause` reads like "connection closed".
  void OnClosed(WorkerId worker, const std::string& cause, Micros now);
  // Closes the connection of one worker that has no rank while the others do,
  // so that it may come back and join another replica. Nothing happens if there
  // is none.
  void ReleaseSpare(Micros now);
  // Starts a sequence. Every call is answered by exactly one
  // sink->OnFinished, perhaps before Submit returns (refused).
  void Submit(SequenceSpec spec, std::unique_ptr<TokenSink> sink, Micros now);
  // The client went away. Nothing happens if the sequence has ended.
  void Cancel(SequenceId id, Micros now);
  // Its client does not take its tokens: no more of them are made until Resume.
  // Nothing happens if the sequence has ended, or is so already.
  void Pause(SequenceId id);
  void Resume(SequenceId id);
  // What the ranks hold under this index from now on, in this group and in
  // every later one; an empty directory: nothing. The snapshot says when all of
  // them do. Sequences with an adapter that is not there are refused with
  // UNAVAILABLE.
  void SetAdapter(AdapterPlacement adapter);
  // Forms groups, ends what is late and plans steps. To be called after inputs
  // and at NextWakeup at the latest. A call that comes much later
  // (kMaxTickDelayMs) means that this process did not run, and that what others
  // said in time may still lie unread: then nobody is late for another
  // kWorkerTimeoutMs.
  void Tick(Micros now);
  // Ends all sequences with UNAVAILABLE and closes all workers.
  void Shutdown(const std::string& reason, Micros now);

  // --- Outputs --------------------------------------------------------------
  // What is to be sent since the last call, in order.
  std::vector<ReplicaOutput> TakeOutputs();
  // When Tick has something to do; INT64_MAX: not before the next input.
  Micros NextWakeup() const;
  ReplicaState state() const { return state_; }
  Epoch epoch() const { return epoch_; }
  ReplicaSnapshot Snapshot() const;

 private:
  struct Rank {
    LoadProgress progress;
    std::optional<GroupPrepared> prepared;
    bool connected = false;
    StepNumber last_step = 0;  // answered
    StepTimings timings;
  };
  struct AdapterState {
    AdapterPlacement placement;  // without a directory: it is to go
    // Ranks of the current group that have yet to answer what was sent; empty:
    // none. Nothing more is sent until then, so that a rank never has more than
    // one such message for an index.
    std::vector<bool> is_awaited;
    int num_awaited = 0;
    uint64_t sent_load_number = 0;
    bool is_outdated = false;  // the placement is newer than what was sent
    absl::Status status;       // the first error of a rank
  };
  // A step that was sent and not yet answered by all ranks.
  struct StepInFlight {
    StepNumber step = 0;
    Micros sent_at = 0;
    int num_sequences = 0;
    int num_rows = 0;
    int num_answers = 0;
    std::vector<StepTimings> timings;  // by rank
    StepResult result;                 // of rank 0
  };
  struct LiveSequence {
    std::unique_ptr<TokenSink> sink;
    bool stopped_by_sink = false;
  };

  void Handle(WorkerId worker, RegisterWorker message, Micros now);
  void Handle(WorkerId worker, LoadProgress message, Micros now);
  void Handle(WorkerId worker, GroupPrepared message, Micros now);
  void Handle(WorkerId worker, GroupConnected message, Micros now);
  void Handle(WorkerId worker, StepResult message, Micros now);
  void Handle(WorkerId worker, GroupFailed message, Micros now);
  void Handle(WorkerId worker, AdapterLoaded message, Micros now);
  void Handle(WorkerId, Heartbeat, Micros) {}

  // The rank that `worker` has in the current group if `epoch` is its epoch.
  std::optional<int> RankOf(WorkerId worker, Epoch epoch) const;
  std::string RankName(int rank) const;
  std::string NotServingReason() const;

  void FormGroupIfPossible(Micros now);
  void StartGroup(GroupPlan plan, Micros now);
  // Whether all ranks hold the same model and compute the same bits, now and
  // compared with earlier epochs. These blame the ranks that differ, and all of
  // them where nobody can tell which ones are wrong.
  absl::Status CheckIdentity();
  // Whether all ranks read the config that the coordinator read.
  absl::Status CheckConfigs();
  absl::Status CheckNumerics();
  void StartConnecting(Micros now);
  void StartKnownAnswer(Micros now);
  absl::Status CheckKnownAnswer(const StepResult& result);
  void StartServing();
  void SendStep(StepPlan plan, Micros now);
  void FinishOldestStep(Micros now);
  // Adds up where the time of a step went, and tells the observer.
  void RecordStep(StepInFlight step, Micros began_at, Micros now);
  absl::Status ApplyResult(StepResult result, Micros now);
  void DeliverEvents(Micros now);
  // Asks the sink of a live sequence for the next token.
  void ForceNextToken(SequenceId id, Micros now);
  void PlanSteps(Micros now);
  void OnWorkerLost(WorkerId worker, const std::string& cause, Micros now);
  // Notes that the current group fails before it serves because of `rank`, so
  // that others are tried first the next time (planner). While it serves,
  // nothing happens: then a failure says nothing about a worker's next start.
  void BlameRank(int rank);
  // Nobody can tell who it is. The one that is wrong gets blamed each time, the
  // others only now and then.
  void BlameAllRanks();
  // Gives the current group up.
  void FailGroup(const std::string& reason, Micros now);
  void SendAdapters();  // all of them, to a new group
  void SendAdapter(AdapterState& adapter);
  void NoteAnswer(int rank, const AdapterLoaded& message,
                  AdapterState& adapter);
  // OK when all ranks hold it.
  absl::Status CheckAdapter(const AdapterRef& ref) const;
  // When somebody may next be late.
  Micros NextExpiry() const;
  void ExpireWorkers(Micros now);
  void CheckStateDeadline(Micros now);
  bool HasStateDeadline() const;
  void SendToRanks(CoordinatorMessage message);

  const ReplicaOptions options_;
  Membership membership_;
  ReplicaState state_ = ReplicaState::kWaitingForWorkers;
  Epoch epoch_ = 0;
  std::vector<ReplicaOutput> outputs_;

  // --- The current group (empty while waiting for workers) -------------------
  GroupPlan group_;
  std::vector<Rank> ranks_;
  std::string group_weights_id_;
  Micros state_deadline_ = 0;  // of Preparing, Connecting and the oldest step
  std::deque<StepInFlight> steps_in_flight_;
  Micros last_step_ended_at_ = 0;
  std::unique_ptr<Scheduler> scheduler_;  // while serving
  std::unordered_map<SequenceId, LiveSequence> live_;
  std::map<int32_t, AdapterState> adapters_;  // by index; outlive the group

  // --- Whether this process runs in time -------------------------------------
  Micros last_tick_ = 0;
  Micros announced_tick_ = std::numeric_limits<Micros>::max();
  Micros no_expiry_before_ = 0;

  // --- Over all epochs ------------------------------------------------------
  // After a group that failed before it served.
  std::optional<Micros> retry_at_;
  Micros retry_pause_us_ = 0;
  // Fixed by the first group that served.
  Epoch first_serving_epoch_ = 0;
  std::string weights_id_;
  std::string numerics_id_;
  SampledToken known_answer_;
  SchedulerStats past_counters_;  // of earlier epochs
  StepTimeTotals step_time_;
  int64_t num_group_failures_ = 0;
  std::string last_error_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_REPLICA_H_
