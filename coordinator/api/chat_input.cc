#include "coordinator/api/chat_input.h"

#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "coordinator/text/template_argument.h"
#include "proto/rpc_status.h"

namespace witan {

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
    absl::StatusOr<ordered_json> argument = ParseTemplateArgument(value);
    if (!argument.ok()) {
      return BlameField(argument.status(),
                        fmt::format("template_arguments[{}]", name));
    }
    input.arguments[name] = *std::move(argument);
  }
  input.now_unix_seconds = std::time(nullptr);
  return input;
}

}  // namespace witan
