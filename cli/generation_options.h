#ifndef WITAN_CLI_GENERATION_OPTIONS_H_
#define WITAN_CLI_GENERATION_OPTIONS_H_

// The options that `generate` and `chat` share: how tokens are drawn and how
// the result is printed.

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "proto/inference.pb.h"

namespace CLI {
class App;
}

namespace witan {

struct GenerationOptions {
  std::string server;
  std::optional<std::string> model;
  std::optional<std::string> request_id;
  std::optional<std::string> tenant;
  std::optional<int32_t> priority;
  std::optional<int64_t> max_tokens;
  std::optional<int64_t> min_tokens;
  std::optional<float> temperature;
  std::optional<uint64_t> seed;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<int32_t> num_logprobs;
  std::optional<int32_t> num_choices;
  std::optional<int32_t> num_prompt_logprobs;
  std::optional<int64_t> thinking_budget_tokens;
  std::vector<std::string> logit_bias;  // ID=BIAS
  std::vector<std::string> stop;
  std::vector<std::string> bad_words;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool echo = false;
  bool json = false;
  bool timings = false;
};

void AddGenerationOptions(CLI::App& app, GenerationOptions* options);

// What was given, and nothing else: the server fills in the rest and checks
// all ranges. INVALID_ARGUMENT names an option that cannot be read.
absl::StatusOr<v1::GenerationParameters> MakeParameters(
    const GenerationOptions& options);

// "name=value", for an option called `option` in messages.
absl::StatusOr<std::pair<std::string, std::string>> SplitAssignment(
    const std::string& option, const std::string& text);

}  // namespace witan

#endif  // WITAN_CLI_GENERATION_OPTIONS_H_
