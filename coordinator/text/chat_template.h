#ifndef WITAN_COORDINATOR_TEXT_CHAT_TEMPLATE_H_
#define WITAN_COORDINATOR_TEXT_CHAT_TEMPLATE_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace witan {

// What a template sees. Names are those of transformers' apply_chat_template.
struct ChatTemplateInput {
  // Array of objects, each with at least "role" and "content".
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  bool add_generation_prompt = true;
  // Tokenizer::special_tokens(): bos_token, eos_token and so on.
  std::vector<std::pair<std::string, std::string>> special_tokens;
  // Object of further variables (`enable_thinking`, `tools`). They replace
  // special tokens of the same name, but neither `messages` nor
  // `add_generation_prompt`.
  nlohmann::ordered_json arguments = nlohmann::ordered_json::object();
  // What strftime_now() formats, in UTC.
  int64_t now_unix_seconds = 0;
};

// A Jinja chat template, parsed once. It runs in a closed world: it reads the
// values it is given and writes text; it reaches no file, no attribute that is
// not data, no code. Steps, depth, memory and output are bounded
// (base/limits.h). Immutable; any number of threads may Render at once.
//
// It writes the bytes that transformers' apply_chat_template writes, with
// jinja2 3.1, or fails where that fails. Of the language it has for, if, set,
// with, macro, call, filter, raw, break, continue and generation; the filters
// and tests of jinja2 but those about HTML, URLs, files' sizes and chance; and
// the methods of str, list and dict that change nothing and yield text,
// numbers and lists. What it has not is refused: include, import, block and
// their like by Parse, as are unknown filters and tests (in the branches of an
// `if` by Render, when they are reached). Integers end at 64 bits, with an
// error.
class ChatTemplate {
 public:
  // InvalidArgument names the line and the cause.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(
      std::string_view source);

  // Of a model directory: chat_template.jinja if it exists, else
  // "chat_template" of tokenizer_config.json (a string, or a list of which the
  // one named "default" is taken). NotFound when the model has none.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Load(
      const std::string& directory);

  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // InvalidArgument when the template refuses the messages (raise_exception;
  // the message is the template's own) or fails on them, with the line;
  // ResourceExhausted when it exceeds a limit.
  absl::StatusOr<std::string> Render(const ChatTemplateInput& input) const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<const Program> program);

  std::unique_ptr<const Program> program_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_CHAT_TEMPLATE_H_
