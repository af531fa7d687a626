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
// running sequence that has its prompt behind it, then chunks of prompts being
// read, then new admissions; each group in order of arrival. A chunk that
// completes a prompt samples.
//
// Look-ahead: step k+1 may be planned while step k runs. A decode row of it
// says kTokenOfPreviousStep for the token that step k samples. A sequence that
// turns out to have ended in step k leaves a void row in step k+1, which is
// discarded. A slot and its blocks are released only once no step in flight
// has rows of them.
//
// When a decode row needs a block and none is left, the newest running
// sequence is preempted: it goes back to the front of the queue with its
// tokens and is prefilled again. A sequence is refused at Add unless it fits
// in the cache alone, so the oldest one always gets to its end.
//
// Plan and Apply cost about the rows of the step (times a logarithm of the
// number of sequences), whatever the length of queue and contexts.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/request.h"
#include "base/step_plan.h"
#include "coordinator/schedule/block_allocator.h"
#include "coordinator/schedule/sequence.h"

namespace witan {

struct SchedulerOptions {
  int64_t max_step_tokens = 0;           // rows of one step, >= 1
  int64_t max_prefill_chunk_tokens = 0;  // rows of one prompt in one step, >= 1
  int64_t max_sequences = 0;             // running at once (slots), >= 1
  int64_t num_blocks = 0;                // the null block included, >= 2
  int64_t max_context_tokens = 0;        // of one sequence, >= 1
  bool look_ahead = true;                // plan one step beyond the running one
};

// A token was made. Indices of one sequence are 0, 1, 2 ...
struct TokenEvent {
  SequenceId id = 0;
  int64_t index = 0;
  SampledToken token;
};

// The last event of a sequence.
struct FinishEvent {
  SequenceId id = 0;
  absl::StatusOr<FinishReason> reason;  // not OK: late, or FinishAll
  SequenceUsage usage;
};

using SchedulerEvent = std::variant<TokenEvent, FinishEvent>;

struct SchedulerStats {
  // --- Now -----------------------------------------------------------------
  int64_t num_running = 0;
  int64_t num_waiting = 0;  // preempted ones included
  int64_t num_free_blocks = 0;
  int64_t num_blocks = 0;  // that can be used; without the null block
  // --- Since the start (only grow) -------------------------------------------
  int64_t num_steps = 0;
  int64_t num_look_ahead_steps = 0;  // planned while another one ran
  int64_t num_decode_rows = 0;
  int64_t num_prefill_rows = 0;
  int64_t num_discarded_rows = 0;  // computed for sequences that had ended
  int64_t num_preemptions = 0;
  int64_t num_finished = 0;

  // Adds the counters (not the gauges) of `other`.
  void AddCounters(const SchedulerStats& other);
};

// Owned by a Replica, one for each epoch; used by its thread only.
class Scheduler {
 public:
  // Plans carry `epoch` and the step numbers first_step, first_step + 1, ...
  // REQUIRES: options within the bounds named there and base/limits.h.
  Scheduler(const SchedulerOptions& options, Epoch epoch,
            StepNumber first_step);

  // Queues a sequence. RESOURCE_EXHAUSTED when kMaxWaitingSequences wait;
  // INVALID_ARGUMENT when prompt + max_tokens exceed the context or the cache;
  // ALREADY_EXISTS for an id that is live. On error no event follows.
  absl::Status Add(SequenceSpec spec, Micros now);

  // Ends a live sequence: kCancelled when the client went away, kStop when a
  // stop string matched. False when no such sequence is live (it may just have
  // ended by itself); then nothing happens.
  bool Finish(SequenceId id, FinishReason reason, Micros now);

  // Ends all live sequences, in order of arrival, with `error`.
  void FinishAll(const absl::Status& error, Micros now);

  // Ends everything past its deadline. Plan does this as well.
  void ExpireDeadlines(Micros now);

  // The next step to send, or nothing: there is no work, or as many steps are
  // in flight as may be.
  std::optional<StepPlan> Plan(Micros now);

  // Takes rank 0's result of the oldest step in flight. INTERNAL, and nothing
  // is changed,
  // when it is another step's or has another number of tokens than that step
  // samples.
  absl::Status Apply(StepResult result, Micros now);

  // What happened since the last call, in order.
  std::vector<SchedulerEvent> TakeEvents();

  // The earliest deadline of a live sequence.
  std::optional<Micros> NextDeadline() const;
  SchedulerStats stats() const;

 private:
  struct PlannedRows {
    Sequence* sequence = nullptr;
    int64_t num_rows = 0;
    bool samples = false;
  };
  struct PlannedStep {
    StepNumber step = 0;
    int num_samples = 0;
    std::vector<PlannedRows> sequences;  // in plan order
  };
  // A step while it is put together.
  struct Draft {
    StepPlan plan;
    PlannedStep step;
    Micros now = 0;
  };
  // Keyed by arrival; Sequence has stable addresses in sequences_.
  using ByArrival = std::map<uint64_t, Sequence*>;

  int64_t NumAvailableBlocks() const;
  int64_t NumRowsLeft(const Draft& draft) const;
  void PlanRunning(Draft& draft);
  void PlanAdmissions(Draft& draft);
  void Admit(Sequence& sequence, Draft& draft);
  // Appends the rows, with the blocks they need, which have to be there.
  void AppendRows(Sequence& sequence, int64_t num_rows, Draft& draft);
  void AppendPrefillRows(Sequence& sequence, Draft& draft);
  // Whether the decode row of `sequence` gets the block it needs, if it needs
  // one; preempts newer sequences for it. False: it waits for blocks that
  // steps in flight still use, or for older sequences.
  bool MakeRoomForDecodeRow(const Sequence& sequence);
  void Preempt(Sequence& sequence);
  void ApplyToken(Sequence& sequence, SampledToken token, Micros now);
  void FinishSequence(Sequence& sequence, absl::StatusOr<FinishReason> reason,
                      Micros now);
  // The sequence runs no more: its slot and blocks go back as soon as no step
  // in flight has rows of it.
  void StartDraining(Sequence& sequence);
  void ReleaseIfDrained(Sequence& sequence);
  void EraseIfOver(Sequence& sequence);

  const SchedulerOptions options_;
  const Epoch epoch_;
  StepNumber next_step_;
  uint64_t next_arrival_ = 0;
  BlockAllocator blocks_;
  int64_t num_reserved_blocks_ = 0;  // of all running sequences
  int64_t num_draining_blocks_ = 0;  // held by ended and preempted sequences
  std::vector<int32_t> free_slots_;  // a stack
  // Live ones, and ended ones with rows in flight.
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  ByArrival waiting_;
  ByArrival running_;
  std::set<std::pair<Micros, SequenceId>> deadlines_;
  std::deque<PlannedStep> in_flight_;
  std::vector<SchedulerEvent> events_;
  SchedulerStats counters_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_SCHEDULER_H_
