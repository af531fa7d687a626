#include "cli/generation_options.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdlib>

#include "base/status.h"
#include "cli/client.h"

namespace witan {
namespace {

absl::Status AddLogitBias(const std::string& text,
                          v1::GenerationParameters* parameters) {
  ASSIGN_OR_RETURN(const auto entry, SplitAssignment("logit-bias", text));
  const auto& [id_text, bias_text] = entry;
  int32_t id = 0;
  const char* end = id_text.data() + id_text.size();
  const auto parsed = std::from_chars(id_text.data(), end, id);
  char* bias_end = nullptr;
  const float bias = std::strtof(bias_text.c_str(), &bias_end);
  if (parsed.ec != std::errc() || parsed.ptr != end || bias_text.empty() ||
      *bias_end != '\0') {
    return InvalidArgument(
        "--logit-bias {}: must be a token id and a number, e.g. 17=-2.5", text);
  }
  if (!parameters->mutable_logit_bias()->insert({id, bias}).second) {
    return InvalidArgument("--logit-bias names token {} twice; name it once",
                           id);
  }
  return absl::OkStatus();
}

}  // namespace

void AddGenerationOptions(CLI::App& app, GenerationOptions* options) {
  GenerationOptions& o = *options;
  AddServerOption(app, &o.server);
  app.add_option("--served-model-name,--model", o.model,
                 "The served model, or one of its adapters (witan adapter "
                 "list); another name is an error");
  app.add_option("--request-id", o.request_id,
                 "Name of this request, 1 to 128 of A-Z a-z 0-9 . _ : -");
  app.add_option("--tenant", o.tenant,
                 "On whose account, 1 to 64 of A-Z a-z 0-9 . _ : -");
  app.add_option("--priority", o.priority, "Higher goes first; -10 to 10");
  app.add_option("--max-tokens", o.max_tokens, "Tokens to make at most");
  app.add_option("--min-tokens", o.min_tokens,
                 "Tokens to make before it may end");
  app.add_option("--temperature", o.temperature,
                 "0 takes the most likely token");
  app.add_option("--seed", o.seed, "Same seed, same tokens");
  app.add_option("--top-k", o.top_k, "Keep the k most likely tokens; 0 is off");
  app.add_option("--top-p", o.top_p,
                 "Keep the smallest set of this probability; 1 is off");
  app.add_option("--min-p", o.min_p,
                 "Keep tokens this likely relative to the best; 0 is off");
  app.add_option("--repetition-penalty", o.repetition_penalty, "1 is off");
  app.add_option("--presence-penalty", o.presence_penalty, "0 is off");
  app.add_option("--frequency-penalty", o.frequency_penalty, "0 is off");
  app.add_option("--logit-bias", o.logit_bias,
                 "ID=BIAS, added to a token's logit; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--stop", o.stop,
                 "End the text before this string; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--stop-token-id", o.stop_token_ids,
                 "End at this token; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--logprobs", o.num_logprobs,
                 "With --json: log-probability of each token and of the N most "
                 "likely ones");
  app.add_option("--prompt-logprobs", o.num_prompt_logprobs,
                 "With --json: the same of each token of the prompt");
  app.add_option("--bad-word", o.bad_words,
                 "Ban the tokens that spell this, also behind a space; other "
                 "tokens may still spell it in part. May be repeated")
      ->allow_extra_args(false);
  app.add_option("--thinking-budget", o.thinking_budget_tokens,
                 "Tokens of the thought after which it is cut off");
  app.add_flag("--echo", o.echo, "Begin with the prompt");
  app.add_option("--choices", o.num_choices, "Independent continuations");
  app.add_flag("--ignore-eos", o.ignore_eos,
               "Go on after an end-of-sequence token");
  app.add_flag("--json", o.json, "Print one JSON object at the end")
      ->configurable(false);
  app.add_flag("--timings", o.timings, "Print tokens per second to stderr");
}

absl::StatusOr<v1::GenerationParameters> MakeParameters(
    const GenerationOptions& o) {
  v1::GenerationParameters p;
  if (o.max_tokens) p.set_max_tokens(*o.max_tokens);
  if (o.min_tokens) p.set_min_tokens(*o.min_tokens);
  if (o.temperature) p.set_temperature(*o.temperature);
  if (o.seed) p.set_seed(*o.seed);
  if (o.top_k) p.set_top_k(*o.top_k);
  if (o.top_p) p.set_top_p(*o.top_p);
  if (o.min_p) p.set_min_p(*o.min_p);
  if (o.repetition_penalty) p.set_repetition_penalty(*o.repetition_penalty);
  if (o.presence_penalty) p.set_presence_penalty(*o.presence_penalty);
  if (o.frequency_penalty) p.set_frequency_penalty(*o.frequency_penalty);
  if (o.num_logprobs) p.set_top_logprobs(*o.num_logprobs);
  if (o.num_choices) p.set_num_choices(*o.num_choices);
  if (o.num_prompt_logprobs) p.set_prompt_logprobs(*o.num_prompt_logprobs);
  if (o.thinking_budget_tokens) {
    p.set_thinking_budget_tokens(*o.thinking_budget_tokens);
  }
  if (o.echo) p.set_echo(true);
  for (const std::string& word : o.bad_words) p.add_bad_words(word);
  if (o.ignore_eos) p.set_ignore_eos(true);
  for (const std::string& stop : o.stop) p.add_stop(stop);
  for (const int32_t id : o.stop_token_ids) p.add_stop_token_ids(id);
  for (const std::string& text : o.logit_bias) {
    RETURN_IF_ERROR(AddLogitBias(text, &p));
  }
  return p;
}

absl::StatusOr<std::pair<std::string, std::string>> SplitAssignment(
    const std::string& option, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return InvalidArgument("--{} {}: must be NAME=VALUE", option, text);
  }
  return std::pair(text.substr(0, equals), text.substr(equals + 1));
}

}  // namespace witan
