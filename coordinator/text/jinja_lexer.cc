#include "coordinator/text/jinja_lexer.h"

#include <algorithm>
#include <array>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/jinja_text.h"

namespace witan::jinja {

namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
// All kinds of line ends as \n; the last one goes.
std::string UnifyLineEnds(std::string_view source) {
  std::string result;
  result.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      result += '\n';
    } else {
      result += source[i];
    }
  }
  if (result.ends_with('\n')) result.pop_back();
  return result;
}

int HexDigit(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (position_ < source_.size()) RETURN_IF_ERROR(LexText());
    Emit(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool At(std::string_view text) const {
    return std::string_view(source_).substr(position_).starts_with(text);
  }

  void Emit(Token::Kind kind, std::string text) {
    tokens_.push_back({kind, std::move(text), line_});
  }

  // Moves to `end`, counting lines.
  void Advance(size_t end) {
    line_ += static_cast<int>(
        std::count(source_.begin() + position_, source_.begin() + end, '\n'));
    at_line_start_ = end > position_ && source_[end - 1] == '\n';
    position_ = end;
  }

  void SkipSpace() {
    const std::string_view rest = std::string_view(source_).substr(position_);
    Advance(source_.size() - Strip(rest, "", Side::kLeft).size());
  }

  template <typename... Args>
  absl::Status Error(fmt::format_string<Args...> format, Args&&... args) {
    return InvalidArgument("line {}: {}", line_,
                           fmt::format(format, std::forward<Args>(args)...));
  }

  // Text up to the next tag, and that tag.
  absl::Status LexText() {
    size_t tag = source_.find('{', position_);
    while (tag != std::string::npos && tag + 1 < source_.size() &&
           source_[tag + 1] != '{' && source_[tag + 1] != '%' &&
           source_[tag + 1] != '#') {
      tag = source_.find('{', tag + 1);
    }
    if (tag == std::string::npos || tag + 1 == source_.size()) {
      tag = source_.size();
    }
    std::string_view text =
        std::string_view(source_).substr(position_, tag - position_);
    if (tag == source_.size()) {
      if (!text.empty()) Emit(Token::Kind::kText, std::string(text));
      Advance(tag);
      return absl::OkStatus();
    }
    const char type = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign == '-') {
      text = Strip(text, "", Side::kRight);
    } else if (sign != '+' && type != '{') {
      text = WithoutIndent(text);
    }
    if (!text.empty()) Emit(Token::Kind::kText, std::string(text));
    Advance(tag + (sign == '-' || sign == '+' ? 3 : 2));
    if (type == '#') return LexComment();
    return LexTag(type == '{');
  }

  // lstrip_blocks: spaces before a tag that is the first on its line go.
  std::string_view WithoutIndent(std::string_view text) const {
    const size_t newline = text.rfind('\n');
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    const bool is_line_start = line > 0 || at_line_start_;
    if (is_line_start && Strip(text.substr(line), "", Side::kLeft).empty()) {
      return text.substr(0, line);
    }
    return text;
  }

  // Takes the end of a tag ("%}") with its sign, and what goes with it; false
  // if it does not stand here.
  bool TakeTagEnd(std::string_view end, bool trims_newline) {
    const char sign = source_[position_];
    const bool has_sign = sign == '-' || (sign == '+' && trims_newline);
    const std::string_view rest =
        std::string_view(source_).substr(position_ + (has_sign ? 1 : 0));
    if (!rest.starts_with(end)) return false;
    Advance(position_ + (has_sign ? 1 : 0) + end.size());
    if (sign == '-') {
      const bool stays_at_start = at_line_start_;
      SkipSpace();
      at_line_start_ = at_line_start_ || stays_at_start;
    } else if (!has_sign && trims_newline && At("\n")) {
      Advance(position_ + 1);
    }
    return true;
  }

  absl::Status LexComment() {
    const int first_line = line_;
    const size_t end = source_.find("#}", position_);
    if (end == std::string::npos) {
      return InvalidArgument("line {}: comment without an end", first_line);
    }
    const char sign = end > position_ ? source_[end - 1] : '\0';
    Advance(sign == '-' || sign == '+' ? end - 1 : end);
    TakeTagEnd("#}", /*trims_newline=*/true);
    return absl::OkStatus();
  }

  absl::Status LexTag(bool is_print) {
    Emit(is_print ? Token::Kind::kPrintBegin : Token::Kind::kBlockBegin, "");
    const std::string_view end = is_print ? "}}" : "%}";
    std::string brackets;
    while (true) {
      SkipSpace();
      if (position_ == source_.size()) {
        return Error("unexpected end of template; expected '{}'", end);
      }
      if (brackets.empty()) {
        const int line = line_;
        if (TakeTagEnd(end, /*trims_newline=*/!is_print)) {
          tokens_.push_back(
              {is_print ? Token::Kind::kPrintEnd : Token::Kind::kBlockEnd, "",
               line});
          return absl::OkStatus();
        }
      }
      RETURN_IF_ERROR(LexToken(&brackets));
    }
  }

  absl::Status LexToken(std::string* brackets) {
    const char c = source_[position_];
    if (c == '\'' || c == '"') return LexString();
    if (IsDigit(c)) return LexNumber();
    if (IsNameStart(c)) {
      size_t end = position_;
      while (end < source_.size() &&
             (IsNameStart(source_[end]) || IsDigit(source_[end]))) {
        ++end;
      }
      if (end - position_ > kMaxNameBytes) {
        return InvalidArgument("line {}: a name of more than {} bytes", line_,
                               kMaxNameBytes);
      }
      Emit(Token::Kind::kName, source_.substr(position_, end - position_));
      Advance(end);
      return absl::OkStatus();
    }
    constexpr std::array<std::string_view, 25> kOperators = {
        "==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~", "|",
        ".",  ",",  ":",  "(",  ")",  "[",  "]", "{", "}", "<", ">", "="};
    for (std::string_view op : kOperators) {
      if (!At(op)) continue;
      if (c == '(' || c == '[' || c == '{') brackets->push_back(c);
      if (c == ')' || c == ']' || c == '}') {
        const char open = c == ')' ? '(' : c == ']' ? '[' : '{';
        if (brackets->empty() || brackets->back() != open) {
          return Error("unexpected '{}'", c);
        }
        brackets->pop_back();
      }
      Emit(Token::Kind::kOperator, std::string(op));
      Advance(position_ + op.size());
      return absl::OkStatus();
    }
    const Utf8Step step = NextUtf8(std::string_view(source_).substr(position_));
    return Error("unexpected character '{}'",
                 source_.substr(position_, step.num_bytes));
  }

  absl::Status LexNumber() {
    size_t end = position_;
    const auto take_digits = [&] {
      while (end < source_.size() &&
             (IsDigit(source_[end]) ||
              (source_[end] == '_' && end + 1 < source_.size() &&
               IsDigit(source_[end + 1])))) {
        ++end;
      }
    };
    const auto digit_at = [&](size_t i) {
      return i < source_.size() && IsDigit(source_[i]);
    };
    take_digits();
    bool is_float = false;
    if (end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
      is_float = true;
      ++end;
      take_digits();
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const bool has_sign =
          end + 1 < source_.size() &&
          (source_[end + 1] == '+' || source_[end + 1] == '-');
      if (digit_at(end + (has_sign ? 2 : 1))) {
        is_float = true;
        end += has_sign ? 2 : 1;
        take_digits();
      }
    }
    std::string digits = source_.substr(position_, end - position_);
    std::erase(digits, '_');
    const bool has_leading_zero =
        !is_float && digits.size() > 1 && digits[0] == '0' &&
        digits.find_first_not_of('0') != std::string::npos;
    if (has_leading_zero ||
        (end < source_.size() && IsNameStart(source_[end]))) {
      return Error("'{}' is not a number",
                   source_.substr(position_, end + 1 - position_));
    }
    Emit(is_float ? Token::Kind::kFloat : Token::Kind::kInteger,
         std::move(digits));
    Advance(end);
    return absl::OkStatus();
  }

  absl::Status LexString() {
    const char quote = source_[position_];
    const int first_line = line_;
    size_t end = position_ + 1;
    std::string text;
    while (end < source_.size() && source_[end] != quote) {
      if (source_[end] == '\\') {
        RETURN_IF_ERROR(Unescape(&end, &text));
      } else {
        text += source_[end++];
      }
    }
    if (end >= source_.size()) {
      return InvalidArgument("line {}: string without an end", first_line);
    }
    Emit(Token::Kind::kString, std::move(text));
    Advance(end + 1);
    return absl::OkStatus();
  }

  // The escape at `*end`, which moves behind it.
  absl::Status Unescape(size_t* end, std::string* text) {
    constexpr std::string_view kLetters = "abfnrtv\\'\"\n";
    constexpr std::string_view kMeanings("\a\b\f\n\r\t\v\\'\"", 10);
    if (*end + 1 >= source_.size()) return Error("string without an end");
    const char letter = source_[*end + 1];
    const size_t index = kLetters.find(letter);
    if (index != std::string_view::npos) {
      if (index < kMeanings.size()) *text += kMeanings[index];
      *end += 2;
      return absl::OkStatus();
    }
    if (letter >= '0' && letter <= '7') {
      size_t i = *end + 1;
      char32_t code = 0;
      while (i < source_.size() && i < *end + 4 && source_[i] >= '0' &&
             source_[i] <= '7') {
        code = code * 8 + static_cast<char32_t>(source_[i++] - '0');
      }
      AppendUtf8(code, text);
      *end = i;
      return absl::OkStatus();
    }
    const size_t num_digits = letter == 'x'   ? 2
                              : letter == 'u' ? 4
                              : letter == 'U' ? 8
                                              : 0;
    if (num_digits == 0) {
      if (letter == 'N') return Error("escape \\N is not supported");
      *text += '\\';  // an unknown escape stands for itself
      *end += 1;
      return absl::OkStatus();
    }
    uint64_t code = 0;
    for (size_t i = 0; i < num_digits; ++i) {
      const size_t at = *end + 2 + i;
      const int digit = at < source_.size() ? HexDigit(source_[at]) : -1;
      if (digit < 0) {
        return Error("escape \\{} needs {} hexadecimal digits", letter,
                     num_digits);
      }
      code = code * 16 + static_cast<uint64_t>(digit);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
      return Error("escape \\{} names no character", letter);
    }
    AppendUtf8(static_cast<char32_t>(code), text);
    *end += 2 + num_digits;
    return absl::OkStatus();
  }

  std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  return Lexer(UnifyLineEnds(source)).Run();
}

}  // namespace witan::jinja
