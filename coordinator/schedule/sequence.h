#ifndef WITAN_COORDINATOR_SCHEDULE_SEQUENCE_H_
#define WITAN_COORDINATOR_SCHEDULE_SEQUENCE_H_

// One generation (one choice of one request) as the scheduler sees it.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/limits.h"
#include "base/request.h"
#include "base/step_plan.h"
#include "coordinator/schedule/block_name.h"

namespace witan {

struct TenantShare;  // waiting_queue.h

// Unique for the life of the coordinator, never reused.
using SequenceId = uint64_t;

// The LoRA adapter of a sequence: where the ranks have it, and what tells its
// keys and values from those of others.
struct AdapterRef {
  int32_t index = kNoAdapter;
  uint64_t load_number = 0;
  std::string content_hash;
  bool operator==(const AdapterRef&) const = default;
};

// What to generate. Validated by the caller: token ids are below the model's
// vocabulary size and the parameters are within base/limits.h.
struct SequenceSpec {
  SequenceId id = 0;
  std::vector<TokenId> prompt;  // at least one token
  SamplingParams sampling;
  StopRules stop;
  int32_t choice = 0;  // index of the choice in its request
  std::string tenant = kDefaultTenant;
  int32_t priority = 0;      // higher goes first
  std::string adapter_name;  // empty: the model as it is
  AdapterRef adapter;        // of that name, filled in by the engine
  // Another sequence of the same request, which has the same prompt.
  std::optional<SequenceId> beside;
  // Names of the prompt's full blocks under this root; empty: not computed yet.
  BlockName block_root;
  std::vector<BlockName> block_names;
  // Past this moment the sequence ends with DEADLINE_EXCEEDED, queued or not.
  std::optional<Micros> deadline;
};

// What a sequence used, known when it ends.
struct SequenceUsage {
  int64_t num_prompt_tokens = 0;
  int64_t num_output_tokens = 0;  // delivered, a stop token included
  int64_t num_cached_tokens = 0;  // of the prompt, when first admitted
  int64_t num_preemptions = 0;
  Micros queued_us = 0;       // until its first row was planned, or the end
  Micros first_token_us = 0;  // from submission; 0: there was none
  Micros total_us = 0;
  bool operator==(const SequenceUsage&) const = default;
};

// Whether stop tokens and stop strings end the sequence at the output token
// `index` (from 0): not at the first min_tokens.
inline bool StopRulesApply(const StopRules& rules, int64_t index) {
  return index >= rules.min_tokens;
}

// Whether the output token `token_id` at `index` ends the sequence.
// The stop token is delivered like any other token; its text is not shown.
bool IsStopToken(const StopRules& rules, int64_t index, TokenId token_id);

inline int64_t BlocksFor(int64_t num_positions) {
  return (num_positions + kBlockTokens - 1) / kBlockTokens;
}

// The last token made is never fed back, so it needs no position.
inline int64_t MaxPositions(int64_t num_prompt_tokens, const StopRules& stop) {
  return num_prompt_tokens + stop.max_tokens - 1;
}

// Waiting -> Running -> Finished; preemption and pauses go back to Waiting with
// the tokens made so far, and what the prefix cache lost of prompt and output
// is prefilled again.
enum class SequenceState : uint8_t { kWaiting, kRunning, kFinished };

// Owned by the Scheduler, used by its thread only.
struct Sequence {
  SequenceSpec spec;     // spec.prompt was moved into `tokens`
  uint64_t arrival = 0;  // order of Add
  SequenceState state = SequenceState::kWaiting;
  TenantShare* share = nullptr;  // in the queue's books while not finished
  // Tokens that its tenant was charged for; what is computed again is free.
  int64_t num_charged_tokens = 0;

  // --- Reasons to wait outside the queue ------------------------------------
  bool paused = false;
  // Another sequence is computing the block of this name, which this one has
  // in common with it.
  std::optional<BlockName> parked_on;
  size_t parked_index = 0;  // among those parked on it
  // It found too few blocks then (Scheduler's count of releases); only another
  // release can change that, or that more than so many yield to it.
  int64_t starved_at_release = -1;
  int64_t num_yielding_when_starved = 0;

  // Prompt, then the output as far as steps were applied.
  std::vector<TokenId> tokens;
  int64_t num_prompt_tokens = 0;

  bool long_rope = false;  // see HasLongRope; decided when it is admitted
  // First rows of the prompt whose scores have come (num_prompt_logprobs); each
  // says how likely the next token was.
  int64_t num_scored_rows = 0;

  // Of the first full blocks of `tokens`, as far as they were needed.
  std::vector<BlockName> block_names;

  // --- Valid while it holds a slot (slot >= 0) ------------------------------
  // Kept after preemption or the end until the last step with rows of this
  // sequence was applied.
  int32_t slot = -1;
  std::vector<int32_t> block_table;
  size_t num_sent_blocks = 0;  // of the table, in plans
  int64_t num_tokens_when_admitted = 0;
  // Blocks set aside for those tokens, not yet in the table.
  int64_t num_reserved_blocks = 0;
  // Positions [0, num_planned_tokens) have rows in the steps planned so far.
  int64_t num_planned_tokens = 0;
  // Positions [0, num_committed_tokens) were computed by all ranks.
  int64_t num_committed_tokens = 0;
  // First blocks of the table that the prefix cache knows by name.
  size_t num_named_blocks = 0;
  // Blocks [num_named_blocks, num_pending_blocks) are registered as being
  // computed.
  size_t num_pending_blocks = 0;
  int num_steps_in_flight = 0;    // steps with rows of this sequence
  int num_samples_in_flight = 0;  // of them, those that sample

  // --- For SequenceUsage ----------------------------------------------------
  Micros added_at = 0;
  std::optional<Micros> first_planned_at;
  std::optional<Micros> first_token_at;
  int64_t num_preemptions = 0;
  std::optional<int64_t> num_cached_tokens;

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_output_tokens() const { return num_tokens() - num_prompt_tokens; }
  // Rows that are to be scored in all.
  int64_t num_rows_to_score() const {
    return spec.sampling.num_prompt_logprobs < 0 ? 0 : num_prompt_tokens - 1;
  }
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_SEQUENCE_H_
