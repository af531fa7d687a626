#include "model/gguf_tensors.h"

#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "model/config.h"
#include "model/families.h"
#include "model/gguf_config.h"
#include "model/json_object.h"

namespace witan {
namespace {

struct TensorName {
  std::string_view name;
  TensorRole role;
};
// Fused ones have the role of their first part.
constexpr TensorName kModelNames[] = {
    {"token_embd.weight", TensorRole::kEmbedding},
    {"output_norm.weight", TensorRole::kFinalNorm},
    {"output_norm.bias", TensorRole::kFinalNormBias},
    {"output.weight", TensorRole::kLmHead},
    {"output.bias", TensorRole::kLmHeadBias},
};
// Of a layer, behind "blk.N.".
constexpr TensorName kLayerNames[] = {
    {"attn_norm.weight", TensorRole::kAttentionNorm},
    {"attn_norm.bias", TensorRole::kAttentionNormBias},
    {"attn_qkv.weight", TensorRole::kQuery},
    {"attn_q.weight", TensorRole::kQuery},
    {"attn_k.weight", TensorRole::kKey},
    {"attn_v.weight", TensorRole::kValue},
    {"attn_q.bias", TensorRole::kQueryBias},
    {"attn_k.bias", TensorRole::kKeyBias},
    {"attn_v.bias", TensorRole::kValueBias},
    {"attn_q_norm.weight", TensorRole::kQueryNorm},
    {"attn_k_norm.weight", TensorRole::kKeyNorm},
    {"attn_output.weight", TensorRole::kOutput},
    {"attn_output.bias", TensorRole::kOutputBias},
    {"ffn_norm.weight", TensorRole::kFfnNorm},
    {"ffn_norm.bias", TensorRole::kFfnNormBias},
    {"ffn_gate.weight", TensorRole::kGate},
    {"ffn_up.weight", TensorRole::kUp},
    {"ffn_down.weight", TensorRole::kDown},
    {"ffn_gate_inp.weight", TensorRole::kRouter},
    {"ffn_gate_exps.weight", TensorRole::kExpertGate},
    {"ffn_up_exps.weight", TensorRole::kExpertUp},
    {"ffn_down_exps.weight", TensorRole::kExpertDown},
};
constexpr std::string_view kLeftOut[] = {"rope_freqs.weight",
                                         "rope_factors_long.weight",
                                         "rope_factors_short.weight"};

struct Place {
  TensorRole role = TensorRole::kEmbedding;
  int64_t layer = -1;
};

template <size_t kSize>
std::optional<TensorRole> RoleOf(const TensorName (&names)[kSize],
                                 std::string_view name) {
  for (const TensorName& known : names) {
    if (known.name == name) return known.role;
  }
  return std::nullopt;
}

// Nothing for a name that a model of this config does not have.
std::optional<Place> PlaceOfName(const ModelConfig& config,
                                 std::string_view name) {
  constexpr std::string_view kLayerPrefix = "blk.";
  std::optional<TensorRole> role = RoleOf(kModelNames, name);
  int64_t layer = -1;
  if (name.starts_with(kLayerPrefix)) {
    name.remove_prefix(kLayerPrefix.size());
    const char* const end = name.data() + name.size();
    const auto [behind, error] = std::from_chars(name.data(), end, layer);
    if (error != std::errc() || behind == end || *behind != '.' || layer < 0 ||
        layer >= config.num_layers) {
      return std::nullopt;
    }
    role = RoleOf(kLayerNames, std::string_view(behind + 1, end));
  }
  if (!role || !HasRole(config, *role)) return std::nullopt;
  return Place{*role, layer};
}

bool IsExpertRole(TensorRole role) {
  return role == TensorRole::kExpertGate || role == TensorRole::kExpertUp ||
         role == TensorRole::kExpertDown;
}

bool IsTurned(TensorRole role) {
  return role == TensorRole::kQuery || role == TensorRole::kKey ||
         role == TensorRole::kQueryBias || role == TensorRole::kKeyBias;
}

// The tensors of one in the file: itself, or its experts.
class TensorReader {
 public:
  TensorReader(const ModelConfig& config, bool is_interleaved)
      : config_(config), is_interleaved_(is_interleaved) {}

  absl::Status Add(const GgufTensor& tensor, int file_index) {
    for (const std::string_view name : kLeftOut) {
      if (tensor.name == name) return absl::OkStatus();
    }
    MappedTensor mapped = {.dtype = config_.weights,
                           .shape = tensor.shape,
                           .data = tensor.data,
                           .file_index = file_index,
                           .file_offset = tensor.file_offset};
    Conversion conversion = {.stored = tensor.type};
    const std::optional<Place> place = PlaceOfName(config_, tensor.name);
    if (place && is_interleaved_ && IsTurned(place->role)) {
      // Rows that are no whole heads have a wrong shape, which is told later.
      if (tensor.shape.front() % config_.head_dim == 0) {
        conversion.interleaved_head_dim = config_.head_dim;
      }
    }
    if (TraitsOf(tensor.type).dtype != config_.weights ||
        conversion.interleaved_head_dim != 0) {
      mapped.conversion = conversion;
    }
    if (!place) return Put(tensor.name, tensor, std::move(mapped));
    if (IsExpertRole(place->role)) return AddExperts(tensor, *place, mapped);
    return Put(PlaceOf(config_, place->role, place->layer, -1).name, tensor,
               std::move(mapped));
  }

  std::map<std::string, MappedTensor> Take() { return std::move(tensors_); }

 private:
  absl::Status Put(const std::string& name, const GgufTensor& tensor,
                   MappedTensor mapped) {
    if (tensors_.emplace(name, std::move(mapped)).second) {
      return absl::OkStatus();
    }
    return InvalidArgument("tensor {} is one of two that are {}",
                           Quoted(tensor.name), Quoted(name));
  }

  absl::Status AddExperts(const GgufTensor& tensor, Place place,
                          const MappedTensor& merged) {
    if (tensor.shape.size() != 3 ||
        tensor.shape.front() != config_.num_experts) {
      return InvalidArgument(
          "tensor {} is [{}]; allowed is a matrix for each of {} experts",
          Quoted(tensor.name), fmt::join(tensor.shape, ", "),
          config_.num_experts);
    }
    const size_t bytes =
        tensor.data.size() / static_cast<size_t>(config_.num_experts);
    for (int64_t expert = 0; expert < config_.num_experts; ++expert) {
      MappedTensor part = merged;
      part.shape.erase(part.shape.begin());
      const size_t offset = static_cast<size_t>(expert) * bytes;
      part.data = merged.data.subspan(offset, bytes);
      part.file_offset += static_cast<int64_t>(offset);
      RETURN_IF_ERROR(
          Put(PlaceOf(config_, place.role, place.layer, expert).name, tensor,
              std::move(part)));
    }
    return absl::OkStatus();
  }

  const ModelConfig& config_;
  const bool is_interleaved_;
  std::map<std::string, MappedTensor> tensors_;
};

}  // namespace

absl::StatusOr<std::map<std::string, MappedTensor>> TensorsOfGguf(
    const GgufModel& model) {
  ASSIGN_OR_RETURN(const std::string json, ConfigOfGguf(model));
  ASSIGN_OR_RETURN(const ModelConfig config, ParseModelConfig(json));
  const GgufValue* architecture = model.metadata().Find("general.architecture");
  TensorReader reader(
      config, architecture != nullptr &&
                  *architecture == GgufValue(std::string_view("llama")));
  for (size_t part = 0; part < model.parts().size(); ++part) {
    for (const GgufTensor& tensor : model.parts()[part].tensors) {
      RETURN_IF_ERROR(reader.Add(tensor, static_cast<int>(part)));
    }
  }
  return reader.Take();
}

}  // namespace witan
