#include "proto/generation_request.h"

#include <algorithm>
#include <utility>

#include "base/bounds.h"
#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "proto/rpc_status.h"

namespace witan {
namespace {

absl::Status CheckFieldRange(const std::string& field, int64_t value,
                             int64_t min, int64_t max) {
  return BlameField(CheckRange("value", value, min, max), field);
}

absl::Status CheckFieldReal(const std::string& field, float value, double min,
                            double max) {
  return BlameField(CheckReal("value", value, min, max), field);
}

absl::Status CheckTemperature(float value) {
  if (value == 0) return absl::OkStatus();
  if (value >= kMinTemperature && value <= kMaxTemperature) {
    return absl::OkStatus();
  }
  return InvalidField("parameters.temperature",
                      "value is {}; allowed is 0 (greedy), or {:g} to {:g}",
                      value, kMinTemperature, kMaxTemperature);
}

absl::Status CheckFieldCount(const std::string& field, int64_t count,
                             int64_t max) {
  return BlameField(CheckCount("list", count, max), field);
}

absl::Status CheckText(const std::string& field, const std::string& text,
                       size_t min_bytes, size_t max_bytes) {
  if (text.size() < min_bytes) {
    return InvalidField(field, "is empty; allowed is {} to {} bytes", min_bytes,
                        max_bytes);
  }
  if (text.size() > max_bytes) {
    return InvalidField(field, "has {} bytes; at most {} are allowed",
                        text.size(), max_bytes);
  }
  const size_t valid = ValidUtf8Prefix(text);
  if (valid != text.size()) {
    return InvalidField(field, "is not UTF-8 at byte {}", valid);
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(const v1::GenerationParameters& in,
                          const ModelFacts& model, GenerationRequest& out) {
  const GenerationConfig& defaults = model.generation;
  SamplingParams& sampling = out.sampling;
  sampling.temperature = in.has_temperature()
                             ? in.temperature()
                             : defaults.temperature.value_or(1.0f);
  sampling.top_k =
      in.has_top_k()
          ? in.top_k()
          : static_cast<int32_t>(std::min<int64_t>(defaults.top_k.value_or(0),
                                                   model.config.vocab_size));
  sampling.top_p = in.has_top_p() ? in.top_p() : defaults.top_p.value_or(1.0f);
  sampling.min_p = in.has_min_p() ? in.min_p() : defaults.min_p.value_or(0.0f);
  sampling.repetition_penalty =
      in.has_repetition_penalty() ? in.repetition_penalty()
                                  : defaults.repetition_penalty.value_or(1.0f);
  sampling.presence_penalty = in.presence_penalty();
  sampling.frequency_penalty = in.frequency_penalty();
  sampling.num_top_logprobs = in.has_top_logprobs() ? in.top_logprobs() : -1;
  out.has_seed = in.has_seed();
  sampling.seed = in.seed();

  RETURN_IF_ERROR(CheckTemperature(sampling.temperature));
  RETURN_IF_ERROR(CheckFieldRange("parameters.top_k", sampling.top_k, 0,
                                  model.config.vocab_size));
  RETURN_IF_ERROR(
      CheckFieldReal("parameters.top_p", sampling.top_p, kMinTopP, 1));
  RETURN_IF_ERROR(CheckFieldReal("parameters.min_p", sampling.min_p, 0, 1));
  RETURN_IF_ERROR(CheckFieldReal("parameters.repetition_penalty",
                                 sampling.repetition_penalty,
                                 kMinRepetitionPenalty, kMaxPenalty));
  RETURN_IF_ERROR(CheckFieldReal("parameters.presence_penalty",
                                 sampling.presence_penalty, -kMaxPenalty,
                                 kMaxPenalty));
  RETURN_IF_ERROR(CheckFieldReal("parameters.frequency_penalty",
                                 sampling.frequency_penalty, -kMaxPenalty,
                                 kMaxPenalty));
  if (in.has_top_logprobs()) {
    RETURN_IF_ERROR(CheckFieldRange("parameters.top_logprobs",
                                    in.top_logprobs(), 0, kMaxTopLogprobs));
  }
  if (in.has_prompt_logprobs()) {
    RETURN_IF_ERROR(CheckFieldRange("parameters.prompt_logprobs",
                                    in.prompt_logprobs(), 0, kMaxTopLogprobs));
    sampling.num_prompt_logprobs = in.prompt_logprobs();
  }
  RETURN_IF_ERROR(CheckFieldCount("parameters.logit_bias", in.logit_bias_size(),
                                  kMaxLogitBias));
  for (const auto& [token_id, bias] : in.logit_bias()) {
    const std::string field =
        fmt::format("parameters.logit_bias[{}]", token_id);
    RETURN_IF_ERROR(
        CheckFieldRange(field, token_id, 0, model.config.vocab_size - 1));
    RETURN_IF_ERROR(CheckFieldReal(field, bias, -kMaxAbsoluteLogitBias,
                                   kMaxAbsoluteLogitBias));
    sampling.logit_bias.push_back({.token_id = token_id, .bias = bias});
  }
  std::sort(sampling.logit_bias.begin(), sampling.logit_bias.end(),
            [](const LogitBias& a, const LogitBias& b) {
              return a.token_id < b.token_id;
            });
  return absl::OkStatus();
}

absl::Status ReadBadWords(const v1::GenerationParameters& in,
                          GenerationRequest& out) {
  RETURN_IF_ERROR(CheckFieldCount("parameters.bad_words", in.bad_words_size(),
                                  kMaxBadWords));
  for (const std::string& word : in.bad_words()) {
    RETURN_IF_ERROR(
        CheckText("parameters.bad_words", word, 1, kMaxBadWordBytes));
    out.bad_words.push_back(word);
  }
  return absl::OkStatus();
}

absl::Status ReadStopRules(const v1::GenerationParameters& in,
                           const ModelFacts& model, GenerationRequest& out) {
  if (in.has_max_tokens()) {
    RETURN_IF_ERROR(CheckFieldRange("parameters.max_tokens", in.max_tokens(), 1,
                                    model.max_context_tokens));
    out.max_tokens = in.max_tokens();
  }
  RETURN_IF_ERROR(
      CheckFieldRange("parameters.min_tokens", in.min_tokens(), 0,
                      out.max_tokens.value_or(model.max_context_tokens)));
  out.stop.min_tokens = in.min_tokens();
  RETURN_IF_ERROR(
      CheckFieldCount("parameters.stop", in.stop_size(), kMaxStopStrings));
  for (const std::string& stop : in.stop()) {
    RETURN_IF_ERROR(CheckText("parameters.stop", stop, 1, kMaxStopStringBytes));
    out.stop.stop_strings.push_back(stop);
  }
  RETURN_IF_ERROR(CheckFieldCount("parameters.stop_token_ids",
                                  in.stop_token_ids_size(), kMaxStopTokenIds));
  RETURN_IF_ERROR(CheckTokenIds("parameters.stop_token_ids",
                                in.stop_token_ids(), model.config.vocab_size));
  std::vector<TokenId>& ids = out.stop.stop_token_ids;
  ids.assign(in.stop_token_ids().begin(), in.stop_token_ids().end());
  if (!in.ignore_eos()) {
    ids.insert(ids.end(), model.generation.eos_token_ids.begin(),
               model.generation.eos_token_ids.end());
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  if (out.stop.min_tokens > 0) {
    out.sampling.min_tokens = out.stop.min_tokens;
    out.sampling.end_token_ids = ids;
  }
  out.include_stop_string = in.include_stop_string();
  if (in.has_skip_special_tokens()) {
    out.skip_special_tokens = in.skip_special_tokens();
  }
  if (in.has_num_choices()) {
    RETURN_IF_ERROR(CheckFieldRange("parameters.num_choices", in.num_choices(),
                                    1, kMaxChoices));
    out.num_choices = in.num_choices();
  }
  out.echo = in.echo();
  if (in.has_thinking_budget_tokens()) {
    RETURN_IF_ERROR(CheckFieldRange("parameters.thinking_budget_tokens",
                                    in.thinking_budget_tokens(), 0,
                                    model.max_context_tokens));
    out.thinking_budget_tokens = in.thinking_budget_tokens();
    // The thought would be closed before the prompt is scored.
    if (in.thinking_budget_tokens() == 0 && in.has_prompt_logprobs()) {
      return InvalidField("parameters.thinking_budget_tokens",
                          "is 0, which prompt_logprobs does not go with; leave "
                          "one of them out");
    }
  }
  return absl::OkStatus();
}

// 1 to `max_bytes` of [A-Za-z0-9._:-].
absl::Status CheckName(const std::string& field, const std::string& name,
                       size_t max_bytes) {
  if (name.empty() || name.size() > max_bytes) {
    return InvalidField(
        field, "has {} characters; allowed is 1 to {}, or leave it unset",
        name.size(), max_bytes);
  }
  for (const char c : name) {
    const bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                    (c >= '0' && c <= '9') || c == '.' || c == '_' ||
                    c == ':' || c == '-';
    if (!ok) {
      return InvalidField(field,
                          "holds the byte {:#04x}; allowed is [A-Za-z0-9._:-]",
                          static_cast<unsigned char>(c));
    }
  }
  return absl::OkStatus();
}

// What both kinds of request have.
template <typename Request>
absl::StatusOr<GenerationRequest> ReadCommon(const Request& in,
                                             const ModelFacts& model) {
  GenerationRequest out;
  if (in.has_request_id()) {
    RETURN_IF_ERROR(CheckRequestId(in.request_id()));
    out.request_id = in.request_id();
  }
  if (model.has_adapters && !in.model().empty() && in.model() != model.name &&
      in.model().size() <= kMaxAdapterNameBytes) {
    out.adapter_name = in.model();
  } else {
    RETURN_IF_ERROR(CheckModelName(in.model(), model));
  }
  if (in.has_tenant()) {
    RETURN_IF_ERROR(CheckTenant(in.tenant()));
    out.tenant = in.tenant();
  }
  if (in.has_priority()) {
    RETURN_IF_ERROR(CheckFieldRange("priority", in.priority(),
                                    -kMaxAbsolutePriority,
                                    kMaxAbsolutePriority));
    out.priority = in.priority();
  }
  RETURN_IF_ERROR(ReadSampling(in.parameters(), model, out));
  RETURN_IF_ERROR(ReadStopRules(in.parameters(), model, out));
  RETURN_IF_ERROR(ReadBadWords(in.parameters(), out));
  return out;
}

absl::StatusOr<ChatTurn> ReadMessage(const v1::ChatMessage& in,
                                     size_t* total_bytes) {
  RETURN_IF_ERROR(CheckText("messages.role", in.role(), 1, kMaxRoleBytes));
  RETURN_IF_ERROR(
      CheckText("messages.content", in.content(), 0, kMaxPromptTextBytes));
  ChatTurn out{.role = in.role(), .content = in.content()};
  *total_bytes += in.content().size();
  if (in.has_reasoning_content()) {
    RETURN_IF_ERROR(CheckText("messages.reasoning_content",
                              in.reasoning_content(), 0, kMaxPromptTextBytes));
    *total_bytes += in.reasoning_content().size();
    out.reasoning_content = in.reasoning_content();
  }
  RETURN_IF_ERROR(CheckFieldCount("messages.tool_calls", in.tool_calls_size(),
                                  kMaxToolCalls));
  for (const v1::ToolCall& call : in.tool_calls()) {
    RETURN_IF_ERROR(
        CheckText("messages.tool_calls.id", call.id(), 0, kMaxToolNameBytes));
    RETURN_IF_ERROR(CheckText("messages.tool_calls.name", call.name(), 1,
                              kMaxToolNameBytes));
    RETURN_IF_ERROR(CheckText("messages.tool_calls.arguments", call.arguments(),
                              0, kMaxTemplateArgumentBytes));
    *total_bytes += call.arguments().size();
    out.tool_calls.push_back(
        {.id = call.id(), .name = call.name(), .arguments = call.arguments()});
  }
  if (in.has_tool_call_id()) {
    RETURN_IF_ERROR(CheckText("messages.tool_call_id", in.tool_call_id(), 0,
                              kMaxToolNameBytes));
    out.tool_call_id = in.tool_call_id();
  }
  if (in.has_name()) {
    RETURN_IF_ERROR(
        CheckText("messages.name", in.name(), 0, kMaxToolNameBytes));
    out.name = in.name();
  }
  return out;
}

}  // namespace

absl::StatusOr<GenerationRequest> ReadRequest(const v1::GenerateRequest& in,
                                              const ModelFacts& model) {
  ASSIGN_OR_RETURN(GenerationRequest out, ReadCommon(in, model));
  switch (in.prompt_case()) {
    case v1::GenerateRequest::kText:
      RETURN_IF_ERROR(CheckText("text", in.text(), 1, kMaxPromptTextBytes));
      out.text = in.text();
      break;
    case v1::GenerateRequest::kTokenIds: {
      const auto& ids = in.token_ids().ids();
      if (ids.empty()) {
        return InvalidField("token_ids", "is empty; give at least one token");
      }
      if (ids.size() >= model.max_context_tokens) {
        return InvalidField("token_ids",
                            "has {} tokens; the context of {} leaves room for "
                            "at most {}",
                            ids.size(), model.max_context_tokens,
                            model.max_context_tokens - 1);
      }
      RETURN_IF_ERROR(CheckTokenIds("token_ids", ids, model.config.vocab_size));
      out.token_ids.assign(ids.begin(), ids.end());
      break;
    }
    case v1::GenerateRequest::PROMPT_NOT_SET:
      return InvalidField("prompt", "is not set; give text or token_ids");
  }
  if (in.has_add_special_tokens()) {
    out.add_special_tokens = in.add_special_tokens();
  }
  return out;
}

absl::StatusOr<GenerationRequest> ReadRequest(const v1::ChatRequest& in,
                                              const ModelFacts& model) {
  ASSIGN_OR_RETURN(GenerationRequest out, ReadCommon(in, model));
  if (in.messages().empty()) {
    return InvalidField("messages", "is empty; give at least one message");
  }
  RETURN_IF_ERROR(
      CheckFieldCount("messages", in.messages_size(), kMaxMessages));
  size_t total_bytes = 0;
  for (const v1::ChatMessage& message : in.messages()) {
    ASSIGN_OR_RETURN(out.messages.emplace_back(),
                     ReadMessage(message, &total_bytes));
  }
  RETURN_IF_ERROR(CheckFieldCount("tools", in.tools_size(), kMaxTools));
  for (const std::string& tool : in.tools()) {
    RETURN_IF_ERROR(CheckText("tools", tool, 1, kMaxTemplateArgumentBytes));
    total_bytes += tool.size();
    out.tools.push_back(tool);
  }
  if (!out.tools.empty() && in.template_arguments().contains("tools")) {
    return InvalidField("tools",
                        "are given twice; leave template_arguments[tools] out");
  }
  if (total_bytes > kMaxPromptTextBytes) {
    return InvalidField("messages",
                        "have {} bytes together; at most {} are allowed",
                        total_bytes, kMaxPromptTextBytes);
  }
  RETURN_IF_ERROR(CheckFieldCount("template_arguments",
                                  in.template_arguments_size(),
                                  kMaxTemplateArguments));
  for (const auto& [name, value] : in.template_arguments()) {
    RETURN_IF_ERROR(CheckText("template_arguments", name, 1, kMaxNameBytes));
    RETURN_IF_ERROR(CheckText(fmt::format("template_arguments[{}]", name),
                              value, 0, kMaxTemplateArgumentBytes));
    out.template_arguments.emplace(name, value);
  }
  out.add_special_tokens = false;  // the template writes them
  if (in.has_add_generation_prompt()) {
    out.add_generation_prompt = in.add_generation_prompt();
  }
  return out;
}

absl::Status CheckRequest(const v1::CancelRequest& in) {
  return CheckRequestId(in.request_id());
}

absl::Status CheckRequest(const v1::TokenizeRequest& in,
                          const ModelFacts& model) {
  RETURN_IF_ERROR(CheckModelName(in.model(), model));
  return CheckText("text", in.text(), 0, kMaxPromptTextBytes);
}

absl::Status CheckRequest(const v1::DetokenizeRequest& in,
                          const ModelFacts& model) {
  RETURN_IF_ERROR(CheckModelName(in.model(), model));
  RETURN_IF_ERROR(
      CheckFieldCount("token_ids", in.token_ids_size(), kMaxDetokenizeTokens));
  return CheckTokenIds("token_ids", in.token_ids(), model.config.vocab_size);
}

absl::Status CheckRequest(const v1::GetModelRequest& in,
                          const ModelFacts& model) {
  return CheckModelName(in.model(), model);
}

absl::Status FitToContext(GenerationRequest& request, int64_t num_prompt_tokens,
                          int64_t context_tokens) {
  const int64_t room = context_tokens - num_prompt_tokens;
  if (num_prompt_tokens == 0) {
    return InvalidField("prompt", "has no tokens; give at least one");
  }
  if (room < 1) {
    return InvalidField("prompt",
                        "has {} tokens; the context of {} leaves room for at "
                        "most {}; shorten the prompt",
                        num_prompt_tokens, context_tokens, context_tokens - 1);
  }
  const int64_t max_tokens = request.max_tokens.value_or(room);
  if (max_tokens > room) {
    return InvalidField("parameters.max_tokens",
                        "value is {}; the prompt of {} tokens leaves {} of the "
                        "context of {}",
                        max_tokens, num_prompt_tokens, room, context_tokens);
  }
  if (request.stop.min_tokens > max_tokens) {
    return InvalidField("parameters.min_tokens",
                        "value is {}; at most {} tokens can be made",
                        request.stop.min_tokens, max_tokens);
  }
  request.stop.max_tokens = max_tokens;
  return absl::OkStatus();
}

absl::Status CheckModelName(const std::string& name, const ModelFacts& model) {
  if (name.empty() || name == model.name) return absl::OkStatus();
  return NotFound("model \"{}\" is not served here; the model is \"{}\"",
                  name.substr(0, kMaxModelNameBytes), model.name);
}

absl::Status CheckRequestId(const std::string& request_id) {
  return CheckName("request_id", request_id, kMaxRequestIdBytes);
}

absl::Status CheckTenant(const std::string& tenant) {
  return CheckName("tenant", tenant, kMaxTenantBytes);
}

absl::Status CheckTokenIds(
    const std::string& field,
    const google::protobuf::RepeatedField<int32_t>& token_ids,
    int64_t vocab_size) {
  for (int i = 0; i < token_ids.size(); ++i) {
    if (token_ids[i] < 0 || token_ids[i] >= vocab_size) {
      return InvalidField(fmt::format("{}[{}]", field, i),
                          "value is {}; allowed is 0 to {}", token_ids[i],
                          vocab_size - 1);
    }
  }
  return absl::OkStatus();
}

v1::GenerationParameters DefaultParameters(const ModelFacts& model) {
  const GenerationConfig& generation = model.generation;
  v1::GenerationParameters out;
  out.set_temperature(generation.temperature.value_or(1.0f));
  out.set_top_k(generation.top_k.value_or(0));
  out.set_top_p(generation.top_p.value_or(1.0f));
  out.set_min_p(generation.min_p.value_or(0.0f));
  out.set_repetition_penalty(generation.repetition_penalty.value_or(1.0f));
  out.set_presence_penalty(0);
  out.set_frequency_penalty(0);
  out.set_min_tokens(0);
  out.set_ignore_eos(false);
  out.set_include_stop_string(false);
  out.set_skip_special_tokens(true);
  out.set_num_choices(1);
  out.set_echo(false);
  return out;
}

}  // namespace witan
