#include "coordinator/text/regex_syntax.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/utf8.h"

namespace witan {

namespace {

// The members of Oniguruma's classes, to stand inside brackets.
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside of brackets \w has six members more: ² ³ ¹ ¼ ½ ¾.
constexpr std::string_view kFractions = R"(\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
constexpr std::string_view kSpace = R"(\p{White_Space})";
constexpr std::string_view kHexDigit = R"(\p{ASCII_Hex_Digit})";

std::string_view MembersOfPosixClass(std::string_view name) {
  if (name == "alnum") return R"(\p{Alphabetic}\p{Nd})";
  if (name == "alpha") return R"(\p{Alphabetic})";
  if (name == "digit") return R"(\p{Nd})";
  if (name == "lower") return R"(\p{Lowercase})";
  if (name == "space") return kSpace;
  if (name == "upper") return R"(\p{Uppercase})";
  if (name == "word") return kWord;
  if (name == "xdigit") return kHexDigit;
  return {};
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHexDigit(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
bool IsAsciiLetter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Both libraries take these after a backslash for themselves.
bool IsPunctuation(char32_t character) {
  return character > 0x20 && character < 0x7F &&
         !IsDigit(static_cast<char>(character)) &&
         !IsAsciiLetter(static_cast<char>(character));
}

bool IsScript(std::string_view name) {
  const std::string pattern = fmt::format("\\p{{sc:{}}}", name);
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()),
                                   pattern.size(), PCRE2_UTF | PCRE2_UCP,
                                   &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

std::string FoldCase(char32_t character) {
  utf8proc_int32_t folded[8];
  int boundary_state = 0;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(character), folded,
                              8, UTF8PROC_CASEFOLD, &boundary_state);
  std::string text;
  for (utf8proc_ssize_t i = 0; i < std::min<utf8proc_ssize_t>(count, 8); ++i) {
    AppendUtf8(static_cast<char32_t>(folded[i]), &text);
  }
  return text;
}

struct Folding {
  char32_t character;
  std::string folded;
};

// The characters that fold to several ("ß" to "ss"), by ascending character.
const std::vector<Folding>& LongFoldings() {
  static const auto& foldings = *new std::vector<Folding>([] {
    std::vector<Folding> found;
    // All of them lie in the first plane.
    for (char32_t character = 0x80; character <= 0xFFFF; ++character) {
      if (character >= 0xD800 && character <= 0xDFFF) continue;
      std::string folded = FoldCase(character);
      if (CountUtf8(folded) > 1) {
        found.push_back({character, std::move(folded)});
      }
    }
    return found;
  }());
  return foldings;
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (position_ < pattern_.size()) {
      RETURN_IF_ERROR(in_class_ ? ClassItem() : Item());
    }
    RETURN_IF_ERROR(EndLiterals());
    return std::move(output_);
  }

 private:
  std::string_view rest() const { return pattern_.substr(position_); }
  bool ignores_case() const { return groups_.back().ignores_case; }

  void Copy(size_t num_bytes) {
    output_ += rest().substr(0, num_bytes);
    position_ += num_bytes;
  }

  static absl::Status NotSupported(std::string_view what) {
    return InvalidArgument("{} is not supported", what);
  }

  // --- Outside of classes --------------------------------------------------

  absl::Status Item() {
    const char c = pattern_[position_];
    switch (c) {
      case '\\':
        return Escape();
      case '[':
        return OpenClass();
      case '(':
        return OpenGroup();
      case ')':
        operand_begin_ = groups_.back().begin;
        if (groups_.size() > 1) groups_.pop_back();
        Copy(1);
        return absl::OkStatus();
      case '{':
        return Interval();
      case '.':
      case '|':
      case '*':
      case '+':
      case '?':
      case '^':
      case '$':
        RETURN_IF_ERROR(EndLiterals());
        operand_begin_ = output_.size();
        Copy(1);
        return absl::OkStatus();
      default:
        return Literal(DecodeUtf8(pattern_, &position_));
    }
  }

  absl::Status Literal(char32_t character) {
    operand_begin_ = output_.size();
    if (IsPunctuation(character)) output_ += '\\';
    AppendUtf8(character, &output_);
    if (!ignores_case()) return EndLiterals();
    literals_ += FoldCase(character);
    return absl::OkStatus();
  }

  // Literals under the flag i that may stand next to each other, even if in
  // different groups, must not spell what one character folds to.
  absl::Status EndLiterals() {
    if (literals_.empty()) return absl::OkStatus();
    const std::string literals = std::exchange(literals_, {});
    for (const Folding& folding : LongFoldings()) {
      if (literals.find(folding.folded) == std::string::npos) continue;
      return InvalidArgument(
          "'{}' under the flag i, which is also U+{:04X}, is not supported",
          folding.folded, static_cast<uint32_t>(folding.character));
    }
    return absl::OkStatus();
  }

  absl::Status OpenGroup() {
    groups_.push_back({ignores_case(), output_.size()});
    if (rest().starts_with("(*")) return NotSupported("'(*'");
    if (!rest().starts_with("(?")) {
      Copy(1);
      return absl::OkStatus();
    }
    for (std::string_view begin :
         {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
      if (!rest().starts_with(begin)) continue;
      if (begin != "(?:") RETURN_IF_ERROR(EndLiterals());
      Copy(begin.size());
      return absl::OkStatus();
    }
    return Flags();
  }

  // (?im-im) and (?im-im:
  absl::Status Flags() {
    const size_t begin = position_;
    output_ += "(?";
    bool turns_on = true;
    bool ignores = ignores_case();
    size_t end = begin + 2;
    for (; end < pattern_.size() && !IsFlagsEnd(pattern_[end]); ++end) {
      const char flag = pattern_[end];
      if (flag == '-' && turns_on) {
        turns_on = false;
      } else if (flag == 'i') {
        ignores = turns_on;
      } else if (flag != 'm') {
        return NotSupported(
            fmt::format("group '{}'", pattern_.substr(begin, end + 1 - begin)));
      }
      output_ += flag == 'm' ? 's' : flag;
    }
    position_ = end;
    if (rest().starts_with(':')) {
      groups_.back().ignores_case = ignores;
    } else {
      // Oniguruma takes the rest of the group, with the '|' in it, for one
      // operand then.
      if (begin != 0) {
        return InvalidArgument(
            "flags behind the beginning need a group of their own");
      }
      groups_ = {{ignores, 0}};
    }
    if (position_ < pattern_.size()) Copy(1);
    return absl::OkStatus();
  }

  static bool IsFlagsEnd(char c) { return c == ':' || c == ')'; }

  // {n}, {n,}, {n,m}, {,m}; anything else that begins with a brace is text.
  absl::Status Interval() {
    size_t end = position_ + 1;
    const auto take_digits = [&] {
      const size_t begin = end;
      while (end < pattern_.size() && IsDigit(pattern_[end])) ++end;
      return pattern_.substr(begin, end - begin);
    };
    const std::string_view low = take_digits();
    const bool is_range = pattern_.substr(end).starts_with(',');
    if (is_range) ++end;
    const std::string_view high = is_range ? take_digits() : low;
    if ((low.empty() && high.empty()) ||
        !pattern_.substr(end).starts_with('}')) {
      return Literal(DecodeUtf8(pattern_, &position_));
    }
    position_ = end + 1;
    output_ += fmt::format("{{{}", low.empty() ? "0" : low);
    if (is_range) output_ += fmt::format(",{}", high);
    output_ += '}';
    // Oniguruma repeats the repetition where PCRE2 would make it possessive or
    // lazy.
    if (rest().starts_with('+') || (rest().starts_with('?') && !is_range)) {
      output_.insert(operand_begin_, "(?:");
      output_ += ')';
    }
    return absl::OkStatus();
  }

  absl::Status Escape() {
    operand_begin_ = output_.size();
    if (position_ + 1 == pattern_.size())
      return NotSupported("'\\' at the end");
    const char letter = pattern_[position_ + 1];
    switch (letter) {
      case 'W':
        RETURN_IF_ERROR(RefuseUnderI("\\W"));
        output_ += fmt::format("[^{}{}]", kWord, kFractions);
        position_ += 2;
        return EndLiterals();
      case 'S':
        output_ += R"(\P{White_Space})";
        position_ += 2;
        return EndLiterals();
      case 'A':
      case 'N':
      case 'Z':
      case 'z':
        Copy(2);
        return EndLiterals();
      default:
        break;
    }
    std::string_view members;
    RETURN_IF_ERROR(MembersOfEscape(&members));
    if (!members.empty()) {
      output_ += fmt::format("[{}{}]", members,
                             letter == 'w' ? kFractions : std::string_view());
      return EndLiterals();
    }
    if (letter == 'p' || letter == 'P') {
      RETURN_IF_ERROR(EndLiterals());
      return Property();
    }
    ASSIGN_OR_RETURN(const char32_t character, EscapedCharacter());
    return Literal(character);
  }

  // --- Inside of classes ---------------------------------------------------

  absl::Status OpenClass() {
    RETURN_IF_ERROR(EndLiterals());
    operand_begin_ = output_.size();
    in_class_ = true;
    Copy(1);
    if (rest().starts_with('^')) Copy(1);
    range_begin_.reset();
    is_range_ = false;
    // A ']' that is first is a member.
    if (rest().starts_with(']'))
      return Member(DecodeUtf8(pattern_, &position_));
    return absl::OkStatus();
  }

  absl::Status ClassItem() {
    if (rest().starts_with("[:")) return PosixClass();
    if (rest().starts_with('[')) return NotSupported("a class in a class");
    if (rest().starts_with("&&")) return NotSupported("'&&' in a class");
    if (rest().starts_with(']')) {
      in_class_ = false;
      Copy(1);
      return absl::OkStatus();
    }
    if (rest().starts_with('\\')) return ClassEscape();
    const bool can_begin_range = range_begin_.has_value() && !is_range_;
    if (rest().starts_with('-') && can_begin_range) {
      Copy(1);
      is_range_ = true;
      return absl::OkStatus();
    }
    return Member(DecodeUtf8(pattern_, &position_));
  }

  absl::Status Member(char32_t character) {
    if (IsPunctuation(character)) output_ += '\\';
    AppendUtf8(character, &output_);
    const char32_t low = is_range_ ? *range_begin_ : character;
    if (is_range_) {
      range_begin_.reset();
    } else {
      range_begin_ = character;
    }
    is_range_ = false;
    if (!ignores_case()) return absl::OkStatus();
    for (const Folding& folding : LongFoldings()) {
      if (folding.character < low || folding.character > character) continue;
      return InvalidArgument(
          "U+{:04X} in a class under the flag i, which is also '{}', is not "
          "supported",
          static_cast<uint32_t>(folding.character), folding.folded);
    }
    return absl::OkStatus();
  }

  absl::Status PosixClass() {
    const size_t end = pattern_.find(":]", position_ + 2);
    const std::string_view name =
        end == std::string_view::npos
            ? std::string_view()
            : pattern_.substr(position_ + 2, end - position_ - 2);
    const std::string_view members = MembersOfPosixClass(name);
    if (members.empty()) return NotSupported(fmt::format("'[:{}:]'", name));
    RETURN_IF_ERROR(RefuseUnderI("a POSIX class"));
    RETURN_IF_ERROR(EndMember());
    output_ += members;
    position_ = end + 2;
    return absl::OkStatus();
  }

  // What follows is no single character: it cannot bound a range.
  absl::Status EndMember() {
    if (is_range_) return NotSupported("a range up to a class");
    range_begin_.reset();
    return absl::OkStatus();
  }

  absl::Status ClassEscape() {
    if (position_ + 1 == pattern_.size())
      return NotSupported("'\\' at the end");
    const char letter = pattern_[position_ + 1];
    std::string_view members;
    RETURN_IF_ERROR(MembersOfEscape(&members));
    if (letter == 'S') {
      members = R"(\P{White_Space})";
      position_ += 2;
    }
    if (!members.empty()) {
      output_ += members;
      return EndMember();
    }
    if (letter == 'p' || letter == 'P') {
      RETURN_IF_ERROR(EndMember());
      return Property();
    }
    if (letter == 'b') {
      position_ += 2;
      return Member('\b');
    }
    ASSIGN_OR_RETURN(const char32_t character, EscapedCharacter());
    return Member(character);
  }

  // --- Everywhere ----------------------------------------------------------

  // Oniguruma adds the characters that members fold to.
  absl::Status RefuseUnderI(std::string_view what) {
    if (!ignores_case()) return absl::OkStatus();
    return NotSupported(fmt::format("{} under the flag i", what));
  }

  // Takes an escape that stands for a class; `members` stays empty if none
  // stands here.
  absl::Status MembersOfEscape(std::string_view* members) {
    switch (pattern_[position_ + 1]) {
      case 's':
        *members = kSpace;
        break;
      case 'd':
        *members = R"(\p{Nd})";
        break;
      case 'D':
        *members = R"(\P{Nd})";
        break;
      case 'h':
        *members = kHexDigit;
        break;
      case 'w':
        RETURN_IF_ERROR(RefuseUnderI("\\w"));
        *members = kWord;
        break;
      default:
        return absl::OkStatus();
    }
    position_ += 2;
    return absl::OkStatus();
  }

  // \p{Name}, \p{^Name} and \P{Name}. PCRE2 takes the name of a script for the
  // script with its extensions, unless "sc:" stands before it.
  absl::Status Property() {
    const size_t end = pattern_.find('}', position_);
    if (pattern_.substr(position_ + 2, 1) != "{" ||
        end == std::string_view::npos) {
      return NotSupported("\\p without braces");
    }
    RETURN_IF_ERROR(RefuseUnderI("\\p"));
    const size_t name_begin =
        position_ + (pattern_.substr(position_ + 3, 1) == "^" ? 4 : 3);
    const std::string_view name = pattern_.substr(name_begin, end - name_begin);
    if (name.find_first_of(":=&") != std::string_view::npos) {
      return NotSupported(fmt::format("property '{}'", name));
    }
    output_ += pattern_.substr(position_, name_begin - position_);
    if (IsScript(name)) output_ += "sc:";
    output_ += name;
    output_ += '}';
    position_ = end + 1;
    return absl::OkStatus();
  }

  // The character that an escape stands for.
  absl::StatusOr<char32_t> EscapedCharacter() {
    const char letter = pattern_[position_ + 1];
    constexpr std::string_view kLetters = "nrtfaev";
    constexpr std::string_view kMeanings = "\n\r\t\f\a\x1B\v";
    const size_t index = kLetters.find(letter);
    if (index != std::string_view::npos) {
      position_ += 2;
      return static_cast<char32_t>(kMeanings[index]);
    }
    if (letter == 'x' || letter == 'u') return NumberedCharacter();
    if (IsAsciiLetter(letter) || IsDigit(letter)) {
      return NotSupported(fmt::format("\\{}", letter));
    }
    ++position_;
    return DecodeUtf8(pattern_, &position_);
  }

  // \xHH, \x{H...} and \uHHHH. Oniguruma takes \x80 and above for bytes.
  absl::StatusOr<char32_t> NumberedCharacter() {
    const bool has_braces = rest().starts_with("\\x{");
    const size_t max_digits = has_braces ? 8 : rest()[1] == 'x' ? 2 : 4;
    size_t end = position_ + (has_braces ? 3 : 2);
    const size_t begin = end;
    char32_t character = 0;
    while (end < pattern_.size() && end - begin < max_digits &&
           IsHexDigit(pattern_[end])) {
      const char c = pattern_[end++];
      character =
          character * 16 +
          static_cast<char32_t>(IsDigit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    const bool is_complete =
        has_braces ? end > begin && pattern_.substr(end).starts_with('}')
                   : end - begin == max_digits;
    const bool is_byte = max_digits == 2 && character >= 0x80;
    if (!is_complete || is_byte || character > 0x10FFFF ||
        (character >= 0xD800 && character <= 0xDFFF)) {
      return NotSupported(
          fmt::format("'{}'", pattern_.substr(position_, end - position_)));
    }
    position_ = end + (has_braces ? 1 : 0);
    return character;
  }

  std::string_view pattern_;
  size_t position_ = 0;
  std::string output_;
  struct Group {
    bool ignores_case = false;  // the flag i is on
    size_t begin = 0;           // in output_
  };
  // Those that are open, the pattern itself first.
  std::vector<Group> groups_ = {Group()};
  size_t operand_begin_ = 0;  // in output_, of what a quantifier repeats
  std::string literals_;      // folded, while the flag i is on
  bool in_class_ = false;
  std::optional<char32_t> range_begin_;
  bool is_range_ = false;  // a '-' stands behind range_begin_
};

}  // namespace

absl::StatusOr<std::string> TranslatePattern(std::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace witan
