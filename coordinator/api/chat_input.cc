#include "coordinator/api/chat_input.h"

#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <string>

#include "base/limits.h"
#include "base/status.h"
#include "proto/rpc_status.h"

namespace witan {
namespace {

// A template argument is JSON, or text where it is not. Depth is bounded while
// it is parsed: deeper values are copied by recursion.
absl::StatusOr<nlohmann::ordered_json> ParseTemplateArgument(
    const std::string& name, const std::string& value) {
  using nlohmann::ordered_json;
  constexpr int kMaxDepth = kMaxJsonDepth - 1;  // the arguments are one level
  bool is_too_deep = false;
  using Event = ordered_json::parse_event_t;
  const auto bound_depth = [&](int depth, Event event, ordered_json&) {
    is_too_deep |= depth == kMaxDepth && (event == Event::array_start ||
                                          event == Event::object_start);
    return !is_too_deep;
  };
  ordered_json parsed =
      ordered_json::parse(value, bound_depth, /*allow_exceptions=*/false);
  if (is_too_deep) {
    return InvalidField(fmt::format("template_arguments[{}]", name),
                        "is nested deeper than {} levels", kMaxDepth);
  }
  if (parsed.is_discarded()) return ordered_json(value);
  return parsed;
}

}  // namespace

absl::StatusOr<ChatTemplateInput> TemplateInput(
    const GenerationRequest& request, const Tokenizer& tokenizer) {
  using nlohmann::ordered_json;
  ChatTemplateInput input;
  for (const ChatTurn& turn : request.messages) {
    input.messages.push_back(
        ordered_json{{"role", turn.role}, {"content", turn.content}});
  }
  input.add_generation_prompt = request.add_generation_prompt;
  input.special_tokens = tokenizer.special_tokens();
  for (const auto& [name, value] : request.template_arguments) {
    ASSIGN_OR_RETURN(input.arguments[name], ParseTemplateArgument(name, value));
  }
  input.now_unix_seconds = std::time(nullptr);
  return input;
}

}  // namespace witan
