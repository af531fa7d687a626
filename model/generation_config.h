#ifndef WITAN_MODEL_GENERATION_CONFIG_H_
#define WITAN_MODEL_GENERATION_CONFIG_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/request.h"

namespace witan {

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

// The same of a Hugging Face directory's generation_config.json and
// config.json, or of GGUF files (model/gguf_model.h).
absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::string& model);

}  // namespace witan

#endif  // WITAN_MODEL_GENERATION_CONFIG_H_
