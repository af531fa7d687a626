#include "model/generation_config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/file.h"
#include "base/limits.h"
#include "base/status.h"
#include "model/config.h"
#include "model/gguf_config.h"
#include "model/gguf_model.h"
#include "model/json_fields.h"
#include "model/json_object.h"

namespace witan {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kConfigFile = "config.json";
constexpr std::string_view kGenerationConfigFile = "generation_config.json";

absl::StatusOr<std::vector<TokenId>> EndTokensOf(std::string_view file,
                                                 const Json& object) {
  constexpr std::string_view kName = "eos_token_id";
  JsonFields reader(file, object);
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
    JsonFields id_reader(file, field);
    const int64_t id = id_reader.Integer(kName, -1, kMaxVocabSize - 1);
    RETURN_IF_ERROR(id_reader.status());
    if (id >= 0) ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

// Empty when there is none.
absl::StatusOr<std::string> ReadGenerationText(const std::string& model) {
  ASSIGN_OR_RETURN(const auto gguf_files, FindGgufFiles(model));
  if (gguf_files.empty()) {
    return ReadFileOrEmpty(model + "/generation_config.json",
                           kMaxConfigFileBytes);
  }
  ASSIGN_OR_RETURN(const GgufModel gguf, GgufModel::Open(gguf_files));
  absl::StatusOr<std::string> text = GenerationConfigOfGguf(gguf);
  if (!text.ok()) return Annotate(text.status(), gguf_files.front());
  return text;
}

}  // namespace

absl::StatusOr<GenerationConfig> ParseGenerationConfig(
    const std::string& generation_json, const std::string& config_json) {
  ASSIGN_OR_RETURN(const Json model, ParseConfigFile(kConfigFile, config_json));
  Json generation = Json::object();
  if (!generation_json.empty()) {
    ASSIGN_OR_RETURN(generation,
                     ParseConfigFile(kGenerationConfigFile, generation_json));
  }
  GenerationConfig result;
  JsonFields reader(kGenerationConfigFile, generation);
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
        JsonFields::NumberRange(kMinTemperature, kMaxTemperature, false) +
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
    const std::string& model) {
  ASSIGN_OR_RETURN(const std::string config_text, ReadConfigText(model));
  ASSIGN_OR_RETURN(const std::string text, ReadGenerationText(model));
  absl::StatusOr<GenerationConfig> config =
      ParseGenerationConfig(text, config_text);
  if (!config.ok()) return Annotate(config.status(), model);
  return config;
}

}  // namespace witan
