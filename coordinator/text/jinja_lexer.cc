#include "coordinator/text/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/jinja_text.h"

namespace witan::jinja {

namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
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
    if (type == '%' && TakeRawBegin()) return LexRaw();
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

  // The offset behind `word` with whitespace around it, if that stands at
  // `begin`; else npos.
  size_t BehindWord(std::string_view word, size_t begin) const {
    std::string_view rest = std::string_view(source_).substr(begin);
    rest = Strip(rest, "", Side::kLeft);
    if (!rest.starts_with(word)) return std::string::npos;
    rest = Strip(rest.substr(word.size()), "", Side::kLeft);
    return source_.size() - rest.size();
  }

  // Takes what is left of "{% raw %}". Unlike behind other tags, a newline
  // behind it stays.
  bool TakeRawBegin() {
    const size_t end = BehindWord("raw", position_);
    if (end == std::string::npos) return false;
    const std::string_view rest = std::string_view(source_).substr(end);
    const bool strips = rest.starts_with("-%}");
    if (!strips && !rest.starts_with("%}")) return false;
    Advance(end + (strips ? 3 : 2));
    if (strips) SkipSpace();
    return true;
  }

  // Text up to "{% endraw %}", and that tag.
  absl::Status LexRaw() {
    const int first_line = line_;
    size_t tag = source_.find("{%", position_);
    for (; tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      const bool has_sign = sign == '-' || sign == '+';
      const size_t end = BehindWord("endraw", tag + (has_sign ? 3 : 2));
      if (end >= source_.size()) continue;
      const std::string_view rest = std::string_view(source_).substr(end);
      if (!rest.starts_with("%}") && !rest.starts_with("-%}") &&
          !rest.starts_with("+%}")) {
        continue;
      }
      std::string_view text =
          std::string_view(source_).substr(position_, tag - position_);
      if (sign == '-') {
        text = Strip(text, "", Side::kRight);
      } else if (sign != '+') {
        text = WithoutIndent(text);
      }
      if (!text.empty()) Emit(Token::Kind::kText, std::string(text));
      Advance(end);
      TakeTagEnd("%}", /*trims_newline=*/true);
      return absl::OkStatus();
    }
    return InvalidArgument("line {}: raw without endraw", first_line);
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
    if (const size_t end = NameEnd(); end > position_) {
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

  // Where the name that begins here ends; here if none does.
  size_t NameEnd() const {
    size_t end = position_;
    while (end < source_.size()) {
      size_t next = end;
      const char32_t character = DecodeUtf8(source_, &next);
      if (end == position_ ? !IsNameStart(character) : !IsNamePart(character)) {
        break;
      }
      end = next;
    }
    return end;
  }

  // Digits of `base` from `begin` on, with single _ between them; where they
  // end.
  size_t DigitsEnd(size_t begin, int base) const {
    size_t end = begin;
    while (end < source_.size()) {
      const bool skips = source_[end] == '_' && end > begin;
      const size_t at = end + (skips ? 1 : 0);
      const int digit = at < source_.size() ? HexDigit(source_[at]) : -1;
      if (digit < 0 || digit >= base) break;
      end = at + 1;
    }
    return end;
  }

  // Where the float that begins here ends; here if none does.
  size_t FloatEnd() const {
    if (position_ > 0 && source_[position_ - 1] == '.') return position_;
    const size_t integer_end = DigitsEnd(position_, 10);
    size_t end = integer_end;
    if (end < source_.size() && source_[end] == '.') {
      const size_t decimals_end = DigitsEnd(end + 1, 10);
      if (decimals_end > end + 1) end = decimals_end;
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const bool has_sign =
          end + 1 < source_.size() &&
          (source_[end + 1] == '+' || source_[end + 1] == '-');
      const size_t begin = end + (has_sign ? 2 : 1);
      const size_t exponent_end = DigitsEnd(begin, 10);
      if (exponent_end > begin) end = exponent_end;
    }
    return end > integer_end ? end : position_;
  }

  absl::Status LexNumber() {
    if (const size_t end = FloatEnd(); end > position_) {
      std::string digits = source_.substr(position_, end - position_);
      std::erase(digits, '_');
      Emit(Token::Kind::kFloat, std::move(digits));
      Advance(end);
      return absl::OkStatus();
    }
    int base = 10;
    size_t begin = position_;
    size_t end = position_;
    if (source_[position_] == '0' && position_ + 1 < source_.size()) {
      const char letter = source_[position_ + 1] | 0x20;
      base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    }
    if (base != 10) {
      begin = position_ + 2;
      if (begin < source_.size() && source_[begin] == '_') ++begin;
      end = DigitsEnd(begin, base);
    }
    if (end <= begin) {  // also a 0 with a letter behind it
      base = 10;
      begin = position_;
      // A number does not begin with 0, so "012" is a 0 and a 12.
      end = DigitsEnd(begin, source_[begin] == '0' ? 1 : 10);
    }
    std::string digits = source_.substr(begin, end - begin);
    std::erase(digits, '_');
    int64_t integer = 0;
    const auto [stop, error] = std::from_chars(
        digits.data(), digits.data() + digits.size(), integer, base);
    if (error != std::errc()) {
      return Error("integer {} is beyond 64 bits",
                   source_.substr(position_, end - position_));
    }
    Emit(Token::Kind::kInteger, fmt::format("{}", integer));
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
