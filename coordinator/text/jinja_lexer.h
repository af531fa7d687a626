#ifndef WITAN_COORDINATOR_TEXT_JINJA_LEXER_H_
#define WITAN_COORDINATOR_TEXT_JINJA_LEXER_H_

#include <absl/status/statusor.h>

#include <string>
#include <string_view>
#include <vector>

namespace witan::jinja {

struct Token {
  enum class Kind {
    kText,  // between tags, whitespace control applied
    kPrintBegin,
    kPrintEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,  // escapes replaced
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind = Kind::kEnd;
  std::string text;
  int line = 1;
};

// Cuts a template into tokens, with trim_blocks and lstrip_blocks on, as
// transformers sets them. InvalidArgument names the line. REQUIRES: `source`
// is UTF-8.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace witan::jinja

#endif  // WITAN_COORDINATOR_TEXT_JINJA_LEXER_H_
