#include "coordinator/api/chat_input.h"

#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"
#include "coordinator/text/template_argument.h"
#include "proto/rpc_status.h"

namespace witan {

namespace {

using nlohmann::ordered_json;

absl::StatusOr<ordered_json> ParseObject(const std::string& field,
                                         const std::string& text) {
  absl::StatusOr<ordered_json> parsed = ParseTemplateArgument(text);
  if (parsed.ok() && !parsed->is_object()) {
    parsed = InvalidArgument("is not a JSON object");
  }
  if (!parsed.ok()) return BlameField(parsed.status(), field);
  return parsed;
}

// As transformers' messages are.
absl::StatusOr<ordered_json> MessageOf(const ChatTurn& turn) {
  ordered_json message{{"role", turn.role}, {"content", turn.content}};
  if (turn.reasoning_content) {
    message["reasoning_content"] = *turn.reasoning_content;
  }
  for (const ToolCall& call : turn.tool_calls) {
    ASSIGN_OR_RETURN(
        ordered_json arguments,
        ParseObject(fmt::format("messages.tool_calls[{}].arguments", call.name),
                    call.arguments.empty() ? "{}" : call.arguments));
    ordered_json entry{{"type", "function"}};
    if (!call.id.empty()) entry["id"] = call.id;
    entry["function"] = {{"name", call.name},
                         {"arguments", std::move(arguments)}};
    message["tool_calls"].push_back(std::move(entry));
  }
  if (turn.tool_call_id) message["tool_call_id"] = *turn.tool_call_id;
  if (turn.name) message["name"] = *turn.name;
  return message;
}

}  // namespace

absl::StatusOr<ChatTemplateInput> TemplateInput(
    const GenerationRequest& request, const Tokenizer& tokenizer) {
  ChatTemplateInput input;
  for (const ChatTurn& turn : request.messages) {
    ASSIGN_OR_RETURN(ordered_json message, MessageOf(turn));
    input.messages.push_back(std::move(message));
  }
  input.add_generation_prompt = request.add_generation_prompt;
  input.special_tokens = tokenizer.special_tokens();
  for (const auto& [name, value] : request.template_arguments) {
    absl::StatusOr<ordered_json> argument = ParseTemplateArgument(value);
    if (!argument.ok()) {
      return BlameField(argument.status(),
                        fmt::format("template_arguments[{}]", name));
    }
    input.arguments[name] = *std::move(argument);
  }
  for (size_t i = 0; i < request.tools.size(); ++i) {
    ASSIGN_OR_RETURN(ordered_json tool, ParseObject(fmt::format("tools[{}]", i),
                                                    request.tools[i]));
    input.arguments["tools"].push_back(std::move(tool));
  }
  input.now_unix_seconds = std::time(nullptr);
  return input;
}

}  // namespace witan
