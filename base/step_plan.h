#ifndef WITAN_BASE_STEP_PLAN_H_
#define WITAN_BASE_STEP_PLAN_H_

// One step of the engine, as data: what a rank does not know yet, and what it
// made. Plain flat arrays; the same plan goes to every rank of a replica.
//
// A rank keeps per *slot* (an index below max_sequences that the coordinator
// gives to a running sequence): the block table, the sampling parameters, the
// token last sampled and the token counts for penalties. A plan therefore
// carries only what is new, and its size does not depend on context lengths.

#include <cstdint>
#include <vector>

#include "base/request.h"

namespace witan {

using Epoch = uint64_t;
using StepNumber = uint64_t;

// In StepPlan::token_ids: the token that the sequence's slot sampled in the
// step before. Lets step k+1 be sent while step k runs.
constexpr TokenId kTokenOfPreviousStep = -1;

// The null block: allocated, never handed out, target of padding rows.
constexpr int32_t kNullBlock = 0;

// In SlotStart::adapter: the model as it is.
constexpr int32_t kNoAdapter = -1;

// A slot gets a new occupant, before the step's rows are computed. Replaces
// everything the rank held for the slot.
struct SlotStart {
  int32_t slot = 0;
  int32_t choice = 0;  // index of the choice in its request (sampling counter)
  SamplingParams sampling;
  // Tokens known at the start, prompt first then output so far; present only
  // if sampling.uses_history(), else empty. The first num_prompt_tokens are the
  // prompt.
  std::vector<TokenId> history;
  int32_t num_prompt_tokens = 0;
  // Positions whose keys and values are in the cache already, a multiple of
  // kBlockTokens: the slot's first blocks hold them, perhaps those of other
  // slots too, and its rows begin behind them.
  int32_t num_cached_tokens = 0;
  // It has more tokens than the model's original context, and so the angles of
  // long sequences (base/rope.h).
  bool long_rope = false;
  // Index of the LoRA adapter of all its rows, below max_adapters.
  int32_t adapter = kNoAdapter;
  bool operator==(const SlotStart&) const = default;
};

// Rows are grouped by sequence, positions ascending within one; S sequences,
// T rows. Sequence s has rows [row_begin[s], row_begin[s+1]), at least one.
struct StepPlan {
  Epoch epoch = 0;
  StepNumber step = 0;  // 1, 2, 3 ... within an epoch
  std::vector<SlotStart> slot_starts;

  std::vector<TokenId> token_ids;        // [T]
  std::vector<int32_t> row_begin;        // [S+1]
  std::vector<int32_t> slots;            // [S] distinct
  std::vector<int32_t> first_positions;  // [S] absolute position of first row
  // Nonzero: the last row's logits are sampled (its prompt is complete).
  std::vector<uint8_t> samples;  // [S]
  // Rows [K], ascending, whose logits say how likely the prompt's next token
  // was, and that token; only of slots with sampling.num_prompt_logprobs >= 0.
  std::vector<int32_t> scored_rows;
  std::vector<TokenId> scored_token_ids;
  // Block ids appended to the slot's table before the rows run, ragged; after
  // a SlotStart those of its cached positions come first. Sequence s gets
  // new_block_ids[new_block_begin[s] .. new_block_begin[s+1]).
  std::vector<int32_t> new_block_begin;  // [S+1]
  std::vector<int32_t> new_block_ids;

  int num_sequences() const { return static_cast<int>(slots.size()); }
  int num_rows() const { return static_cast<int>(token_ids.size()); }
  bool operator==(const StepPlan&) const = default;
};

// Where the time of a step went on one rank.
struct StepTimings {
  int64_t total_us = 0;
  int64_t communication_us = 0;  // inside collectives, waiting included
  int64_t wait_us = 0;           // of that, waiting for other ranks
  bool operator==(const StepTimings&) const = default;
};

// Rank 0 fills `tokens`, one for each sequence with samples[s] != 0 in plan
// order, and `scores`, one for each scored row; other ranks leave them empty.
struct StepResult {
  Epoch epoch = 0;
  StepNumber step = 0;
  std::vector<SampledToken> tokens;
  std::vector<SampledToken> scores;
  StepTimings timings;
  bool operator==(const StepResult&) const = default;
};

}  // namespace witan

#endif  // WITAN_BASE_STEP_PLAN_H_
