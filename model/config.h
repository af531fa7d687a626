#ifndef WITAN_MODEL_CONFIG_H_
#define WITAN_MODEL_CONFIG_H_

// Immutable facts of a checkpoint, read from its config.json. The same on every
// process of a cluster.

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/rope.h"
#include "base/routing.h"

namespace witan {

// What a layer's input is normalised with.
enum class NormKind : uint8_t {
  kRms,    // x / sqrt(mean(x^2) + epsilon) * weight
  kLayer,  // (x - mean(x)) / sqrt(var(x) + epsilon) * weight + bias
};

// Shape letters as in kernels/tensor.h. The switches say what the forward pass
// does; they are the only thing that it knows of a family.
struct ModelConfig {
  std::string architecture;        // "MixtralForCausalLM"
  int64_t hidden_size = 0;         // H
  int64_t intermediate_size = 0;   // F, of one expert if there are experts
  int64_t num_layers = 0;          // L
  int64_t num_heads = 0;           // N
  int64_t num_kv_heads = 0;        // K, divides N
  int64_t head_dim = 0;            // D, even
  int64_t num_experts = 0;         // E, 0: one dense FFN in every layer
  int64_t experts_per_token = 0;   // top-k, <= E
  int64_t vocab_size = 0;          // V
  int64_t max_context_tokens = 0;  // max_position_embeddings
  // Of the layers that windowed_layers names; 0: no layer has a window.
  int64_t sliding_window = 0;
  std::vector<bool> windowed_layers;  // [L]; empty without a window
  double norm_epsilon = 0;
  RopeParameters rope;
  RoutingRule routing;  // with experts
  NormKind norm = NormKind::kRms;
  bool qkv_bias = false;     // of the projections of query, key and value
  bool output_bias = false;  // of the projection of the attention's output
  bool qk_norm = false;      // RMS norm of every head's query and key
  bool lm_head_bias = false;
  bool tie_word_embeddings = false;
  DType weights = DType::kBF16;  // dtype / torch_dtype

  bool has_experts() const { return num_experts > 0; }
  // Positions that a row of the layer sees, its own included; 0: all.
  int64_t WindowOf(int64_t layer) const {
    return sliding_window > 0 && windowed_layers[static_cast<size_t>(layer)]
               ? sliding_window
               : 0;
  }
  bool operator==(const ModelConfig&) const = default;
};

// Parses config.json. Errors name the field, its value, what is allowed and
// what to do: absent or absurd fields, an unknown architecture (the message
// lists the known ones), shapes above base/limits.h, features that are not
// served (another hidden_act, biases of the FFN, dynamic rope scaling ...).
absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json);

// The text of a model's config.json: of a Hugging Face directory the file's, of
// GGUF files (model/gguf_model.h) what their metadata make. NOT_FOUND when
// there is none.
absl::StatusOr<std::string> ReadConfigText(const std::string& model);

// The config of the same. Errors name the model.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& model);

}  // namespace witan

#endif  // WITAN_MODEL_CONFIG_H_
