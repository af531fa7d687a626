#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "base/file.h"
#include "base/limits.h"
#include "base/status.h"
#include "model/families.h"
#include "model/gguf_config.h"
#include "model/gguf_model.h"
#include "model/json_fields.h"
#include "model/json_object.h"
#include "model/rope_config.h"

namespace witan {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kConfigFile = "config.json";

const FamilyTraits* ReadArchitecture(JsonFields& reader, ModelConfig& config) {
  const std::string known =
      fmt::format("{}", fmt::join(KnownArchitectures(), ", "));
  const Json* value = reader.Find("architectures");
  if (value == nullptr) {
    reader.Absent("architectures",
                  fmt::format("a list with one name of: {}", known));
    return nullptr;
  }
  if (!value->is_array() || value->size() != 1 || !value->front().is_string()) {
    reader.Refuse("architectures", *value,
                  fmt::format("a list with one name of: {}", known));
    return nullptr;
  }
  const FamilyTraits* const family =
      FindFamily(value->front().get<std::string>());
  if (family == nullptr) {
    reader.Fail(InvalidArgument(
        "config.json: architectures is [{}], which is not known; known are: "
        "{}; serve a model of one of these",
        Quoted(value->front().get<std::string>()), known));
    return nullptr;
  }
  config.architecture = family->architecture;
  return family;
}

void ReadExperts(JsonFields& reader, const FamilyTraits& family,
                 ModelConfig& config) {
  if (family.num_experts_field.empty()) {
    config.intermediate_size =
        reader.Integer("intermediate_size", 1, kMaxIntermediateSize);
    return;
  }
  config.intermediate_size =
      reader.Integer(family.expert_size_field, 1, kMaxIntermediateSize);
  // transformers 5 writes num_local_experts for every family.
  constexpr std::string_view kNewer = "num_local_experts";
  config.num_experts =
      reader.Integer(reader.Has(kNewer) && !reader.Has(family.num_experts_field)
                         ? kNewer
                         : family.num_experts_field,
                     1, kMaxExperts);
  config.experts_per_token =
      reader.Integer("num_experts_per_tok", 1, kMaxExpertsPerToken);
  if (!reader.status().ok()) return;
  if (config.experts_per_token > config.num_experts) {
    reader.Fail(InvalidArgument(
        "config.json: num_experts_per_tok is {}, allowed is at most {}, which "
        "is {}; correct one of them",
        config.experts_per_token, family.num_experts_field,
        config.num_experts));
  }
  config.routing.kind = family.routing;
  if (family.routing == RoutingKind::kSoftmax &&
      reader.Boolean("norm_topk_prob", false)) {
    config.routing.kind = RoutingKind::kSoftmaxNormalised;
  }
  if (family.routing != RoutingKind::kSparseMixer) return;
  config.routing.jitter =
      static_cast<float>(reader.Number("router_jitter_noise", 0, 1, false));
  if (config.experts_per_token != 2) {
    reader.Fail(InvalidArgument(
        "config.json: num_experts_per_tok is {}, allowed is 2: the routing of "
        "{} chooses two experts",
        config.experts_per_token, config.architecture));
  }
}

void ReadHeads(JsonFields& reader, ModelConfig& config) {
  config.num_heads =
      reader.Integer("num_attention_heads", 1, kMaxAttentionHeads);
  config.num_kv_heads =
      reader.OptionalInteger("num_key_value_heads", 1, kMaxAttentionHeads)
          .value_or(config.num_heads);
  const auto head_dim = reader.OptionalInteger("head_dim", 2, kMaxHeadDim);
  if (!reader.status().ok()) return;
  if (config.num_heads % config.num_kv_heads != 0) {
    reader.Fail(InvalidArgument(
        "config.json: num_key_value_heads is {}, allowed is a divisor of "
        "num_attention_heads, which is {}; correct one of them",
        config.num_kv_heads, config.num_heads));
  }
  if (!head_dim && config.hidden_size % config.num_heads != 0) {
    reader.Fail(InvalidArgument(
        "config.json: head_dim is absent and hidden_size {} is not a multiple "
        "of num_attention_heads {}; add head_dim",
        config.hidden_size, config.num_heads));
    return;
  }
  config.head_dim = head_dim.value_or(config.hidden_size / config.num_heads);
  if (config.head_dim % 2 != 0 || config.head_dim < 2 ||
      config.head_dim > kMaxHeadDim) {
    reader.Fail(InvalidArgument(
        "config.json: head_dim is {}{}, allowed is an even number from 2 to "
        "{}; rotary embeddings turn pairs of elements",
        config.head_dim, head_dim ? "" : " (hidden_size / num_attention_heads)",
        kMaxHeadDim));
  }
}

// Newer files name every layer in layer_types; older ones leave it to the
// family's rule.
void ReadWindows(JsonFields& reader, const FamilyTraits& family,
                 ModelConfig& config) {
  const int64_t window =
      reader.OptionalInteger("sliding_window", 1, kMaxContextTokens)
          .value_or(0);
  std::vector<bool> windowed(static_cast<size_t>(config.num_layers), false);
  if (const Json* types = reader.Find("layer_types")) {
    constexpr std::string_view kAllowed =
        "a list with \"full_attention\" or \"sliding_attention\" for every "
        "layer";
    if (!types->is_array() || types->size() != windowed.size()) {
      reader.Refuse("layer_types", *types, kAllowed);
      return;
    }
    for (size_t i = 0; i < windowed.size(); ++i) {
      const auto* type = (*types)[i].get_ptr<const std::string*>();
      windowed[i] = type != nullptr && *type == "sliding_attention";
      if (type == nullptr || (!windowed[i] && *type != "full_attention")) {
        reader.Refuse("layer_types", (*types)[i], kAllowed);
        return;
      }
    }
  } else if (family.window == WindowRule::kEveryLayer) {
    windowed.assign(windowed.size(), window > 0);
  } else if (family.window == WindowRule::kUpperLayers &&
             reader.Boolean("use_sliding_window", false)) {
    const int64_t first = reader.Integer("max_window_layers", 0, kMaxLayers);
    for (int64_t i = first; i < config.num_layers; ++i) {
      windowed[static_cast<size_t>(i)] = true;
    }
  }
  if (std::find(windowed.begin(), windowed.end(), true) == windowed.end()) {
    return;
  }
  if (window == 0) {
    reader.Absent("sliding_window",
                  fmt::format("an integer from 1 to {}, because layers have a "
                              "window",
                              kMaxContextTokens));
    return;
  }
  config.sliding_window = window;
  config.windowed_layers = std::move(windowed);
}

void ReadShape(JsonFields& reader, const FamilyTraits& family,
               ModelConfig& config) {
  config.hidden_size = reader.Integer("hidden_size", 1, kMaxHiddenSize);
  config.num_layers = reader.Integer("num_hidden_layers", 1, kMaxLayers);
  config.vocab_size = reader.Integer("vocab_size", 1, kMaxVocabSize);
  config.max_context_tokens =
      reader.Integer("max_position_embeddings", 1, kMaxContextTokens);
  config.norm_epsilon =
      reader.Number("rms_norm_eps", 0, kMaxRmsNormEpsilon, /*above_min=*/true);
  config.tie_word_embeddings = reader.Boolean("tie_word_embeddings", false);
  if (!reader.status().ok()) return;
  ReadHeads(reader, config);
  ReadExperts(reader, family, config);
  ReadWindows(reader, family, config);
}

void ReadSwitches(JsonFields& reader, const FamilyTraits& family,
                  ModelConfig& config) {
  config.norm = family.norm;
  config.qk_norm = family.qk_norm;
  const bool attention_bias = reader.Boolean("attention_bias", false);
  switch (family.attention_bias) {
    case AttentionBiasRule::kNone:
      if (attention_bias) {
        reader.Fail(InvalidArgument(
            "config.json: attention_bias is true, allowed is false: a {} has "
            "no biases",
            config.architecture));
      }
      break;
    case AttentionBiasRule::kQkv:
      config.qkv_bias = true;
      break;
    case AttentionBiasRule::kAllIfConfigSays:
      config.qkv_bias = config.output_bias = attention_bias;
      break;
  }
  config.lm_head_bias =
      family.may_have_lm_head_bias && reader.Boolean("lm_head_bias", false);
}

// Older files say torch_dtype, newer ones dtype.
void ReadDType(JsonFields& reader, ModelConfig& config) {
  constexpr std::string_view kAllowed = "bfloat16, float16 or float32";
  const Json* first = reader.Find("dtype");
  const Json* second = reader.Find("torch_dtype");
  if (first != nullptr && second != nullptr && *first != *second) {
    reader.Fail(InvalidArgument(
        "config.json: dtype is {} but torch_dtype is {}; keep one",
        DescribeJson(*first), DescribeJson(*second)));
    return;
  }
  const std::string_view name = first != nullptr ? "dtype" : "torch_dtype";
  const Json* value = first != nullptr ? first : second;
  if (value == nullptr) {
    reader.Absent("dtype (or torch_dtype)", kAllowed);
    return;
  }
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    if (*value == std::string(NameOf(dtype))) {
      config.weights = dtype;
      return;
    }
  }
  reader.Refuse(name, *value, kAllowed);
}

// Features that change the computation and are not served.
void RefuseUnserved(JsonFields& reader) {
  const std::string activation = reader.OptionalString("hidden_act");
  if (!activation.empty() && activation != "silu") {
    reader.Fail(InvalidArgument(
        "config.json: hidden_act is {}, allowed is \"silu\"; other activations "
        "are not served",
        Quoted(activation)));
  }
  if (reader.Boolean("mlp_bias", false)) {
    reader.Fail(InvalidArgument(
        "config.json: mlp_bias is true, allowed is false; an FFN with biases "
        "is not served"));
  }
  // Every layer of a mixture has experts.
  if (const auto step =
          reader.OptionalInteger("decoder_sparse_step", 1, kMaxLayers);
      step.value_or(1) != 1) {
    reader.Refuse("decoder_sparse_step", *step, "1");
  }
  if (const Json* dense = reader.Find("mlp_only_layers");
      dense != nullptr && *dense != Json::array()) {
    reader.Refuse("mlp_only_layers", *dense, "an empty list");
  }
  if (const Json* quantization = reader.Find("quantization_config")) {
    reader.Fail(InvalidArgument(
        "config.json: quantization_config is {}, allowed is null; serve the "
        "model's bfloat16, float16 or float32 checkpoint",
        DescribeJson(*quantization)));
  }
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json) {
  ASSIGN_OR_RETURN(const Json object, ParseConfigFile(kConfigFile, json));
  JsonFields reader(kConfigFile, object);
  ModelConfig config;
  const FamilyTraits* const family = ReadArchitecture(reader, config);
  RETURN_IF_ERROR(reader.status());  // the rest depends on the family
  RefuseUnserved(reader);
  ReadShape(reader, *family, config);
  ReadSwitches(reader, *family, config);
  ReadDType(reader, config);
  RETURN_IF_ERROR(reader.status());
  ASSIGN_OR_RETURN(config.rope,
                   ReadRope(object, family->default_rope_theta, config.head_dim,
                            config.max_context_tokens));
  const int64_t num_tensors = NumTensors(config);
  if (num_tensors > kMaxTensors) {
    return InvalidArgument(
        "config.json: num_hidden_layers {} with {} {} make {} tensors, at most "
        "{} are allowed",
        config.num_layers, family->num_experts_field, config.num_experts,
        num_tensors, kMaxTensors);
  }
  return config;
}

absl::StatusOr<std::string> ReadConfigText(const std::string& model) {
  ASSIGN_OR_RETURN(const auto gguf_files, FindGgufFiles(model));
  if (gguf_files.empty()) {
    return ReadFile(model + "/config.json", kMaxConfigFileBytes);
  }
  ASSIGN_OR_RETURN(const GgufModel gguf, GgufModel::Open(gguf_files));
  absl::StatusOr<std::string> text = ConfigOfGguf(gguf);
  if (!text.ok()) return Annotate(text.status(), gguf_files.front());
  return text;
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& model) {
  ASSIGN_OR_RETURN(const std::string text, ReadConfigText(model));
  absl::StatusOr<ModelConfig> config = ParseModelConfig(text);
  if (!config.ok()) return Annotate(config.status(), model);
  return config;
}

}  // namespace witan
