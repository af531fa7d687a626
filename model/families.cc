#include "model/families.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <span>
#include <string_view>

#include "base/check.h"
#include "base/limits.h"
#include "base/status.h"
#include "model/json_object.h"

namespace witan {
namespace {

// {layer} and {expert} stand for the indices. Entries of a list with the same
// pattern are parts of one tensor, from its first row on.
struct NamePattern {
  TensorRole role;
  std::string_view pattern;
};
using Names = std::span<const NamePattern>;

// The tensors of a checkpoint, in the order of the forward pass. Those that a
// config does not have (see IsStored) are passed over.
struct Family {
  FamilyTraits traits;
  Names attention;   // of each layer
  Names ffn;         // of each layer
  Names per_expert;  // of each expert of each layer
};

constexpr NamePattern kFirst[] = {
    {TensorRole::kEmbedding, "model.embed_tokens.weight"},
};
constexpr NamePattern kLast[] = {
    {TensorRole::kFinalNorm, "model.norm.weight"},
    {TensorRole::kFinalNormBias, "model.norm.bias"},
    {TensorRole::kLmHead, "lm_head.weight"},
    {TensorRole::kLmHeadBias, "lm_head.bias"},
};

constexpr NamePattern kAttention[] = {
    {TensorRole::kAttentionNorm, "model.layers.{layer}.input_layernorm.weight"},
    {TensorRole::kAttentionNormBias,
     "model.layers.{layer}.input_layernorm.bias"},
    {TensorRole::kQuery, "model.layers.{layer}.self_attn.q_proj.weight"},
    {TensorRole::kQueryBias, "model.layers.{layer}.self_attn.q_proj.bias"},
    {TensorRole::kKey, "model.layers.{layer}.self_attn.k_proj.weight"},
    {TensorRole::kKeyBias, "model.layers.{layer}.self_attn.k_proj.bias"},
    {TensorRole::kValue, "model.layers.{layer}.self_attn.v_proj.weight"},
    {TensorRole::kValueBias, "model.layers.{layer}.self_attn.v_proj.bias"},
    {TensorRole::kQueryNorm, "model.layers.{layer}.self_attn.q_norm.weight"},
    {TensorRole::kKeyNorm, "model.layers.{layer}.self_attn.k_norm.weight"},
    {TensorRole::kOutput, "model.layers.{layer}.self_attn.o_proj.weight"},
    {TensorRole::kOutputBias, "model.layers.{layer}.self_attn.o_proj.bias"},
};
constexpr NamePattern kFusedAttention[] = {
    {TensorRole::kAttentionNorm, "model.layers.{layer}.input_layernorm.weight"},
    {TensorRole::kQuery, "model.layers.{layer}.self_attn.qkv_proj.weight"},
    {TensorRole::kKey, "model.layers.{layer}.self_attn.qkv_proj.weight"},
    {TensorRole::kValue, "model.layers.{layer}.self_attn.qkv_proj.weight"},
    {TensorRole::kOutput, "model.layers.{layer}.self_attn.o_proj.weight"},
};

constexpr NamePattern kDense[] = {
    {TensorRole::kFfnNorm,
     "model.layers.{layer}.post_attention_layernorm.weight"},
    {TensorRole::kGate, "model.layers.{layer}.mlp.gate_proj.weight"},
    {TensorRole::kUp, "model.layers.{layer}.mlp.up_proj.weight"},
    {TensorRole::kDown, "model.layers.{layer}.mlp.down_proj.weight"},
};
constexpr NamePattern kFusedDense[] = {
    {TensorRole::kFfnNorm,
     "model.layers.{layer}.post_attention_layernorm.weight"},
    {TensorRole::kGate, "model.layers.{layer}.mlp.gate_up_proj.weight"},
    {TensorRole::kUp, "model.layers.{layer}.mlp.gate_up_proj.weight"},
    {TensorRole::kDown, "model.layers.{layer}.mlp.down_proj.weight"},
};
constexpr NamePattern kSparse[] = {
    {TensorRole::kFfnNorm,
     "model.layers.{layer}.post_attention_layernorm.weight"},
    {TensorRole::kFfnNormBias,
     "model.layers.{layer}.post_attention_layernorm.bias"},
    {TensorRole::kRouter, "model.layers.{layer}.block_sparse_moe.gate.weight"},
};
constexpr NamePattern kSparseExpert[] = {
    {TensorRole::kExpertGate,
     "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight"},
    {TensorRole::kExpertUp,
     "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight"},
    {TensorRole::kExpertDown,
     "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight"},
};
constexpr NamePattern kQwenSparse[] = {
    {TensorRole::kFfnNorm,
     "model.layers.{layer}.post_attention_layernorm.weight"},
    {TensorRole::kRouter, "model.layers.{layer}.mlp.gate.weight"},
};
constexpr NamePattern kQwenExpert[] = {
    {TensorRole::kExpertGate,
     "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight"},
    {TensorRole::kExpertUp,
     "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"},
    {TensorRole::kExpertDown,
     "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight"},
};

constexpr Family PhiMoe(std::string_view architecture) {
  return {.traits = {.architecture = architecture,
                     .num_experts_field = "num_local_experts",
                     .expert_size_field = "intermediate_size",
                     .attention_bias = AttentionBiasRule::kAllIfConfigSays,
                     .window = WindowRule::kEveryLayer,
                     .norm = NormKind::kLayer,
                     .routing = RoutingKind::kSparseMixer,
                     .may_have_lm_head_bias = true,
                     .default_rope_theta = 1e6},
          .attention = kAttention,
          .ffn = kSparse,
          .per_expert = kSparseExpert};
}

constexpr Family kFamilies[] = {
    {.traits = {.architecture = "LlamaForCausalLM",
                .attention_bias = AttentionBiasRule::kAllIfConfigSays},
     .attention = kAttention,
     .ffn = kDense},
    {.traits = {.architecture = "MistralForCausalLM",
                .window = WindowRule::kEveryLayer},
     .attention = kAttention,
     .ffn = kDense},
    {.traits = {.architecture = "MixtralForCausalLM",
                .num_experts_field = "num_local_experts",
                .expert_size_field = "intermediate_size",
                .window = WindowRule::kEveryLayer,
                .default_rope_theta = 1e6},
     .attention = kAttention,
     .ffn = kSparse,
     .per_expert = kSparseExpert},
    {.traits = {.architecture = "Phi3ForCausalLM",
                .window = WindowRule::kEveryLayer},
     .attention = kFusedAttention,
     .ffn = kFusedDense},
    PhiMoe("PhiMoEForCausalLM"),  // as on the hub
    PhiMoe("PhimoeForCausalLM"),  // as transformers writes it
    {.traits = {.architecture = "Qwen2ForCausalLM",
                .attention_bias = AttentionBiasRule::kQkv,
                .window = WindowRule::kUpperLayers},
     .attention = kAttention,
     .ffn = kDense},
    {.traits = {.architecture = "Qwen3ForCausalLM",
                .attention_bias = AttentionBiasRule::kAllIfConfigSays,
                .window = WindowRule::kUpperLayers,
                .qk_norm = true},
     .attention = kAttention,
     .ffn = kDense},
    {.traits = {.architecture = "Qwen3MoeForCausalLM",
                .num_experts_field = "num_experts",
                .expert_size_field = "moe_intermediate_size",
                .attention_bias = AttentionBiasRule::kAllIfConfigSays,
                .window = WindowRule::kUpperLayers,
                .qk_norm = true,
                .routing = RoutingKind::kSoftmax},
     .attention = kAttention,
     .ffn = kQwenSparse,
     .per_expert = kQwenExpert},
};

const Family& FamilyOf(const ModelConfig& config) {
  for (const Family& family : kFamilies) {
    if (family.traits.architecture == config.architecture) return family;
  }
  WITAN_CHECK(false, "unknown architecture {}", config.architecture);
}

// Whether the file of a model of this config has a tensor for the role.
bool IsStored(const ModelConfig& config, TensorRole role) {
  const bool is_tied =
      role == TensorRole::kLmHead && config.tie_word_embeddings;
  return HasRole(config, role) && !is_tied;
}

std::string ShapeText(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// "missing a, b and 3 more"; nothing for no names.
void AppendNames(std::string& message, std::string_view what,
                 std::span<const std::string> names) {
  if (names.empty()) return;
  const size_t num_listed = std::min(names.size(), kMaxListedNames);
  message += fmt::format("; {} {}: {}", names.size(), what,
                         fmt::join(names.first(num_listed), ", "));
  if (names.size() > num_listed) {
    message += fmt::format(" and {} more", names.size() - num_listed);
  }
}

bool IsIgnored(const ModelConfig& config, const std::string& name) {
  return name.ends_with(".rotary_emb.inv_freq") ||
         (config.tie_word_embeddings && name == "lm_head.weight");
}

}  // namespace

const FamilyTraits* FindFamily(std::string_view architecture) {
  for (const Family& family : kFamilies) {
    if (family.traits.architecture == architecture) return &family.traits;
  }
  return nullptr;
}

std::vector<std::string> KnownArchitectures() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) {
    names.emplace_back(family.traits.architecture);
  }
  return names;
}

TensorPlace PlaceOf(const ModelConfig& config, TensorRole role, int64_t layer,
                    int64_t expert) {
  if (role == TensorRole::kLmHead && config.tie_word_embeddings) {
    role = TensorRole::kEmbedding;
  }
  const Family& family = FamilyOf(config);
  for (const Names names : {Names(kFirst), family.attention, family.ffn,
                            family.per_expert, Names(kLast)}) {
    const auto found = std::find_if(
        names.begin(), names.end(),
        [role](const NamePattern& name) { return name.role == role; });
    if (found == names.end()) continue;
    TensorPlace place;
    place.name =
        fmt::format(fmt::runtime(found->pattern), fmt::arg("layer", layer),
                    fmt::arg("expert", expert));
    const TensorSlice whole = WholeTensor(config, role, layer, expert);
    place.stored_shape = StoredShape(whole);
    for (auto part = names.begin(); part != names.end(); ++part) {
      if (part == found || part->pattern != found->pattern) continue;
      const int64_t rows =
          WholeTensor(config, part->role, layer, expert).rows.size();
      place.is_part = true;
      place.stored_shape.front() += rows;
      if (part < found) place.first_row += rows;
    }
    return place;
  }
  WITAN_CHECK(false, "{} has no name for role {}", config.architecture,
              static_cast<int>(role));
}

int64_t NumTensors(const ModelConfig& config) {
  const Family& family = FamilyOf(config);
  const auto count = [&config](Names names) {
    return std::count_if(names.begin(), names.end(), [&](const auto& name) {
      return IsStored(config, name.role);
    });
  };
  return count(kFirst) + count(kLast) +
         config.num_layers * (count(family.attention) + count(family.ffn) +
                              config.num_experts * count(family.per_expert));
}

std::vector<TensorSlice> ExpectedTensors(const ModelConfig& config) {
  std::vector<TensorSlice> tensors;
  tensors.reserve(static_cast<size_t>(NumTensors(config)));
  const auto add_all = [&](Names names, int64_t layer = -1,
                           int64_t expert = -1) {
    for (const NamePattern& name : names) {
      if (!IsStored(config, name.role)) continue;
      tensors.push_back(WholeTensor(config, name.role, layer, expert));
    }
  };
  const Family& family = FamilyOf(config);
  add_all(kFirst);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    add_all(family.attention, layer);
    add_all(family.ffn, layer);
    for (int64_t expert = 0; expert < config.num_experts; ++expert) {
      add_all(family.per_expert, layer, expert);
    }
  }
  add_all(kLast);
  return tensors;
}

ParameterCount CountParameters(const ModelConfig& config) {
  ParameterCount count;
  for (const TensorSlice& tensor : ExpectedTensors(config)) {
    const int64_t size = tensor.rows.size() * tensor.columns.size();
    count.total += size;
    // Every expert is as large as the next.
    if (tensor.expert < config.experts_per_token) count.active += size;
  }
  return count;
}

absl::Status CheckCheckpoint(const ModelConfig& config,
                             const Checkpoint& checkpoint) {
  // Parts of one tensor come one after the other, but not in the map.
  std::map<std::string, std::vector<int64_t>> expected;
  for (const TensorSlice& tensor : ExpectedTensors(config)) {
    TensorPlace place =
        PlaceOf(config, tensor.role, tensor.layer, tensor.expert);
    expected.emplace(std::move(place.name), std::move(place.stored_shape));
  }
  std::vector<std::string> missing;
  std::vector<std::string> wrong_shape;
  std::vector<std::string> wrong_dtype;
  for (const auto& [name, shape] : expected) {
    const MappedTensor* found = checkpoint.Find(name);
    if (found == nullptr) {
      missing.push_back(name);
      continue;
    }
    if (found->shape != shape) {
      wrong_shape.push_back(fmt::format(
          "{} is {}, not {}", name, ShapeText(found->shape), ShapeText(shape)));
    }
    if (found->dtype != config.weights) {
      wrong_dtype.push_back(fmt::format("{} is {}, not {}", name,
                                        NameOf(found->dtype),
                                        NameOf(config.weights)));
    }
  }
  std::vector<std::string> unexpected;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (!expected.contains(name) && !IsIgnored(config, name)) {
      unexpected.push_back(Quoted(name));
    }
  }
  std::string message;
  AppendNames(message, "missing", missing);
  AppendNames(message, "unexpected", unexpected);
  AppendNames(message, "of another shape than config.json says", wrong_shape);
  AppendNames(message, "of another dtype than config.json says", wrong_dtype);
  if (message.empty()) return absl::OkStatus();
  return InvalidArgument(
      "the checkpoint does not have exactly the {} tensors of a {}{}; "
      "config.json and the weights must be of the same model",
      expected.size(), config.architecture, message);
}

}  // namespace witan
