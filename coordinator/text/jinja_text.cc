#include "coordinator/text/jinja_text.h"

#include <fmt/format.h>
#include <string.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/jinja_value.h"

namespace witan::jinja {

namespace {

constexpr size_t kNotFound = std::string_view::npos;

utf8proc_category_t CategoryOf(char32_t character) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(character));
}

constexpr char32_t kSharpS = 0xDF;  // ß has no capital of its own in Python

bool IsCased(char32_t character) {
  const auto category = CategoryOf(character);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LM;
}

void AppendMapped(char32_t character, utf8proc_int32_t (*map)(utf8proc_int32_t),
                  std::string* text) {
  AppendUtf8(
      static_cast<char32_t>(map(static_cast<utf8proc_int32_t>(character))),
      text);
}

bool IsRemoved(char32_t character, std::string_view removed) {
  if (removed.empty()) return IsPythonSpace(character);
  size_t offset = 0;
  while (offset < removed.size()) {
    if (DecodeUtf8(removed, &offset) == character) return true;
  }
  return false;
}

size_t CharacterBefore(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
  return begin;
}

bool IsPrintable(char32_t character) {
  if (character == ' ') return true;
  switch (CategoryOf(character)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
      return false;
    default:
      return true;
  }
}

}  // namespace

// str.isspace(): White_Space and the four ASCII separators.
bool IsPythonSpace(char32_t character) {
  return IsWhiteSpace(character) || (character >= 0x1C && character <= 0x1F);
}

bool IsLetter(char32_t character) {
  const auto category = CategoryOf(character);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsDecimal(char32_t character) {
  return CategoryOf(character) == UTF8PROC_CATEGORY_ND;
}

bool IsNumeric(char32_t character) {
  const auto category = CategoryOf(character);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool IsUpper(char32_t character) {
  return CategoryOf(character) == UTF8PROC_CATEGORY_LU;
}

bool IsLower(char32_t character) {
  return CategoryOf(character) == UTF8PROC_CATEGORY_LL;
}

bool IsNameStart(char32_t character) {
  return character == '_' || IsLetter(character) ||
         CategoryOf(character) == UTF8PROC_CATEGORY_NL;
}

bool IsNamePart(char32_t character) {
  if (IsNameStart(character) || IsDecimal(character)) return true;
  const auto category = CategoryOf(character);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_PC;
}

size_t FindText(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return kNotFound;
  if (needle.empty()) return from;
  if (needle.size() == 1) return text.find(needle.front(), from);
  // Unlike std::string_view::find, memmem is linear on every input.
  const void* found = memmem(text.data() + from, text.size() - from,
                             needle.data(), needle.size());
  if (found == nullptr) return kNotFound;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

size_t FindTextFromRight(std::string_view text, std::string_view needle) {
  if (needle.size() > text.size()) return kNotFound;
  const std::string reversed_text(text.rbegin(), text.rend());
  const std::string reversed_needle(needle.rbegin(), needle.rend());
  const size_t found = FindText(reversed_text, reversed_needle, 0);
  return found == kNotFound ? kNotFound : text.size() - found - needle.size();
}

std::string_view Strip(std::string_view text, std::string_view removed,
                       Side side) {
  size_t begin = 0;
  size_t end = text.size();
  while (side != Side::kRight && begin < end) {
    size_t next = begin;
    if (!IsRemoved(DecodeUtf8(text, &next), removed)) break;
    begin = next;
  }
  while (side != Side::kLeft && begin < end) {
    const size_t last = CharacterBefore(text, end);
    size_t offset = last;
    if (!IsRemoved(DecodeUtf8(text, &offset), removed)) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}

std::string ToUpper(std::string_view text) {
  std::string result;
  size_t offset = 0;
  while (offset < text.size()) {
    const char32_t character = DecodeUtf8(text, &offset);
    if (character == kSharpS) {
      result += "SS";
    } else {
      AppendMapped(character, utf8proc_toupper, &result);
    }
  }
  return result;
}

std::string ToLower(std::string_view text) {
  std::string result;
  size_t offset = 0;
  while (offset < text.size()) {
    AppendMapped(DecodeUtf8(text, &offset), utf8proc_tolower, &result);
  }
  return result;
}

std::string ToCaseFold(std::string_view text) {
  return ReplaceText(ToLower(text), "\u00df", "ss", -1);
}

std::string Capitalize(std::string_view text) {
  if (text.empty()) return {};
  size_t offset = 0;
  std::string result;
  AppendMapped(DecodeUtf8(text, &offset), utf8proc_totitle, &result);
  return result + ToLower(text.substr(offset));
}

std::string ToTitle(std::string_view text) {
  std::string result;
  bool in_word = false;
  size_t offset = 0;
  while (offset < text.size()) {
    const char32_t character = DecodeUtf8(text, &offset);
    AppendMapped(character, in_word ? utf8proc_tolower : utf8proc_totitle,
                 &result);
    in_word = IsCased(character);
  }
  return result;
}

std::string ToTitleWords(std::string_view text) {
  std::string result;
  bool in_word = false;
  size_t offset = 0;
  while (offset < text.size()) {
    const char32_t character = DecodeUtf8(text, &offset);
    AppendMapped(character, in_word ? utf8proc_tolower : utf8proc_toupper,
                 &result);
    in_word = !IsPythonSpace(character) && character != '-' &&
              character != '(' && character != '{' && character != '[' &&
              character != '<';
  }
  return result;
}

std::string ReplaceText(std::string_view text, std::string_view old,
                        std::string_view replacement, int64_t max_replaced) {
  std::string result;
  size_t begin = 0;
  for (int64_t i = 0; i != max_replaced; ++i) {
    size_t end = begin;
    if (old.empty()) {
      // Between all characters and at both ends.
      if (i > 0) {
        if (begin == text.size()) break;
        DecodeUtf8(text, &end);
      }
    } else {
      end = FindText(text, old, begin);
      if (end == kNotFound) break;
    }
    result += text.substr(begin, end - begin);
    result += replacement;
    begin = end + old.size();
  }
  result += text.substr(begin);
  return result;
}

absl::StatusOr<std::vector<std::string>> SplitText(std::string_view text,
                                                   std::string_view separator,
                                                   int64_t max_splits,
                                                   Budget* budget) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (int64_t i = 0; i != max_splits; ++i) {
    const size_t end = FindText(text, separator, begin);
    if (end == kNotFound) break;
    RETURN_IF_ERROR(budget->Work(sizeof(Value)));
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + separator.size();
  }
  parts.emplace_back(text.substr(begin));
  return parts;
}

absl::StatusOr<std::vector<std::string>> SplitTextFromRight(
    std::string_view text, std::string_view separator, int64_t max_splits,
    Budget* budget) {
  // Backwards, where the linear search goes forwards.
  const std::string reversed_text(text.rbegin(), text.rend());
  const std::string reversed_separator(separator.rbegin(), separator.rend());
  ASSIGN_OR_RETURN(
      std::vector<std::string> parts,
      SplitText(reversed_text, reversed_separator, max_splits, budget));
  for (std::string& part : parts) std::reverse(part.begin(), part.end());
  std::reverse(parts.begin(), parts.end());
  return parts;
}

absl::StatusOr<std::vector<std::string>> SplitWords(std::string_view text,
                                                    int64_t max_splits,
                                                    Budget* budget) {
  std::vector<std::string> words;
  text = Strip(text, "", Side::kLeft);
  while (!text.empty()) {
    RETURN_IF_ERROR(budget->Work(sizeof(Value)));
    if (static_cast<int64_t>(words.size()) == max_splits) {
      words.emplace_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      size_t next = end;
      if (IsPythonSpace(DecodeUtf8(text, &next))) break;
      end = next;
    }
    words.emplace_back(text.substr(0, end));
    text = Strip(text.substr(end), "", Side::kLeft);
  }
  return words;
}

absl::StatusOr<std::vector<std::string>> SplitLines(std::string_view text,
                                                    bool keeps_ends,
                                                    Budget* budget) {
  const auto ends_line = [](char32_t character) {
    return (character >= 0x0A && character <= 0x0D) ||
           (character >= 0x1C && character <= 0x1E) || character == 0x85 ||
           character == 0x2028 || character == 0x2029;
  };
  std::vector<std::string> lines;
  size_t begin = 0;
  size_t offset = 0;
  while (offset < text.size()) {
    const size_t end = offset;
    const char32_t character = DecodeUtf8(text, &offset);
    if (!ends_line(character)) continue;
    if (character == '\r' && text.substr(offset).starts_with('\n')) ++offset;
    RETURN_IF_ERROR(budget->Work(sizeof(Value)));
    lines.emplace_back(text.substr(begin, (keeps_ends ? offset : end) - begin));
    begin = offset;
  }
  if (begin < text.size()) lines.emplace_back(text.substr(begin));
  return lines;
}

absl::StatusOr<std::vector<std::string>> SplitWordsFromRight(
    std::string_view text, int64_t max_splits, Budget* budget) {
  std::vector<std::string> words;
  text = Strip(text, "", Side::kRight);
  while (!text.empty()) {
    RETURN_IF_ERROR(budget->Work(sizeof(Value)));
    if (static_cast<int64_t>(words.size()) == max_splits) {
      words.emplace_back(text);
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      const size_t previous = CharacterBefore(text, begin);
      size_t next = previous;
      if (IsPythonSpace(DecodeUtf8(text, &next))) break;
      begin = previous;
    }
    words.emplace_back(text.substr(begin));
    text = Strip(text.substr(0, begin), "", Side::kRight);
  }
  std::reverse(words.begin(), words.end());
  return words;
}

int64_t CountText(std::string_view text, std::string_view wanted) {
  int64_t count = 0;
  size_t offset = 0;
  while ((offset = FindText(text, wanted, offset)) != kNotFound) {
    ++count;
    offset += wanted.size();
  }
  return count;
}

std::string FormatFloat(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), number,
                                 std::chars_format::scientific)
                       .ptr;
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));
  const size_t e = shortest.find('e');
  int exponent = 0;
  const char* digits_of_exponent =
      shortest.data() + e + (shortest[e + 1] == '+' ? 2 : 1);
  std::from_chars(digits_of_exponent, end, exponent);
  if (exponent >= -4 && exponent < 16) {
    const size_t num_digits =
        e - (shortest[0] == '-') - (shortest.find('.') != kNotFound);
    const int num_decimals =
        std::max(1, static_cast<int>(num_digits) - 1 - exponent);
    return fmt::format("{:.{}f}", number, num_decimals);
  }
  return fmt::format("{}e{}{:02}", shortest.substr(0, e),
                     exponent < 0 ? '-' : '+', std::abs(exponent));
}

std::string Quote(std::string_view text) {
  const bool has_single = text.find('\'') != kNotFound;
  const bool has_double = text.find('"') != kNotFound;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string result(1, quote);
  size_t offset = 0;
  while (offset < text.size()) {
    const size_t begin = offset;
    const char32_t character = DecodeUtf8(text, &offset);
    const auto code = static_cast<uint32_t>(character);
    if (character == '\n') {
      result += "\\n";
    } else if (character == '\r') {
      result += "\\r";
    } else if (character == '\t') {
      result += "\\t";
    } else if (character == '\\' || code == static_cast<uint32_t>(quote)) {
      result += '\\';
      result += static_cast<char>(character);
    } else if (IsPrintable(character)) {
      result += text.substr(begin, offset - begin);
    } else if (code < 0x100) {
      result += fmt::format("\\x{:02x}", code);
    } else if (code < 0x10000) {
      result += fmt::format("\\u{:04x}", code);
    } else {
      result += fmt::format("\\U{:08x}", code);
    }
  }
  return result + quote;
}

std::string QuoteJson(std::string_view text, bool ensure_ascii) {
  std::string result = "\"";
  size_t offset = 0;
  while (offset < text.size()) {
    const size_t begin = offset;
    const char32_t character = DecodeUtf8(text, &offset);
    const auto code = static_cast<uint32_t>(character);
    if (character == '"' || character == '\\') {
      result += '\\';
      result += static_cast<char>(character);
    } else if (character == '\n') {
      result += "\\n";
    } else if (character == '\r') {
      result += "\\r";
    } else if (character == '\t') {
      result += "\\t";
    } else if (character == '\b') {
      result += "\\b";
    } else if (character == '\f') {
      result += "\\f";
    } else if (code < 0x20 ||
               (ensure_ascii && code >= 0x7F && code < 0x10000)) {
      result += code == 0x7F ? "\x7F" : fmt::format("\\u{:04x}", code);
    } else if (ensure_ascii && code >= 0x10000) {
      result +=
          fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((code - 0x10000) >> 10),
                      0xDC00 + ((code - 0x10000) & 0x3FF));
    } else {
      result += text.substr(begin, offset - begin);
    }
  }
  return result + '"';
}

}  // namespace witan::jinja
