#include "coordinator/text/chat_template.h"

#include <algorithm>
#include <utility>

#include "base/file.h"
#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/jinja_interpreter.h"
#include "coordinator/text/jinja_parser.h"
#include "coordinator/text/tokenizer_config.h"

namespace witan {

namespace {

constexpr std::string_view kErrorPrefix = "chat template";

// Deeper values would recurse too deep when they are converted or destroyed.
bool IsNestedTooDeep(const nlohmann::ordered_json& json, int depth) {
  if (!json.is_structured()) return false;
  if (depth == kMaxJsonDepth) return true;
  return std::any_of(json.begin(), json.end(), [depth](const auto& member) {
    return IsNestedTooDeep(member, depth + 1);
  });
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Program> program)
    : program_(std::move(program)) {}

ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(
    std::string_view source) {
  if (source.size() > kMaxChatTemplateBytes) {
    return InvalidArgument("{}: {} bytes exceed the limit of {}", kErrorPrefix,
                           source.size(), kMaxChatTemplateBytes);
  }
  if (!IsValidUtf8(source)) {
    return InvalidArgument("{}: not valid UTF-8 at byte {}", kErrorPrefix,
                           ValidUtf8Prefix(source));
  }
  absl::StatusOr<jinja::Body> body = jinja::ParseTemplate(source);
  if (!body.ok()) return Annotate(body.status(), kErrorPrefix);
  return std::unique_ptr<ChatTemplate>(
      new ChatTemplate(std::make_unique<Program>(Program{*std::move(body)})));
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Load(
    const std::string& directory) {
  const std::string jinja_path = directory + "/chat_template.jinja";
  absl::StatusOr<std::string> source =
      ReadFile(jinja_path, kMaxChatTemplateBytes);
  if (source.ok()) {
    absl::StatusOr<std::unique_ptr<ChatTemplate>> parsed = Parse(*source);
    if (!parsed.ok()) return Annotate(parsed.status(), jinja_path);
    return parsed;
  }
  if (!absl::IsNotFound(source.status())) return source.status();
  const std::string config_path = directory + "/tokenizer_config.json";
  absl::StatusOr<std::string> json =
      ReadFile(config_path, kMaxTokenizerFileBytes);
  if (!json.ok() && !absl::IsNotFound(json.status())) return json.status();
  absl::StatusOr<TokenizerConfig> config =
      TokenizerConfig::Parse(json.ok() ? *json : "", "");
  if (!config.ok()) return Annotate(config.status(), directory);
  if (!config->chat_template.has_value()) {
    return NotFound(
        "{}: the model has no chat template (neither chat_template.jinja nor "
        "\"chat_template\" in tokenizer_config.json); send a prompt instead of "
        "messages",
        directory);
  }
  absl::StatusOr<std::unique_ptr<ChatTemplate>> parsed =
      Parse(*config->chat_template);
  if (!parsed.ok()) return Annotate(parsed.status(), config_path);
  return parsed;
}

absl::StatusOr<std::string> ChatTemplate::Render(
    const ChatTemplateInput& input) const {
  if (IsNestedTooDeep(input.messages, 0) ||
      IsNestedTooDeep(input.arguments, 0)) {
    return InvalidArgument("{}: values nested deeper than {} levels",
                           kErrorPrefix, kMaxJsonDepth);
  }
  if (!input.messages.is_array() || !input.arguments.is_object()) {
    return InvalidArgument(
        "{}: messages must be an array and arguments an object", kErrorPrefix);
  }
  std::vector<std::pair<std::string, jinja::Value>> variables;
  // Later ones replace earlier ones of the same name.
  const auto add = [&](std::string_view name,
                       const nlohmann::ordered_json& json) {
    absl::StatusOr<jinja::Value> value = jinja::Value::FromJson(json);
    if (!value.ok()) {
      return Annotate(value.status(),
                      fmt::format("{}: {}", kErrorPrefix, name));
    }
    variables.emplace_back(name, *std::move(value));
    return absl::OkStatus();
  };
  for (const char* name : {"tools", "documents"}) {
    RETURN_IF_ERROR(add(name, nullptr));
  }
  for (const auto& [name, spelling] : input.special_tokens) {
    RETURN_IF_ERROR(add(name, spelling));
  }
  for (const auto& [name, value] : input.arguments.items()) {
    RETURN_IF_ERROR(add(name, value));
  }
  RETURN_IF_ERROR(add("messages", input.messages));
  RETURN_IF_ERROR(add("add_generation_prompt", input.add_generation_prompt));
  jinja::Interpreter interpreter(input.now_unix_seconds);
  absl::StatusOr<std::string> text =
      interpreter.Render(program_->body, std::move(variables));
  if (!text.ok()) return Annotate(text.status(), kErrorPrefix);
  return text;
}

}  // namespace witan
