#include "worker/slots.h"

#include <algorithm>
#include <cstddef>

#include "base/limits.h"
#include "base/status.h"

namespace witan {

SlotTable::SlotTable(const EngineLimits& limits, int64_t vocab_size,
                     int64_t long_rope_first_row)
    : limits_(limits),
      vocab_size_(vocab_size),
      long_rope_first_row_(long_rope_first_row),
      slots_(limits.max_sequences) {}

absl::Status SlotTable::CheckShape(const StepPlan& plan) const {
  const size_t num_sequences = plan.slots.size();
  if (plan.row_begin.size() != num_sequences + 1 ||
      plan.first_positions.size() != num_sequences ||
      plan.samples.size() != num_sequences ||
      plan.new_block_begin.size() != num_sequences + 1 ||
      plan.row_begin.front() != 0 || plan.row_begin.back() != plan.num_rows() ||
      plan.new_block_begin.front() != 0 ||
      plan.new_block_begin.back() !=
          static_cast<int64_t>(plan.new_block_ids.size())) {
    return InvalidArgument(
        "step {}: the arrays of {} sequences and {} rows do not fit together",
        plan.step, num_sequences, plan.num_rows());
  }
  if (plan.num_rows() > limits_.max_step_tokens ||
      static_cast<int64_t>(num_sequences) > limits_.max_sequences) {
    return InvalidArgument(
        "step {} has {} rows of {} sequences; the limits are {} and {}",
        plan.step, plan.num_rows(), num_sequences, limits_.max_step_tokens,
        limits_.max_sequences);
  }
  std::vector<bool> used(slots_.size(), false);
  for (size_t s = 0; s < num_sequences; ++s) {
    const int32_t slot = plan.slots[s];
    if (slot < 0 || slot >= limits_.max_sequences || used[slot]) {
      return InvalidArgument(
          "step {}: slot {} of sequence {} is out of [0, {}) or used twice",
          plan.step, slot, s, limits_.max_sequences);
    }
    used[slot] = true;
    if (plan.row_begin[s + 1] <= plan.row_begin[s] ||
        plan.new_block_begin[s + 1] < plan.new_block_begin[s]) {
      return InvalidArgument("step {}: sequence {} has no rows", plan.step, s);
    }
  }
  for (const SlotStart& start : plan.slot_starts) {
    if (start.slot < 0 || start.slot >= limits_.max_sequences ||
        !used[start.slot]) {
      return InvalidArgument(
          "step {}: slot {} starts twice or without rows, or is out of [0, {})",
          plan.step, start.slot, limits_.max_sequences);
    }
    used[start.slot] = false;
  }
  return absl::OkStatus();
}

absl::Status SlotTable::CheckTokens(const SlotStart& start) const {
  const SamplingParams& sampling = start.sampling;
  for (const LogitBias& bias : sampling.logit_bias) {
    if (bias.token_id < 0 || bias.token_id >= vocab_size_) {
      return InvalidArgument("logit_bias token id {} is out of [0, {})",
                             bias.token_id, vocab_size_);
    }
  }
  const auto check = [&](const std::vector<TokenId>& ids) {
    for (const TokenId id : ids) {
      if (id >= 0 && id < vocab_size_) continue;
      return InvalidArgument("token id {} of slot {} is out of [0, {})", id,
                             start.slot, vocab_size_);
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(check(start.history));
  RETURN_IF_ERROR(check(sampling.end_token_ids));
  for (const std::vector<TokenId>& word : sampling.bad_words) {
    if (word.empty()) {
      return InvalidArgument("a bad word of slot {} has no token", start.slot);
    }
    RETURN_IF_ERROR(check(word));
  }
  return absl::OkStatus();
}

absl::Status SlotTable::Start(const SlotStart& start) {
  if (start.num_prompt_tokens < 0) {
    return InvalidArgument("slot {} has a prompt of {} tokens", start.slot,
                           start.num_prompt_tokens);
  }
  if (start.num_cached_tokens < 0 ||
      start.num_cached_tokens > limits_.max_context_tokens ||
      start.num_cached_tokens % kBlockTokens != 0) {
    return InvalidArgument(
        "slot {} starts with {} cached positions; they must be a multiple of "
        "{} up to {}",
        start.slot, start.num_cached_tokens, kBlockTokens,
        limits_.max_context_tokens);
  }
  if (start.long_rope && long_rope_first_row_ == 0) {
    return InvalidArgument(
        "slot {} starts with the angles of long sequences, which this model "
        "does not have",
        start.slot);
  }
  if (start.adapter < kNoAdapter || start.adapter >= limits_.max_adapters) {
    return InvalidArgument(
        "slot {} starts with adapter {}, which is out of "
        "[-1, {})",
        start.slot, start.adapter, limits_.max_adapters);
  }
  RETURN_IF_ERROR(CheckTokens(start));
  Slot slot;
  slot.started = true;
  slot.long_rope = start.long_rope;
  slot.adapter = start.adapter;
  slot.choice = start.choice;
  slot.sampling = start.sampling;
  slot.num_positions = start.num_cached_tokens;
  slot.scoring.num_top_logprobs = start.sampling.num_prompt_logprobs;
  slot.num_prompt_tokens = start.num_prompt_tokens;
  slot.num_history_tokens = static_cast<int64_t>(start.history.size());
  if (start.sampling.uses_penalties()) {
    // Sorting once is linear-logarithmic; inserting one by one would be
    // quadratic in the prompt.
    std::vector<TokenId> ids = start.history;
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    slot.seen_ids = std::move(ids);
    slot.output_counts.assign(slot.seen_ids.size(), 0);
    for (size_t i = start.num_prompt_tokens; i < start.history.size(); ++i) {
      CountToken(slot, start.history[i], 1);
    }
  }
  for (const std::vector<TokenId>& word : start.sampling.bad_words) {
    slot.max_recent_ids = std::max(slot.max_recent_ids, word.size() - 1);
  }
  // Cached positions have no rows; what comes behind them has.
  const int64_t recent_end =
      std::min<int64_t>(start.num_cached_tokens, slot.num_history_tokens);
  const int64_t recent_begin = std::max<int64_t>(
      0, recent_end - static_cast<int64_t>(slot.max_recent_ids));
  slot.recent_ids.assign(start.history.begin() + recent_begin,
                         start.history.begin() + recent_end);
  slots_[start.slot] = std::move(slot);
  return absl::OkStatus();
}

void SlotTable::FeedToken(Slot& slot, TokenId token) {
  const int64_t position = slot.num_positions++;
  if (slot.sampling.uses_penalties() && position >= slot.num_history_tokens) {
    CountToken(slot, token, 1);
  }
  if (slot.max_recent_ids == 0) return;
  if (slot.recent_ids.size() == slot.max_recent_ids) {
    slot.recent_ids.erase(slot.recent_ids.begin());
  }
  slot.recent_ids.push_back(token);
}

void SlotTable::FindBannedTokens(Slot& slot) {
  slot.banned_ids.clear();
  const SamplingParams& sampling = slot.sampling;
  const int64_t num_output_tokens = slot.num_positions - slot.num_prompt_tokens;
  if (num_output_tokens < sampling.min_tokens) {
    slot.banned_ids = sampling.end_token_ids;
  }
  for (const std::vector<TokenId>& word : sampling.bad_words) {
    const size_t num_before = word.size() - 1;
    if (num_before <= slot.recent_ids.size() &&
        std::equal(
            word.begin(), word.end() - 1,
            slot.recent_ids.end() - static_cast<std::ptrdiff_t>(num_before))) {
      slot.banned_ids.push_back(word.back());
    }
  }
}

absl::Status SlotTable::ResolveScores(const StepPlan& plan,
                                      ResolvedStep& step) const {
  if (plan.scored_token_ids.size() != plan.scored_rows.size()) {
    return InvalidArgument("step {} has {} scored rows and {} tokens",
                           plan.step, plan.scored_rows.size(),
                           plan.scored_token_ids.size());
  }
  int s = 0;
  int32_t previous_row = -1;
  for (size_t i = 0; i < plan.scored_rows.size(); ++i) {
    const int32_t row = plan.scored_rows[i];
    const TokenId token = plan.scored_token_ids[i];
    if (row <= previous_row || row >= plan.num_rows() || token < 0 ||
        token >= vocab_size_) {
      return InvalidArgument(
          "step {}: scored row {} after row {} of {} rows, or its token {}, is "
          "out of range",
          plan.step, row, previous_row, plan.num_rows(), token);
    }
    previous_row = row;
    while (plan.row_begin[s + 1] <= row) ++s;
    if (slots_[plan.slots[s]].scoring.num_top_logprobs < 0) {
      return InvalidArgument("step {}: slot {} asked for no scores", plan.step,
                             plan.slots[s]);
    }
    step.score_slots.push_back(plan.slots[s]);
  }
  step.score_rows = plan.scored_rows;
  step.score_token_ids = plan.scored_token_ids;
  return absl::OkStatus();
}

void SlotTable::CountToken(Slot& slot, TokenId token, int32_t output_count) {
  const auto it =
      std::lower_bound(slot.seen_ids.begin(), slot.seen_ids.end(), token);
  const auto index = it - slot.seen_ids.begin();
  if (it == slot.seen_ids.end() || *it != token) {
    slot.seen_ids.insert(it, token);
    slot.output_counts.insert(slot.output_counts.begin() + index, output_count);
  } else {
    slot.output_counts[index] += output_count;
  }
}

absl::Status SlotTable::ResolveSequence(const StepPlan& plan, int s,
                                        ResolvedStep& step) {
  const int32_t slot_index = plan.slots[s];
  Slot& slot = slots_[slot_index];
  const int64_t first = plan.first_positions[s];
  const int64_t num_rows = plan.row_begin[s + 1] - plan.row_begin[s];
  if (!slot.started || first != slot.num_positions ||
      first + num_rows > limits_.max_context_tokens) {
    return InvalidArgument(
        "step {}: slot {} has {} positions and is asked for rows [{}, {}) of a "
        "context of {}",
        plan.step, slot_index, slot.num_positions, first, first + num_rows,
        limits_.max_context_tokens);
  }
  for (int32_t i = plan.new_block_begin[s]; i < plan.new_block_begin[s + 1];
       ++i) {
    const int32_t block = plan.new_block_ids[i];
    if (block <= kNullBlock || block >= limits_.num_blocks) {
      return InvalidArgument("step {}: block id {} is out of [1, {})",
                             plan.step, block, limits_.num_blocks);
    }
    slot.block_ids.push_back(block);
  }
  // Without the long variant there is a row for every position of the context.
  if (long_rope_first_row_ > 0 && !slot.long_rope &&
      first + num_rows > long_rope_first_row_) {
    return InvalidArgument(
        "step {}: slot {} has {} positions with the angles of sequences of at "
        "most {}",
        plan.step, slot_index, first + num_rows, long_rope_first_row_);
  }
  if (static_cast<int64_t>(slot.block_ids.size()) * kBlockTokens <
      first + num_rows) {
    return InvalidArgument("step {}: slot {} has {} blocks for {} positions",
                           plan.step, slot_index, slot.block_ids.size(),
                           first + num_rows);
  }
  for (int32_t row = plan.row_begin[s]; row < plan.row_begin[s + 1]; ++row) {
    TokenId token = plan.token_ids[row];
    if (token == kTokenOfPreviousStep && slot.has_token) {
      token = slot.last_token;
    }
    if (token < 0 || token >= vocab_size_) {
      return InvalidArgument("step {}: token id {} of row {} is out of [0, {})",
                             plan.step, token, row, vocab_size_);
    }
    step.token_ids.push_back(token);
    FeedToken(slot, token);
  }
  if (plan.samples[s] != 0) {
    step.sample_slots.push_back(slot_index);
    step.sample_rows.push_back(plan.row_begin[s + 1] - 1);
    step.sample_positions.push_back(slot.num_positions);
    FindBannedTokens(slot);
  }
  return absl::OkStatus();
}

void SlotTable::ResolveAdapters(const StepPlan& plan,
                                ResolvedStep& step) const {
  const auto has_adapter = [this](int32_t slot) {
    return slots_[slot].adapter != kNoAdapter;
  };
  if (std::none_of(plan.slots.begin(), plan.slots.end(), has_adapter)) return;
  for (int s = 0; s < plan.num_sequences(); ++s) {
    step.adapter_of_row.insert(step.adapter_of_row.end(),
                               plan.row_begin[s + 1] - plan.row_begin[s],
                               slots_[plan.slots[s]].adapter);
  }
}

absl::Status SlotTable::Resolve(const StepPlan& plan, ResolvedStep& step) {
  step = ResolvedStep();
  RETURN_IF_ERROR(CheckShape(plan));
  for (const SlotStart& start : plan.slot_starts) {
    RETURN_IF_ERROR(Start(start));
  }
  for (int s = 0; s < plan.num_sequences(); ++s) {
    RETURN_IF_ERROR(ResolveSequence(plan, s, step));
  }
  RETURN_IF_ERROR(ResolveScores(plan, step));
  ResolveAdapters(plan, step);
  for (const int32_t slot : plan.slots) {
    if (long_rope_first_row_ > 0) {
      step.rope_first_rows.push_back(static_cast<int32_t>(
          slots_[slot].long_rope ? long_rope_first_row_ : 0));
    }
    const int64_t num_blocks =
        (slots_[slot].num_positions + kBlockTokens - 1) / kBlockTokens;
    step.block_table_stride = std::max(step.block_table_stride, num_blocks);
  }
  step.block_ids.assign(plan.slots.size() * step.block_table_stride,
                        kNullBlock);
  for (size_t s = 0; s < plan.slots.size(); ++s) {
    const Slot& slot = slots_[plan.slots[s]];
    const int64_t num_blocks =
        (slot.num_positions + kBlockTokens - 1) / kBlockTokens;
    std::copy_n(slot.block_ids.begin(), num_blocks,
                step.block_ids.begin() + s * step.block_table_stride);
  }
  return absl::OkStatus();
}

void SlotTable::Commit(const ResolvedStep& step,
                       std::span<const TokenId> tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    Slot& slot = slots_[step.sample_slots[i]];
    slot.last_token = tokens[i];
    slot.has_token = true;
  }
}

SampleRow SlotTable::RowToSample(int32_t slot_index, int64_t position) const {
  const Slot& slot = slots_[slot_index];
  SampleRow row;
  row.params = &slot.sampling;
  row.choice = slot.choice;
  row.position = position;
  row.banned_ids = slot.banned_ids;
  if (slot.sampling.uses_penalties()) {
    row.seen_ids = slot.seen_ids;
    row.output_counts = slot.output_counts;
  }
  return row;
}

SampleRow SlotTable::RowToScore(int32_t slot, TokenId token_id) const {
  return SampleRow{.params = &slots_[slot].scoring, .given_token_id = token_id};
}

}  // namespace witan
