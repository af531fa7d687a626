#include "model/families.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <span>
#include <string_view>

#include "base/check.h"
#include "base/limits.h"
#include "base/status.h"
#include "model/json_object.h"

namespace witan {
namespace {

// {layer} and {expert} stand for the indices.
struct NamePattern {
  TensorRole role;
  const char* pattern;
};

// The tensors of a checkpoint, in the order of the forward pass.
struct Family {
  std::string_view architecture;
  std::span<const NamePattern> first;       // before the layers
  std::span<const NamePattern> per_layer;   // of each layer
  std::span<const NamePattern> per_expert;  // of each expert of each layer
  std::span<const NamePattern> last;        // after the layers
};

constexpr NamePattern kMixtralFirst[] = {
    {TensorRole::kEmbedding, "model.embed_tokens.weight"},
};
constexpr NamePattern kMixtralPerLayer[] = {
    {TensorRole::kAttentionNorm, "model.layers.{layer}.input_layernorm.weight"},
    {TensorRole::kQuery, "model.layers.{layer}.self_attn.q_proj.weight"},
    {TensorRole::kKey, "model.layers.{layer}.self_attn.k_proj.weight"},
    {TensorRole::kValue, "model.layers.{layer}.self_attn.v_proj.weight"},
    {TensorRole::kOutput, "model.layers.{layer}.self_attn.o_proj.weight"},
    {TensorRole::kExpertNorm,
     "model.layers.{layer}.post_attention_layernorm.weight"},
    {TensorRole::kRouter, "model.layers.{layer}.block_sparse_moe.gate.weight"},
};
constexpr NamePattern kMixtralPerExpert[] = {
    {TensorRole::kExpertGate,
     "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight"},
    {TensorRole::kExpertUp,
     "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight"},
    {TensorRole::kExpertDown,
     "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight"},
};
constexpr NamePattern kMixtralLast[] = {
    {TensorRole::kFinalNorm, "model.norm.weight"},
    {TensorRole::kLmHead, "lm_head.weight"},  // absent when tied
};

constexpr Family kFamilies[] = {
    {"MixtralForCausalLM", kMixtralFirst, kMixtralPerLayer, kMixtralPerExpert,
     kMixtralLast},
};

const Family& FamilyOf(const ModelConfig& config) {
  for (const Family& family : kFamilies) {
    if (family.architecture == config.architecture) return family;
  }
  WITAN_CHECK(false, "unknown architecture {}", config.architecture);
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

}  // namespace

std::vector<std::string> KnownArchitectures() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) {
    names.emplace_back(family.architecture);
  }
  return names;
}

std::string TensorName(const ModelConfig& config, TensorRole role,
                       int64_t layer, int64_t expert) {
  if (role == TensorRole::kLmHead && config.tie_word_embeddings) {
    role = TensorRole::kEmbedding;
  }
  const Family& family = FamilyOf(config);
  for (const auto& names :
       {family.first, family.per_layer, family.per_expert, family.last}) {
    for (const NamePattern& name : names) {
      if (name.role == role) {
        return fmt::format(fmt::runtime(name.pattern), fmt::arg("layer", layer),
                           fmt::arg("expert", expert));
      }
    }
  }
  WITAN_CHECK(false, "{} has no name for role {}", config.architecture,
              static_cast<int>(role));
}

bool HasExperts(const ModelConfig& config) {
  return !FamilyOf(config).per_expert.empty();
}

int64_t NumTensors(const ModelConfig& config) {
  const Family& family = FamilyOf(config);
  return std::ssize(family.first) + std::ssize(family.last) -
         (config.tie_word_embeddings ? 1 : 0) +
         config.num_layers *
             (std::ssize(family.per_layer) +
              config.num_experts * std::ssize(family.per_expert));
}

std::vector<TensorSlice> ExpectedTensors(const ModelConfig& config) {
  std::vector<TensorSlice> tensors;
  tensors.reserve(static_cast<size_t>(NumTensors(config)));
  const auto add_all = [&](std::span<const NamePattern> names,
                           int64_t layer = -1, int64_t expert = -1) {
    for (const NamePattern& name : names) {
      if (name.role == TensorRole::kLmHead && config.tie_word_embeddings) {
        continue;
      }
      tensors.push_back(WholeTensor(config, name.role, layer, expert));
    }
  };
  const Family& family = FamilyOf(config);
  add_all(family.first);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    add_all(family.per_layer, layer);
    for (int64_t expert = 0; expert < config.num_experts; ++expert) {
      add_all(family.per_expert, layer, expert);
    }
  }
  add_all(family.last);
  return tensors;
}

absl::Status CheckCheckpoint(const ModelConfig& config,
                             const Checkpoint& checkpoint) {
  std::vector<std::string> missing;
  std::vector<std::string> wrong_shape;
  std::vector<std::string> wrong_dtype;
  std::set<std::string> expected;
  for (const TensorSlice& tensor : ExpectedTensors(config)) {
    const std::string name =
        TensorName(config, tensor.role, tensor.layer, tensor.expert);
    expected.insert(name);
    const MappedTensor* found = checkpoint.Find(name);
    if (found == nullptr) {
      missing.push_back(name);
      continue;
    }
    const std::vector<int64_t> shape = StoredShape(tensor);
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
    if (!expected.contains(name)) unexpected.push_back(Quoted(name));
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
