#include "model/config.h"

#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/file.h"
#include "base/limits.h"
#include "base/status.h"
#include "model/families.h"
#include "model/json_object.h"

namespace witan {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kConfigFile = "config.json";
constexpr std::string_view kGenerationConfigFile = "generation_config.json";

// Reads fields of one JSON object. The first error is kept and everything
// after it returns a default, so that callers ask for all fields and test
// status() once. A field that is null counts as absent.
class FieldReader {
 public:
  FieldReader(std::string_view file, const Json& object)
      : file_(file), object_(object) {}

  const absl::Status& status() const { return status_; }
  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  // Null when absent.
  const Json* Find(std::string_view name) const {
    const auto it = object_.find(std::string(name));
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  std::optional<int64_t> OptionalInteger(std::string_view name, int64_t min,
                                         int64_t max) {
    const Json* value = Find(name);
    if (value == nullptr) return std::nullopt;
    // Unsigned values above 2^63 - 1 would wrap in get<int64_t>().
    const bool fits = value->is_number_integer() &&
                      (!value->is_number_unsigned() ||
                       value->get<uint64_t>() <= static_cast<uint64_t>(max)) &&
                      value->get<int64_t>() >= min &&
                      value->get<int64_t>() <= max;
    if (!fits) {
      Refuse(name, *value, fmt::format("an integer from {} to {}", min, max));
      return std::nullopt;
    }
    return value->get<int64_t>();
  }
  int64_t Integer(std::string_view name, int64_t min, int64_t max) {
    if (Find(name) == nullptr) {
      Absent(name, fmt::format("an integer from {} to {}", min, max));
      return min;
    }
    return OptionalInteger(name, min, max).value_or(min);
  }

  // A number in [min, max], or in (min, max] with `above_min`.
  std::optional<double> OptionalNumber(std::string_view name, double min,
                                       double max, bool above_min) {
    const Json* value = Find(name);
    if (value == nullptr) return std::nullopt;
    if (value->is_number()) {
      const double number = value->get<double>();
      if ((above_min ? number > min : number >= min) && number <= max) {
        return number;
      }
    }
    Refuse(name, *value, NumberRange(min, max, above_min));
    return std::nullopt;
  }

  bool Boolean(std::string_view name, bool default_value) {
    const Json* value = Find(name);
    if (value == nullptr) return default_value;
    if (value->is_boolean()) return value->get<bool>();
    Refuse(name, *value, "true or false");
    return default_value;
  }

  // Empty when absent.
  std::string OptionalString(std::string_view name) {
    const Json* value = Find(name);
    if (value == nullptr) return "";
    if (value->is_string()) return value->get<std::string>();
    Refuse(name, *value, "a string");
    return "";
  }

  void Absent(std::string_view name, std::string_view allowed) {
    Fail(InvalidArgument(
        "{}: {} is absent, allowed is {}; add the field as the model's author "
        "published it",
        file_, name, allowed));
  }
  void Refuse(std::string_view name, const Json& value,
              std::string_view allowed) {
    Fail(InvalidArgument("{}: {} is {}, allowed is {}; correct the field",
                         file_, name, DescribeJson(value), allowed));
  }

  static std::string NumberRange(double min, double max, bool above_min) {
    return fmt::format("a number {} {} and at most {}",
                       above_min ? "above" : "of at least", min, max);
  }

 private:
  const std::string_view file_;
  const Json& object_;
  absl::Status status_;
};

void ReadArchitecture(FieldReader& reader, ModelConfig& config) {
  const std::string known =
      fmt::format("{}", fmt::join(KnownArchitectures(), ", "));
  const Json* value = reader.Find("architectures");
  if (value == nullptr) {
    reader.Absent("architectures",
                  fmt::format("a list with one name of: {}", known));
    return;
  }
  if (!value->is_array() || value->size() != 1 || !value->front().is_string()) {
    reader.Refuse("architectures", *value,
                  fmt::format("a list with one name of: {}", known));
    return;
  }
  config.architecture = value->front().get<std::string>();
  for (const std::string& name : KnownArchitectures()) {
    if (name == config.architecture) return;
  }
  reader.Fail(InvalidArgument(
      "config.json: architectures is [{}], which is not known; known are: {}; "
      "serve a model of one of these",
      Quoted(config.architecture), known));
}

void ReadShape(FieldReader& reader, ModelConfig& config) {
  config.hidden_size = reader.Integer("hidden_size", 1, kMaxHiddenSize);
  config.intermediate_size =
      reader.Integer("intermediate_size", 1, kMaxIntermediateSize);
  config.num_layers = reader.Integer("num_hidden_layers", 1, kMaxLayers);
  config.num_heads =
      reader.Integer("num_attention_heads", 1, kMaxAttentionHeads);
  config.num_kv_heads =
      reader.Integer("num_key_value_heads", 1, kMaxAttentionHeads);
  if (HasExperts(config)) {
    config.num_experts = reader.Integer("num_local_experts", 1, kMaxExperts);
    config.experts_per_token =
        reader.Integer("num_experts_per_tok", 1, kMaxExpertsPerToken);
  }
  config.vocab_size = reader.Integer("vocab_size", 1, kMaxVocabSize);
  config.max_context_tokens =
      reader.Integer("max_position_embeddings", 1, kMaxContextTokens);
  config.sliding_window =
      reader.OptionalInteger("sliding_window", 1, kMaxContextTokens)
          .value_or(0);
  const auto head_dim = reader.OptionalInteger("head_dim", 2, kMaxHeadDim);
  if (!reader.status().ok()) return;

  if (config.num_heads % config.num_kv_heads != 0) {
    reader.Fail(InvalidArgument(
        "config.json: num_key_value_heads is {}, allowed is a divisor of "
        "num_attention_heads, which is {}; correct one of them",
        config.num_kv_heads, config.num_heads));
  }
  if (config.experts_per_token > config.num_experts) {
    reader.Fail(InvalidArgument(
        "config.json: num_experts_per_tok is {}, allowed is at most "
        "num_local_experts, which is {}; correct one of them",
        config.experts_per_token, config.num_experts));
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

// Older files have rope_theta, newer ones {"rope_theta", "rope_type"} in
// rope_parameters.
void ReadRope(FieldReader& reader, ModelConfig& config) {
  const auto theta =
      reader.OptionalNumber("rope_theta", kMinRopeTheta, kMaxRopeTheta,
                            /*above_min=*/true);
  std::optional<double> nested_theta;
  const Json* parameters = reader.Find("rope_parameters");
  if (parameters != nullptr) {
    if (!parameters->is_object()) {
      reader.Refuse("rope_parameters", *parameters, "an object");
      return;
    }
    for (const auto& [key, value] : parameters->items()) {
      const std::string name = "rope_parameters." + key;
      const bool is_type = key == "rope_type" || key == "type";
      if (is_type && value != "default") {
        reader.Refuse(name, value, "\"default\"");
      } else if (!is_type && key != "rope_theta") {
        reader.Fail(InvalidArgument(
            "config.json: {} is {}, which is not served; allowed fields are "
            "rope_theta and rope_type",
            name, DescribeJson(value)));
      }
    }
    FieldReader nested("config.json: rope_parameters", *parameters);
    nested_theta =
        nested.OptionalNumber("rope_theta", kMinRopeTheta, kMaxRopeTheta,
                              /*above_min=*/true);
    reader.Fail(nested.status());
  }
  if (const Json* scaling = reader.Find("rope_scaling")) {
    reader.Fail(InvalidArgument(
        "config.json: rope_scaling is {}, allowed is null; scaled rotary "
        "embeddings are not served",
        DescribeJson(*scaling)));
  }
  if (theta && nested_theta && *theta != *nested_theta) {
    reader.Fail(InvalidArgument(
        "config.json: rope_theta is {} but rope_parameters.rope_theta is {}; "
        "keep one",
        *theta, *nested_theta));
  }
  if (!theta && !nested_theta) {
    reader.Absent("rope_theta",
                  FieldReader::NumberRange(kMinRopeTheta, kMaxRopeTheta, true));
  }
  config.rope_theta = theta ? *theta : nested_theta.value_or(0);
}

// Older files say torch_dtype, newer ones dtype.
void ReadDType(FieldReader& reader, ModelConfig& config) {
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
void RefuseUnserved(FieldReader& reader) {
  const std::string activation = reader.OptionalString("hidden_act");
  if (!activation.empty() && activation != "silu") {
    reader.Fail(InvalidArgument(
        "config.json: hidden_act is {}, allowed is \"silu\"; other activations "
        "are not served",
        Quoted(activation)));
  }
  if (reader.Boolean("attention_bias", false)) {
    reader.Fail(InvalidArgument(
        "config.json: attention_bias is true, allowed is false; attention with "
        "biases is not served"));
  }
  if (const Json* quantization = reader.Find("quantization_config")) {
    reader.Fail(InvalidArgument(
        "config.json: quantization_config is {}, allowed is null; serve the "
        "model's bfloat16, float16 or float32 checkpoint",
        DescribeJson(*quantization)));
  }
}

absl::StatusOr<std::vector<TokenId>> EndTokensOf(std::string_view file,
                                                 const Json& object) {
  constexpr std::string_view kName = "eos_token_id";
  FieldReader reader(file, object);
  const Json* value = reader.Find(kName);
  std::vector<TokenId> ids;
  if (value == nullptr) return ids;
  const Json list = value->is_array() ? *value : Json::array({*value});
  if (static_cast<int64_t>(list.size()) > kMaxStopTokenIds) {
    return InvalidArgument("{}: {} lists {} ids, at most {} are allowed", file,
                           kName, list.size(), kMaxStopTokenIds);
  }
  for (const Json& element : list) {
    const Json field = {{std::string(kName), element}};
    FieldReader id_reader(file, field);
    const int64_t id = id_reader.Integer(kName, -1, kMaxVocabSize - 1);
    RETURN_IF_ERROR(id_reader.status());
    if (id >= 0) ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

absl::StatusOr<Json> ParseFile(std::string_view name, const std::string& text) {
  if (static_cast<int64_t>(text.size()) > kMaxConfigFileBytes) {
    return InvalidArgument("{}: {} bytes long, at most {} are allowed", name,
                           text.size(), kMaxConfigFileBytes);
  }
  return ParseJsonObject(name, text);
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json) {
  ASSIGN_OR_RETURN(const Json object, ParseFile(kConfigFile, json));
  FieldReader reader(kConfigFile, object);
  ModelConfig config;
  ReadArchitecture(reader, config);
  RETURN_IF_ERROR(reader.status());  // the rest depends on the family
  RefuseUnserved(reader);
  ReadShape(reader, config);
  ReadRope(reader, config);
  ReadDType(reader, config);
  if (const auto epsilon =
          reader.OptionalNumber("rms_norm_eps", 0, kMaxRmsNormEpsilon,
                                /*above_min=*/true)) {
    config.rms_norm_epsilon = *epsilon;
  } else {
    reader.Absent("rms_norm_eps",
                  FieldReader::NumberRange(0, kMaxRmsNormEpsilon, true));
  }
  config.tie_word_embeddings = reader.Boolean("tie_word_embeddings", false);
  RETURN_IF_ERROR(reader.status());
  const int64_t num_tensors = NumTensors(config);
  if (num_tensors > kMaxTensors) {
    return InvalidArgument(
        "config.json: num_hidden_layers {} with num_local_experts {} make {} "
        "tensors, at most {} are allowed",
        config.num_layers, config.num_experts, num_tensors, kMaxTensors);
  }
  return config;
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& directory) {
  ASSIGN_OR_RETURN(const std::string text,
                   ReadFile(directory + "/config.json", kMaxConfigFileBytes));
  absl::StatusOr<ModelConfig> config = ParseModelConfig(text);
  if (!config.ok()) return Annotate(config.status(), directory);
  return config;
}

absl::StatusOr<GenerationConfig> ParseGenerationConfig(
    const std::string& generation_json, const std::string& config_json) {
  ASSIGN_OR_RETURN(const Json model, ParseFile(kConfigFile, config_json));
  Json generation = Json::object();
  if (!generation_json.empty()) {
    ASSIGN_OR_RETURN(generation,
                     ParseFile(kGenerationConfigFile, generation_json));
  }
  GenerationConfig result;
  FieldReader reader(kGenerationConfigFile, generation);
  // What generation_config.json does not name is config.json's.
  const bool names_end = reader.Find("eos_token_id") != nullptr;
  ASSIGN_OR_RETURN(result.eos_token_ids,
                   names_end ? EndTokensOf(kGenerationConfigFile, generation)
                             : EndTokensOf(kConfigFile, model));
  // What a request may not ask for may not be a default either.
  result.temperature =
      reader.OptionalNumber("temperature", 0, kMaxTemperature, false);
  if (result.temperature > 0.0 &&
      result.temperature < double{kMinTemperature}) {
    reader.Refuse(
        "temperature", *reader.Find("temperature"),
        FieldReader::NumberRange(kMinTemperature, kMaxTemperature, false) +
            ", or 0");
  }
  if (!reader.Boolean("do_sample", true)) result.temperature = 0;
  if (const auto top_k = reader.OptionalInteger("top_k", 0, kMaxVocabSize)) {
    result.top_k = static_cast<int32_t>(*top_k);
  }
  result.top_p = reader.OptionalNumber("top_p", kMinTopP, 1, false);
  result.min_p = reader.OptionalNumber("min_p", 0, 1, false);
  result.repetition_penalty = reader.OptionalNumber(
      "repetition_penalty", kMinRepetitionPenalty, kMaxPenalty, false);
  RETURN_IF_ERROR(reader.status());
  return result;
}

absl::StatusOr<GenerationConfig> ReadGenerationConfig(
    const std::string& directory) {
  ASSIGN_OR_RETURN(const std::string config_text,
                   ReadFile(directory + "/config.json", kMaxConfigFileBytes));
  ASSIGN_OR_RETURN(const std::string text,
                   ReadFileOrEmpty(directory + "/generation_config.json",
                                   kMaxConfigFileBytes));
  absl::StatusOr<GenerationConfig> config =
      ParseGenerationConfig(text, config_text);
  if (!config.ok()) return Annotate(config.status(), directory);
  return config;
}

}  // namespace witan
