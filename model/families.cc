#include "model/families.h"

#include <fmt/format.h>

#include <array>
#include <set>
#include <span>
#include <string_view>

#include "base/check.h"
#include "base/status.h"
#include "model/json_object.h"

namespace witan {
namespace {

// {layer} and {expert} stand for the indices.
struct NamePattern {
  TensorRole role;
  const char* pattern;
};

struct Family {
  std::string_view architecture;
  std::span<const NamePattern> names;  // one for every role
};

constexpr NamePattern kMixtralNames[] = {
    {TensorRole::kEmbedding, "model.embed_tokens.weight"},
    {TensorRole::kAttentionNorm, "model.layers.{layer}.input_layernorm.weight"},
    {TensorRole::kQuery, "model.layers.{layer}.self_attn.q_proj.weight"},
    {TensorRole::kKey, "model.layers.{layer}.self_attn.k_proj.weight"},
    {TensorRole::kValue, "model.layers.{layer}.self_attn.v_proj.weight"},
    {TensorRole::kOutput, "model.layers.{layer}.self_attn.o_proj.weight"},
    {TensorRole::kExpertNorm,
     "model.layers.{layer}.post_attention_layernorm.weight"},
    {TensorRole::kRouter, "model.layers.{layer}.block_sparse_moe.gate.weight"},
    {TensorRole::kExpertGate,
     "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight"},
    {TensorRole::kExpertUp,
     "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight"},
    {TensorRole::kExpertDown,
     "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight"},
    {TensorRole::kFinalNorm, "model.norm.weight"},
    {TensorRole::kLmHead, "lm_head.weight"},
};

constexpr Family kFamilies[] = {
    {"MixtralForCausalLM", kMixtralNames},
};

constexpr size_t kMaxListedNames = 10;

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
  for (const NamePattern& name : FamilyOf(config).names) {
    if (name.role == role) {
      return fmt::format(fmt::runtime(name.pattern), fmt::arg("layer", layer),
                         fmt::arg("expert", expert));
    }
  }
  WITAN_CHECK(false, "{} has no name for role {}", config.architecture,
              static_cast<int>(role));
}

int64_t NumTensors(const ModelConfig& config) {
  constexpr int64_t kPerLayer = 7;  // two norms, q, k, v, o, router
  constexpr int64_t kPerExpert = 3;
  return config.num_layers * (kPerLayer + kPerExpert * config.num_experts) +
         (config.tie_word_embeddings ? 2 : 3);
}

std::vector<TensorSlice> ExpectedTensors(const ModelConfig& config) {
  std::vector<TensorSlice> tensors;
  tensors.reserve(static_cast<size_t>(NumTensors(config)));
  const auto add = [&](TensorRole role, int64_t layer = -1,
                       int64_t expert = -1) {
    tensors.push_back(WholeTensor(config, role, layer, expert));
  };
  add(TensorRole::kEmbedding);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const TensorRole role :
         {TensorRole::kAttentionNorm, TensorRole::kQuery, TensorRole::kKey,
          TensorRole::kValue, TensorRole::kOutput, TensorRole::kExpertNorm,
          TensorRole::kRouter}) {
      add(role, layer);
    }
    for (int64_t expert = 0; expert < config.num_experts; ++expert) {
      add(TensorRole::kExpertGate, layer, expert);
      add(TensorRole::kExpertUp, layer, expert);
      add(TensorRole::kExpertDown, layer, expert);
    }
  }
  add(TensorRole::kFinalNorm);
  if (!config.tie_word_embeddings) add(TensorRole::kLmHead);
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
