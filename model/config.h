#ifndef WITAN_MODEL_CONFIG_H_
#define WITAN_MODEL_CONFIG_H_

// Immutable facts of a checkpoint, read from its config.json and
// generation_config.json. The same on every process of a cluster.

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/request.h"

namespace witan {

// Shape letters as in kernels/tensor.h.
struct ModelConfig {
  std::string architecture;        // "MixtralForCausalLM"
  int64_t hidden_size = 0;         // H
  int64_t intermediate_size = 0;   // F, of one expert
  int64_t num_layers = 0;          // L
  int64_t num_heads = 0;           // N
  int64_t num_kv_heads = 0;        // K, divides N
  int64_t head_dim = 0;            // D, even
  int64_t num_experts = 0;         // E, 0 in a family without experts
  int64_t experts_per_token = 0;   // top-k, <= E
  int64_t vocab_size = 0;          // V
  int64_t max_context_tokens = 0;  // max_position_embeddings
  int64_t sliding_window = 0;      // 0: none
  double rms_norm_epsilon = 0;
  double rope_theta = 0;
  bool tie_word_embeddings = false;
  DType weights = DType::kBF16;  // dtype / torch_dtype

  bool operator==(const ModelConfig&) const = default;
};

// Parses config.json. Errors name the field, its value, what is allowed and
// what to do: absent or absurd fields, an unknown architecture (the message
// lists the known ones), shapes above base/limits.h, features that are not
// served (e.g. rope_scaling, another hidden_act).
absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json);

// The same of DIRECTORY/config.json. NOT_FOUND when there is none.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& directory);

// Defaults that the model's author recommends. Everything is optional.
struct GenerationConfig {
  std::vector<TokenId> eos_token_ids;
  std::optional<float> temperature;  // 0 when do_sample is false
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  bool operator==(const GenerationConfig&) const = default;
};

// `generation_json` may be empty (the file is optional). End tokens that it
// does not name come from `config_json`; null and -1 mean that there is none.
// Errors name file, field, value and what is allowed.
absl::StatusOr<GenerationConfig> ParseGenerationConfig(
    const std::string& generation_json, const std::string& config_json);

// The same of DIRECTORY/generation_config.json and DIRECTORY/config.json.
absl::StatusOr<GenerationConfig> ReadGenerationConfig(
    const std::string& directory);

}  // namespace witan

#endif  // WITAN_MODEL_CONFIG_H_
