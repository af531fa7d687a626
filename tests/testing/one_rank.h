#ifndef WITAN_TESTS_TESTING_ONE_RANK_H_
#define WITAN_TESTS_TESTING_ONE_RANK_H_

// One rank without scheduler or sampler: the logits of given tokens.

#include <absl/status/statusor.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "worker/adapter_table.h"
#include "worker/decoder.h"

namespace witan {

class OneRank {
 public:
  static absl::StatusOr<std::unique_ptr<OneRank>> Create(
      const std::string& model_directory, CpuPath path, int num_threads = 1,
      const std::string& adapter_directory = "");

  const ModelConfig& config() const { return config_; }
  const EngineLimits& limits() const { return limits_; }
  Backend& backend() { return *backend_; }

  // Logits after every token, computed token by token.
  absl::StatusOr<std::vector<std::vector<float>>> LogitsOfAllPositions(
      std::span<const TokenId> tokens);
  // Logits after the last token, all computed in one chunk.
  absl::StatusOr<std::vector<float>> LogitsOfLastPosition(
      std::span<const TokenId> tokens);

 private:
  OneRank() = default;

  absl::StatusOr<std::vector<float>> Run(std::span<const TokenId> tokens,
                                         int64_t first_position);

  ModelConfig config_;
  RankShard shard_;
  EngineLimits limits_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Backend> backend_;
  std::vector<float> rope_;
  std::unique_ptr<PagedKvCache> cache_;
  std::unique_ptr<AdapterTable> adapters_;  // null: none
  std::unique_ptr<Communicator> attention_comm_;
  std::unique_ptr<Communicator> expert_comm_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<SlotTable> slots_;
};

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_ONE_RANK_H_
