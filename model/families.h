#ifndef WITAN_MODEL_FAMILIES_H_
#define WITAN_MODEL_FAMILIES_H_

// What differs between architectures, as data: where their config.json says
// what, which tensors a checkpoint has, and their names. A family is one entry
// of the table in families.cc. Roles, their shapes and who owns them are in
// shard_plan.h; the forward pass is written once, over the switches of
// ModelConfig.

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "model/shard_plan.h"

namespace witan {

// Which projections of the attention have biases.
enum class AttentionBiasRule : uint8_t {
  kNone,             // config.json may not ask for any
  kQkv,              // query, key and value, always
  kAllIfConfigSays,  // all four, if attention_bias is true
};

// Which layers see only a window.
enum class WindowRule : uint8_t {
  kNone,
  kEveryLayer,  // if sliding_window is a number
  // If use_sliding_window is true: those from max_window_layers on.
  kUpperLayers,
};

// How to read the config.json of a family.
struct FamilyTraits {
  std::string_view architecture;  // of config.json's "architectures"
  // Fields with the number of experts and the size of one; empty: dense.
  std::string_view num_experts_field;
  std::string_view expert_size_field;
  AttentionBiasRule attention_bias = AttentionBiasRule::kNone;
  WindowRule window = WindowRule::kNone;
  NormKind norm = NormKind::kRms;
  bool qk_norm = false;
  // kSoftmax becomes kSoftmaxNormalised if norm_topk_prob is true.
  RoutingKind routing = RoutingKind::kSoftmaxNormalised;
  bool may_have_lm_head_bias = false;
  double default_rope_theta = 10000;  // transformers' own
};

// Null for an unknown architecture.
const FamilyTraits* FindFamily(std::string_view architecture);

// Names in config.json's "architectures" that can be served.
std::vector<std::string> KnownArchitectures();

// Where the checkpoint has a tensor: some families store several in one, row
// after row.
struct TensorPlace {
  std::string name;  // e.g. "model.layers.3.self_attn.qkv_proj.weight"
  std::vector<int64_t> stored_shape;  // of the whole tensor of that name
  int64_t first_row = 0;
  // Whether it shares the name with others.
  bool is_part = false;
};

// kLmHead of a model with tied embeddings is the embedding.
// REQUIRES: config.architecture is known and has the role.
TensorPlace PlaceOf(const ModelConfig& config, TensorRole role, int64_t layer,
                    int64_t expert);

// Number of tensors of a checkpoint of this config, and each of them; parts
// count one by one.
int64_t NumTensors(const ModelConfig& config);
std::vector<TensorSlice> ExpectedTensors(const ModelConfig& config);

// Numbers of weights, tied ones once: of the whole model, and those that one
// token meets (all but the experts that it did not choose).
struct ParameterCount {
  int64_t total = 0;
  int64_t active = 0;
};
ParameterCount CountParameters(const ModelConfig& config);

// OK when the checkpoint has exactly the expected tensors with the expected
// shapes and the config's weight dtype; the message lists names (at most ten,
// then a count) that are missing, unexpected, or of another shape or dtype.
// Ignored are what older converters left: rotary_emb.inv_freq, and the copy of
// a tied output table.
absl::Status CheckCheckpoint(const ModelConfig& config,
                             const Checkpoint& checkpoint);

}  // namespace witan

#endif  // WITAN_MODEL_FAMILIES_H_
