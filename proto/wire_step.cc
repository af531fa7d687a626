#include "proto/wire_step.h"

#include <algorithm>
#include <utility>

#include "base/bounds.h"
#include "base/limits.h"
#include "base/status.h"

namespace witan::wire {
namespace {

namespace wv = worker::v1;

// A log-probability; -infinity for a token that cannot be.
absl::Status CheckLogprob(float value) {
  if (value <= 1e-3f) return absl::OkStatus();  // rounding; false for NaN
  return InvalidArgument("logprob is {}; allowed is at most 0", value);
}

void Fill(wv::SamplingParams& out, const SamplingParams& in) {
  out.set_temperature(in.temperature);
  out.set_top_k(in.top_k);
  out.set_top_p(in.top_p);
  out.set_min_p(in.min_p);
  out.set_repetition_penalty(in.repetition_penalty);
  out.set_presence_penalty(in.presence_penalty);
  out.set_frequency_penalty(in.frequency_penalty);
  for (const LogitBias& bias : in.logit_bias) {
    wv::LogitBias& entry = *out.add_logit_bias();
    entry.set_token_id(bias.token_id);
    entry.set_bias(bias.bias);
  }
  for (const std::vector<TokenId>& word : in.bad_words) {
    wire::Fill(*out.add_bad_words()->mutable_token_ids(), word);
  }
  wire::Fill(*out.mutable_end_token_ids(), in.end_token_ids);
  out.set_min_tokens(in.min_tokens);
  out.set_seed(in.seed);
  out.set_num_top_logprobs(in.num_top_logprobs);
  out.set_num_prompt_logprobs(in.num_prompt_logprobs);
}

absl::Status CheckTokens(const char* field, const std::vector<TokenId>& ids) {
  for (const TokenId id : ids) {
    RETURN_IF_ERROR(CheckRange(field, id, 0, kMaxVocabSize - 1));
  }
  return absl::OkStatus();
}

absl::Status ReadBans(const wv::SamplingParams& in, SamplingParams& out) {
  RETURN_IF_ERROR(CheckCount("sampling.bad_words", in.bad_words_size(),
                             kMaxBadWordSequences));
  for (const wv::BadWord& word : in.bad_words()) {
    RETURN_IF_ERROR(CheckRange("sampling.bad_words.size", word.token_ids_size(),
                               1, kMaxBadWordTokens));
    out.bad_words.push_back(ToVector(word.token_ids()));
    RETURN_IF_ERROR(CheckTokens("sampling.bad_words", out.bad_words.back()));
  }
  RETURN_IF_ERROR(CheckCount("sampling.end_token_ids", in.end_token_ids_size(),
                             kMaxEndTokenIds));
  out.end_token_ids = ToVector(in.end_token_ids());
  RETURN_IF_ERROR(CheckTokens("sampling.end_token_ids", out.end_token_ids));
  RETURN_IF_ERROR(
      CheckRange("sampling.min_tokens", in.min_tokens(), 0, kMaxContextTokens));
  out.min_tokens = in.min_tokens();
  return absl::OkStatus();
}

absl::StatusOr<SamplingParams> Read(const wv::SamplingParams& in) {
  RETURN_IF_ERROR(
      CheckReal("sampling.temperature", in.temperature(), 0, kMaxTemperature));
  RETURN_IF_ERROR(CheckRange("sampling.top_k", in.top_k(), 0, kMaxVocabSize));
  RETURN_IF_ERROR(CheckReal("sampling.top_p", in.top_p(), kMinTopP, 1));
  RETURN_IF_ERROR(CheckReal("sampling.min_p", in.min_p(), 0, 1));
  RETURN_IF_ERROR(CheckReal("sampling.repetition_penalty",
                            in.repetition_penalty(), kMinRepetitionPenalty,
                            kMaxPenalty));
  RETURN_IF_ERROR(CheckReal("sampling.presence_penalty", in.presence_penalty(),
                            -kMaxPenalty, kMaxPenalty));
  RETURN_IF_ERROR(CheckReal("sampling.frequency_penalty",
                            in.frequency_penalty(), -kMaxPenalty, kMaxPenalty));
  RETURN_IF_ERROR(
      CheckCount("sampling.logit_bias", in.logit_bias_size(), kMaxLogitBias));
  RETURN_IF_ERROR(CheckRange("sampling.num_top_logprobs", in.num_top_logprobs(),
                             -1, kMaxTopLogprobs));
  RETURN_IF_ERROR(CheckRange("sampling.num_prompt_logprobs",
                             in.num_prompt_logprobs(), -1, kMaxTopLogprobs));
  SamplingParams out{.temperature = in.temperature(),
                     .top_k = in.top_k(),
                     .top_p = in.top_p(),
                     .min_p = in.min_p(),
                     .repetition_penalty = in.repetition_penalty(),
                     .presence_penalty = in.presence_penalty(),
                     .frequency_penalty = in.frequency_penalty(),
                     .logit_bias = {},
                     .seed = in.seed(),
                     .num_top_logprobs = in.num_top_logprobs(),
                     .num_prompt_logprobs = in.num_prompt_logprobs()};
  RETURN_IF_ERROR(ReadBans(in, out));
  int64_t previous = -1;
  for (const wv::LogitBias& entry : in.logit_bias()) {
    RETURN_IF_ERROR(CheckRange("sampling.logit_bias.token_id", entry.token_id(),
                               previous + 1, kMaxVocabSize - 1));
    RETURN_IF_ERROR(CheckReal("sampling.logit_bias.bias", entry.bias(),
                              -kMaxAbsoluteLogitBias, kMaxAbsoluteLogitBias));
    previous = entry.token_id();
    out.logit_bias.push_back(
        {.token_id = entry.token_id(), .bias = entry.bias()});
  }
  return out;
}

absl::StatusOr<SlotStart> Read(const wv::SlotStart& in) {
  RETURN_IF_ERROR(
      CheckRange("slot_starts.slot", in.slot(), 0, kMaxStepSequences - 1));
  RETURN_IF_ERROR(
      CheckRange("slot_starts.choice", in.choice(), 0, kMaxChoices - 1));
  RETURN_IF_ERROR(
      CheckCount("slot_starts.history", in.history_size(), kMaxContextTokens));
  RETURN_IF_ERROR(CheckRange("slot_starts.num_prompt_tokens",
                             in.num_prompt_tokens(), 0, kMaxContextTokens));
  SlotStart out;
  out.slot = in.slot();
  out.choice = in.choice();
  ASSIGN_OR_RETURN(out.sampling, Read(in.sampling()));
  out.history = ToVector(in.history());
  out.num_prompt_tokens = in.num_prompt_tokens();
  RETURN_IF_ERROR(CheckRange("slot_starts.num_cached_tokens",
                             in.num_cached_tokens(), 0, kMaxContextTokens));
  out.num_cached_tokens = in.num_cached_tokens();
  out.long_rope = in.long_rope();
  RETURN_IF_ERROR(CheckRange("slot_starts.adapter", in.adapter(), kNoAdapter,
                             kMaxAdapters - 1));
  out.adapter = in.adapter();
  if (!out.sampling.uses_history() && !out.history.empty()) {
    return InvalidArgument(
        "slot_starts.history has {} tokens for a sequence without penalties "
        "and bad words",
        out.history.size());
  }
  if (out.sampling.uses_history()) {
    RETURN_IF_ERROR(CheckRange("slot_starts.num_prompt_tokens",
                               out.num_prompt_tokens, 0, in.history_size()));
  }
  return out;
}

absl::Status CheckDistinct(const char* field, std::vector<int32_t> values) {
  std::sort(values.begin(), values.end());
  const auto twice = std::adjacent_find(values.begin(), values.end());
  if (twice == values.end()) return absl::OkStatus();
  return InvalidArgument("{} has {} twice", field, *twice);
}

// offsets[0] = 0, ascending, offsets[num_parts] = size; each part holds at
// least min_part entries.
absl::Status CheckRagged(const char* field, const std::vector<int32_t>& offsets,
                         int64_t num_parts, int64_t size, int64_t min_part) {
  if (static_cast<int64_t>(offsets.size()) != num_parts + 1) {
    return InvalidArgument("{} has {} entries for {} sequences", field,
                           offsets.size(), num_parts);
  }
  if (offsets.front() != 0 || offsets.back() != size) {
    return InvalidArgument("{} runs from {} to {} over {} entries", field,
                           offsets.front(), offsets.back(), size);
  }
  for (size_t i = 1; i < offsets.size(); ++i) {
    if (int64_t{offsets[i]} - offsets[i - 1] < min_part) {
      return InvalidArgument("{}[{}] is {} after {}; each part has at least {}",
                             field, i, offsets[i], offsets[i - 1], min_part);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStepPlan(const StepPlan& plan) {
  const int64_t num_sequences = static_cast<int64_t>(plan.slots.size());
  const int64_t num_rows = static_cast<int64_t>(plan.token_ids.size());
  if (plan.step == 0) return InvalidArgument("step is 0; steps start at 1");
  RETURN_IF_ERROR(CheckRange("number of rows", num_rows, 1, kMaxStepTokens));
  RETURN_IF_ERROR(CheckRagged("row_begin", plan.row_begin, num_sequences,
                              num_rows, /*min_part=*/1));
  RETURN_IF_ERROR(CheckRagged("new_block_begin", plan.new_block_begin,
                              num_sequences,
                              static_cast<int64_t>(plan.new_block_ids.size()),
                              /*min_part=*/0));
  if (static_cast<int64_t>(plan.first_positions.size()) != num_sequences ||
      static_cast<int64_t>(plan.samples.size()) != num_sequences) {
    return InvalidArgument(
        "first_positions has {} and samples {} entries for {} sequences",
        plan.first_positions.size(), plan.samples.size(), num_sequences);
  }
  for (int64_t s = 0; s < num_sequences; ++s) {
    RETURN_IF_ERROR(
        CheckRange("slots", plan.slots[s], 0, kMaxStepSequences - 1));
    RETURN_IF_ERROR(CheckRange("samples", plan.samples[s], 0, 1));
    const int64_t rows = plan.row_begin[s + 1] - plan.row_begin[s];
    RETURN_IF_ERROR(CheckRange("first_positions", plan.first_positions[s], 0,
                               kMaxContextTokens - rows));
  }
  RETURN_IF_ERROR(CheckDistinct("slots", plan.slots));
  for (const TokenId token : plan.token_ids) {
    RETURN_IF_ERROR(CheckRange("token_ids", token, kTokenOfPreviousStep,
                               kMaxVocabSize - 1));
  }
  if (plan.scored_rows.size() != plan.scored_token_ids.size()) {
    return InvalidArgument("scored_rows has {} entries, scored_token_ids {}",
                           plan.scored_rows.size(),
                           plan.scored_token_ids.size());
  }
  int64_t previous_row = -1;
  for (const int32_t row : plan.scored_rows) {
    RETURN_IF_ERROR(
        CheckRange("scored_rows", row, previous_row + 1, num_rows - 1));
    previous_row = row;
  }
  RETURN_IF_ERROR(CheckTokens("scored_token_ids", plan.scored_token_ids));
  for (const int32_t block : plan.new_block_ids) {
    RETURN_IF_ERROR(
        CheckRange("new_block_ids", block, kNullBlock + 1, kMaxBlocks - 1));
  }
  std::vector<int32_t> started;
  for (const SlotStart& start : plan.slot_starts) {
    started.push_back(start.slot);
    RETURN_IF_ERROR(CheckTokens("slot_starts.history", start.history));
  }
  return CheckDistinct("slot_starts", std::move(started));
}

void Fill(wv::SampledToken& out, const SampledToken& in) {
  out.set_token_id(in.token_id);
  out.set_logprob(in.logprob);
  for (const TokenLogprob& top : in.top_logprobs) {
    wv::TokenLogprob& entry = *out.add_top_logprobs();
    entry.set_token_id(top.token_id);
    entry.set_logprob(top.logprob);
  }
}

absl::StatusOr<SampledToken> Read(const wv::SampledToken& in,
                                  int64_t vocab_size) {
  RETURN_IF_ERROR(
      CheckRange("tokens.token_id", in.token_id(), 0, vocab_size - 1));
  RETURN_IF_ERROR(CheckLogprob(in.logprob()));
  RETURN_IF_ERROR(CheckCount("tokens.top_logprobs", in.top_logprobs_size(),
                             kMaxTopLogprobs));
  SampledToken out{.token_id = in.token_id(), .logprob = in.logprob()};
  for (const wv::TokenLogprob& top : in.top_logprobs()) {
    RETURN_IF_ERROR(CheckRange("tokens.top_logprobs.token_id", top.token_id(),
                               0, vocab_size - 1));
    RETURN_IF_ERROR(CheckLogprob(top.logprob()));
    out.top_logprobs.push_back(
        {.token_id = top.token_id(), .logprob = top.logprob()});
  }
  return out;
}

absl::StatusOr<StepTimings> Read(const wv::StepTimings& in) {
  RETURN_IF_ERROR(CheckRange("timings.total_us", in.total_us(), 0, kMaxStepUs));
  RETURN_IF_ERROR(CheckRange("timings.communication_us", in.communication_us(),
                             0, kMaxStepUs));
  RETURN_IF_ERROR(CheckRange("timings.wait_us", in.wait_us(), 0, kMaxStepUs));
  return StepTimings{.total_us = in.total_us(),
                     .communication_us = in.communication_us(),
                     .wait_us = in.wait_us()};
}

}  // namespace

absl::Status CheckEpoch(uint64_t epoch) {
  if (epoch > 0) return absl::OkStatus();
  return InvalidArgument("epoch is 0; epochs start at 1");
}

void Fill(wv::StepPlan& out, const StepPlan& in) {
  out.set_epoch(in.epoch);
  out.set_step(in.step);
  for (const SlotStart& start : in.slot_starts) {
    wv::SlotStart& entry = *out.add_slot_starts();
    entry.set_slot(start.slot);
    entry.set_choice(start.choice);
    Fill(*entry.mutable_sampling(), start.sampling);
    Fill(*entry.mutable_history(), start.history);
    entry.set_num_prompt_tokens(start.num_prompt_tokens);
    entry.set_num_cached_tokens(start.num_cached_tokens);
    entry.set_long_rope(start.long_rope);
    entry.set_adapter(start.adapter);
  }
  Fill(*out.mutable_token_ids(), in.token_ids);
  Fill(*out.mutable_row_begin(), in.row_begin);
  Fill(*out.mutable_slots(), in.slots);
  Fill(*out.mutable_first_positions(), in.first_positions);
  out.set_samples(in.samples.data(), in.samples.size());
  Fill(*out.mutable_new_block_begin(), in.new_block_begin);
  Fill(*out.mutable_new_block_ids(), in.new_block_ids);
  Fill(*out.mutable_scored_rows(), in.scored_rows);
  Fill(*out.mutable_scored_token_ids(), in.scored_token_ids);
}

absl::StatusOr<StepPlan> Read(const wv::StepPlan& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(
      CheckCount("slot_starts", in.slot_starts_size(), kMaxStepSequences));
  RETURN_IF_ERROR(CheckCount("token_ids", in.token_ids_size(), kMaxStepTokens));
  RETURN_IF_ERROR(CheckCount("slots", in.slots_size(), kMaxStepSequences));
  RETURN_IF_ERROR(
      CheckCount("new_block_ids", in.new_block_ids_size(), kMaxBlocks));
  RETURN_IF_ERROR(
      CheckCount("scored_rows", in.scored_rows_size(), kMaxStepTokens));
  RETURN_IF_ERROR(CheckCount("scored_token_ids", in.scored_token_ids_size(),
                             kMaxStepTokens));
  StepPlan out;
  out.epoch = in.epoch();
  out.step = in.step();
  for (const wv::SlotStart& start : in.slot_starts()) {
    ASSIGN_OR_RETURN(out.slot_starts.emplace_back(), Read(start));
  }
  out.token_ids = ToVector(in.token_ids());
  out.row_begin = ToVector(in.row_begin());
  out.slots = ToVector(in.slots());
  out.first_positions = ToVector(in.first_positions());
  out.samples.assign(in.samples().begin(), in.samples().end());
  out.new_block_begin = ToVector(in.new_block_begin());
  out.new_block_ids = ToVector(in.new_block_ids());
  out.scored_rows = ToVector(in.scored_rows());
  out.scored_token_ids = ToVector(in.scored_token_ids());
  RETURN_IF_ERROR(CheckStepPlan(out));
  return out;
}

void Fill(wv::StepResult& out, const StepResult& in) {
  out.set_epoch(in.epoch);
  out.set_step(in.step);
  for (const SampledToken& token : in.tokens) Fill(*out.add_tokens(), token);
  for (const SampledToken& score : in.scores) Fill(*out.add_scores(), score);
  out.mutable_timings()->set_total_us(in.timings.total_us);
  out.mutable_timings()->set_communication_us(in.timings.communication_us);
  out.mutable_timings()->set_wait_us(in.timings.wait_us);
}

absl::StatusOr<StepResult> Read(const wv::StepResult& in, int64_t vocab_size) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  StepResult out;
  out.epoch = in.epoch();
  out.step = in.step();
  RETURN_IF_ERROR(CheckCount("tokens", in.tokens_size(), kMaxStepSequences));
  RETURN_IF_ERROR(CheckCount("scores", in.scores_size(), kMaxStepTokens));
  out.tokens.reserve(in.tokens_size());
  for (const wv::SampledToken& token : in.tokens()) {
    ASSIGN_OR_RETURN(out.tokens.emplace_back(), Read(token, vocab_size));
  }
  out.scores.reserve(in.scores_size());
  for (const wv::SampledToken& score : in.scores()) {
    ASSIGN_OR_RETURN(out.scores.emplace_back(), Read(score, vocab_size));
  }
  ASSIGN_OR_RETURN(out.timings, Read(in.timings()));
  return out;
}

}  // namespace witan::wire
