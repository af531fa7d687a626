#include "worker/sampler.h"

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

}  // namespace witan
