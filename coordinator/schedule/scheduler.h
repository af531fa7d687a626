#ifndef WITAN_COORDINATOR_SCHEDULE_SCHEDULER_H_
#define WITAN_COORDINATOR_SCHEDULE_SCHEDULER_H_

// What runs next: continuous batching with chunked prefill over a paged cache.
//
// A pure state machine without thread, clock or RPC. The owner calls
//   Add / Finish            as requests come and go,
//   Plan                    while it returns a plan: send it to every rank,
//   Apply                   with rank 0's result of the oldest step in flight,
//   TakeEvents              after any of them.
//
// One step holds, within max_step_tokens rows: first one decode row for every
// running sequence that has its prompt behind it, then chunks of prompts: those
// being read, by priority, then arrival, and before them new ones of a higher
// priority; who is admitted is the WaitingQueue's affair. Beside decode rows no
// more than max_prefill_tokens_beside_decode prompt rows are planned, so that
// long prompts do not hold up those who are being answered. Fewer sequences run
// than a step has rows, so that one is left for prompts. A chunk that completes
// a prompt samples.
//
// Prefix cache: a block that all ranks have computed is kept under a name (see
// block_name.h) for others with the same tokens before it. An admitted sequence
// begins behind the blocks that it finds; its last token is always computed. A
// sequence whose next block is being computed by another one, of no lower
// priority, waits for that (it is "parked"), so that choices of one request,
// and requests that come together, compute their common prompt once.
//
// A prompt whose tokens are to be scored finds only what was scored before a
// preemption: a row that is not computed has no logits.
//
// Look-ahead: step k+1 may be planned while step k runs. A decode row of it
// says kTokenOfPreviousStep for the token that step k samples. A sequence that
// turns out to have ended in step k leaves a void row in step k+1, which is
// discarded. A slot and its blocks are released only once no step in flight
// has rows of them.
//
// Forced tokens: the owner may say which token follows the one that just came
// (Force). It joins the sequence like a sampled one and is computed like any
// token whose value is known, in a row of its own; what a step in flight draws
// in its place is dropped. So it comes at the same index whatever was planned
// ahead.
//
// Preemption: when a decode row needs a block and none is left, or a sequence
// of a higher priority waits for a place, the newest running sequence of the
// lowest priority goes back to the queue with its tokens and is prefilled
// again; so does the newest of a tenant that is kMaxServiceLeadTokens ahead of
// one that waits in its priority. A sequence is refused at Add unless it fits
// in the cache alone, so the oldest one of the highest priority gets to its end
// unless its tenant is far ahead.
//
// Plan and Apply cost about the rows of the step (times a logarithm of the
// number of sequences), whatever the length of queue and contexts; to admit or
// park a sequence costs a look-up for each block of its prompt, to preempt for
// a priority one for each block of those that may go.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/request.h"
#include "base/step_plan.h"
#include "coordinator/schedule/block_name.h"
#include "coordinator/schedule/planned_step.h"
#include "coordinator/schedule/prefix_cache.h"
#include "coordinator/schedule/queue_bounds.h"
#include "coordinator/schedule/scheduler_event.h"
#include "coordinator/schedule/scheduler_options.h"
#include "coordinator/schedule/scheduler_stats.h"
#include "coordinator/schedule/sequence.h"
#include "coordinator/schedule/waiting_queue.h"

namespace witan {

// Owned by a Replica, one for each epoch; used by its thread only.
class Scheduler {
 public:
  // Plans carry `epoch` and the step numbers first_step, first_step + 1, ...
  // REQUIRES: options within the bounds named there and base/limits.h.
  Scheduler(const SchedulerOptions& options, Epoch epoch,
            StepNumber first_step);

  // Queues a sequence. RESOURCE_EXHAUSTED by QueueBounds; INVALID_ARGUMENT
  // when prompt + max_tokens exceed the context or the cache; ALREADY_EXISTS
  // for an id that is live. On error no event follows.
  absl::Status Add(SequenceSpec spec, Micros now);

  // Ends a live sequence: kCancelled when the client went away, kStop when a
  // stop string matched. False when no such sequence is live (it may just have
  // ended by itself); then nothing happens.
  bool Finish(SequenceId id, FinishReason reason, Micros now);

  // `token` comes next in a live sequence, whatever the model draws; the stop
  // rules apply to it, its log-probability is not known. False: no such
  // sequence is live.
  // REQUIRES: the sequence has no output yet and no step with rows of it was
  // planned, or nothing was planned or applied since its last token came.
  bool Force(SequenceId id, TokenId token, Micros now);

  // Takes a live sequence out of the batch until Resume, because its client
  // does not take its tokens. Those of steps in flight still come. It gives up
  // slot and blocks (the prefix cache may keep them). False: not live, or
  // paused already.
  bool Pause(SequenceId id);
  bool Resume(SequenceId id);

  // Ends all live sequences, in order of arrival, with `error`.
  void FinishAll(const absl::Status& error, Micros now);

  // Ends everything past its deadline. Plan does this as well.
  void ExpireDeadlines(Micros now);

  // The next step to send, or nothing: there is no work, or as many steps are
  // in flight as may be.
  std::optional<StepPlan> Plan(Micros now);

  // Takes rank 0's result of the oldest step in flight. INTERNAL, and nothing
  // is changed, when it is another step's or has another number of tokens or
  // scores than that step makes.
  absl::Status Apply(StepResult result, Micros now);

  // What happened since the last call, in order.
  std::vector<SchedulerEvent> TakeEvents();

  std::optional<Micros> NextDeadline() const;  // of a live sequence
  SchedulerStats stats() const;

 private:
  // A named block that `owner` is computing, and who waits for it.
  struct PendingBlock {
    Sequence* owner = nullptr;
    std::vector<Sequence*> parked;
  };
  // (-priority, arrival): who is preempted comes last. Sequence has stable
  // addresses in sequences_.
  using RunningKey = std::pair<int32_t, uint64_t>;

  static RunningKey KeyOf(const Sequence& sequence);
  Sequence* FindLive(SequenceId id);

  // --- Plan (scheduler_plan.cc) ---------------------------------------------
  int64_t NumAvailableBlocks() const;
  int64_t NumRowsLeft(const StepDraft& draft) const;
  int64_t NumPrefillRowsLeft(const StepDraft& draft) const;
  int64_t NumPromptRowsWanted(const Sequence& sequence) const;
  bool MayBeAdmitted(const Sequence& next) const;
  void PlanDecodeRows(StepDraft& draft);
  // Its next row would need the angles of long sequences.
  bool OutgrewItsRope(const Sequence& sequence) const;
  void PlanPrompts(StepDraft& draft);
  void AdmitAbove(int64_t priority, StepDraft& draft);
  // Admits or parks the next sequence, or makes room for it. False: nothing
  // more can be admitted in this step.
  bool AdvanceAdmission(Sequence& next, StepDraft& draft);
  void Admit(Sequence& sequence, const std::vector<int32_t>& cached_blocks,
             StepDraft& draft);
  // Appends the rows, with the blocks they need, which have to be there.
  void AppendRows(Sequence& sequence, int64_t num_rows, StepDraft& draft);
  // The rows of [begin, end) that are scored, into the plan; how many.
  static int64_t AppendScoredRows(const Sequence& sequence, int64_t begin,
                                  int64_t end, StepPlan& plan);
  void AppendPrefillRows(Sequence& sequence, StepDraft& draft);
  // Whether a decode row gets the block it needs; preempts newer sequences for
  // it. False: it waits for blocks of steps in flight, or older sequences.
  bool MakeRoomForDecodeRow(const Sequence& sequence);
  // Whether `victim`, which runs, gives its place to `next`, which waits: it
  // has a lower priority, or its tenant is far ahead.
  static bool Yields(const Sequence& victim, const Sequence& next);
  int64_t NumThatYield(const Sequence& next) const;
  // Preempts one sequence that yields if that can help `sequence` to a slot and
  // `num_blocks` blocks more; `cached`: those that it found. False: it cannot,
  // or not yet.
  bool MakeRoomFor(const Sequence& sequence, int64_t num_blocks,
                   const std::vector<int32_t>& cached);
  void Preempt(Sequence& sequence);

  // --- Prefix cache (scheduler_prefix.cc) -----------------------------------
  // Blocks that others may have computed: full ones without the last token, and
  // without what is yet to be scored.
  size_t NumShareableBlocks(const Sequence& sequence) const;
  BlockName RootOf(const Sequence& sequence) const;
  // Of a new sequence: those that came with it, if they are under our root.
  void TakeNames(Sequence& sequence);
  // Before admission: by the tokens that it has.
  void ChooseRope(Sequence& sequence);
  // Computes block_names up to `num_blocks`.
  void NameBlocks(Sequence& sequence, size_t num_blocks);
  std::span<const TokenId> TokensOfBlock(const Sequence& sequence,
                                         size_t block) const;
  std::vector<int32_t> FindCachedBlocks(Sequence& sequence);
  // If another one is computing the block after `num_cached_blocks`.
  bool ParkIfPending(Sequence& sequence, size_t num_cached_blocks);
  void Unpark(Sequence& sequence);
  void RegisterPendingBlocks(Sequence& sequence);
  // Those parked on it go back to the queue.
  void ErasePendingBlock(const Sequence& owner, const BlockName& name);
  // Of one that computes no more, or whose blocks cannot be named.
  void ErasePendingBlocks(Sequence& sequence);
  // `num_rows` more positions of `sequence` were computed by all ranks.
  void CommitRows(Sequence& sequence, int64_t num_rows);

  // --- Ends -----------------------------------------------------------------
  void ApplyToken(Sequence& sequence, SampledToken token, Micros now);
  void ApplyScores(Sequence& sequence, std::span<SampledToken> scores);
  void FinishSequence(Sequence& sequence, absl::StatusOr<FinishReason> reason,
                      Micros now);
  // Of a sequence that waits and is not paused: out of the queue, or unparked.
  void RemoveFromWaiting(Sequence& sequence);
  // Leaves the batch for `state`: slot and blocks go back as soon as no step
  // in flight has rows of it.
  void StopRunning(Sequence& sequence, SequenceState state);
  void ReleaseIfDrained(Sequence& sequence);
  void EraseIfOver(Sequence& sequence);

  const SchedulerOptions options_;
  const Epoch epoch_;
  StepNumber next_step_;
  uint64_t next_arrival_ = 0;
  PrefixCache blocks_;
  int64_t num_reserved_blocks_ = 0;  // of all running sequences
  int64_t num_draining_ = 0;         // ended or preempted, with a slot
  std::vector<int32_t> free_slots_;  // a stack
  // Live ones, and ended ones with rows in flight.
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  QueueBounds bounds_;  // of all of them
  WaitingQueue waiting_;
  int64_t num_parked_ = 0;
  int64_t num_paused_ = 0;
  std::map<RunningKey, Sequence*> running_;
  std::unordered_map<BlockName, PendingBlock, BlockNameHash> pending_;
  std::set<std::pair<Micros, SequenceId>> deadlines_;
  int64_t num_releases_ = 0;
  std::deque<PlannedStep> in_flight_;
  std::vector<SchedulerEvent> events_;
  SchedulerStats counters_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_SCHEDULER_H_
