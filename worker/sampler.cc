#include "worker/sampler.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"

namespace witan {

size_t SamplerSendBytes(int64_t max_sequences) {
  return max_sequences * sizeof(TokenId);
}

absl::StatusOr<std::vector<SampledToken>> SampleStep(const ResolvedStep& step,
                                                     ConstTensorView logits,
                                                     Backend& backend,
                                                     Communicator& world,
                                                     SlotTable& slots) {
  const size_t num_samples = step.sample_slots.size();
  std::vector<SampledToken> tokens;
  if (num_samples == 0) return tokens;
  std::vector<TokenId> token_ids(num_samples);
  const size_t bytes = num_samples * sizeof(TokenId);
  if (world.rank() == 0) {
    std::vector<SampleRow> rows;
    for (size_t i = 0; i < num_samples; ++i) {
      rows.push_back(
          slots.RowToSample(step.sample_slots[i], step.sample_positions[i]));
    }
    tokens.resize(num_samples);
    backend.Sample(logits, rows, tokens);
    backend.Synchronize();
    for (size_t i = 0; i < num_samples; ++i) token_ids[i] = tokens[i].token_id;
    std::memcpy(world.SendBuffer(), token_ids.data(), bytes);
  }
  ASSIGN_OR_RETURN(std::span<const std::byte> received,
                   world.Broadcast(bytes, /*root=*/0));
  std::memcpy(token_ids.data(), received.data(), bytes);
  slots.Commit(step, token_ids);
  return tokens;
}

absl::StatusOr<std::vector<SampledToken>> ScoreStep(
    const ResolvedStep& step, int64_t max_rows,
    const std::function<absl::StatusOr<ConstTensorView>(
        std::span<const int32_t> rows)>& logits_of,
    Backend& backend, const Communicator& world, const SlotTable& slots) {
  std::vector<SampledToken> scores;
  const std::span<const int32_t> all_rows = step.score_rows;
  for (size_t begin = 0; begin < all_rows.size();) {
    const size_t num_rows =
        std::min(static_cast<size_t>(max_rows), all_rows.size() - begin);
    ASSIGN_OR_RETURN(const ConstTensorView logits,
                     logits_of(all_rows.subspan(begin, num_rows)));
    if (world.rank() == 0) {
      std::vector<SampleRow> rows;
      for (size_t i = begin; i < begin + num_rows; ++i) {
        rows.push_back(
            slots.RowToScore(step.score_slots[i], step.score_token_ids[i]));
      }
      scores.resize(begin + num_rows);
      backend.Sample(logits, rows, std::span(scores).subspan(begin));
      backend.Synchronize();
    }
    begin += num_rows;
  }
  return scores;
}

}  // namespace witan
