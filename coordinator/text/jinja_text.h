#ifndef WITAN_COORDINATOR_TEXT_JINJA_TEXT_H_
#define WITAN_COORDINATOR_TEXT_JINJA_TEXT_H_

// Python's operations on text, on UTF-8. Upper, lower and title case map one
// character to one character, except "ß", whose upper case is "SS"; the few
// other characters that Python makes several of (ligatures) stay single.
// REQUIRES throughout: texts are UTF-8.

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace witan::jinja {

class Budget;  // jinja_value.h

// Offset of `needle` at or behind `from`, or npos; linear time.
size_t FindText(std::string_view text, std::string_view needle, size_t from);

// The last one; linear time, too.
size_t FindTextFromRight(std::string_view text, std::string_view needle);

enum class Side { kLeft, kRight, kBoth };
// Without the characters of `removed` at the sides; an empty `removed` stands
// for whitespace, as Python's str.strip() counts it.
std::string_view Strip(std::string_view text, std::string_view removed,
                       Side side);

std::string ToUpper(std::string_view text);
std::string ToCaseFold(std::string_view text);
std::string ToLower(std::string_view text);
// First character in upper case, the others in lower case.
std::string Capitalize(std::string_view text);
// str.title(): letters behind anything but a letter are capital.
std::string ToTitle(std::string_view text);
// The filter "title": words end at whitespace and at - ( { [ <.
std::string ToTitleWords(std::string_view text);

// At most `max_replaced` replacements; -1: all. `old` may be empty.
std::string ReplaceText(std::string_view text, std::string_view old,
                        std::string_view replacement, int64_t max_replaced);

// At most `max_splits` cuts; -1: all. Linear time; the parts are charged to the
// budget, the text is not. REQUIRES: `separator` is not empty.
absl::StatusOr<std::vector<std::string>> SplitText(std::string_view text,
                                                   std::string_view separator,
                                                   int64_t max_splits,
                                                   Budget* budget);
// The same from the right.
absl::StatusOr<std::vector<std::string>> SplitTextFromRight(
    std::string_view text, std::string_view separator, int64_t max_splits,
    Budget* budget);
// Words between runs of whitespace, charged in the same way.
absl::StatusOr<std::vector<std::string>> SplitWords(std::string_view text,
                                                    int64_t max_splits,
                                                    Budget* budget);
absl::StatusOr<std::vector<std::string>> SplitWordsFromRight(
    std::string_view text, int64_t max_splits, Budget* budget);
// Occurrences that do not overlap. REQUIRES: `wanted` is not empty.
int64_t CountText(std::string_view text, std::string_view wanted);

// The lines of a text, as str.splitlines() ends them; with their ends if
// `keeps_ends`. Charged like SplitText.
absl::StatusOr<std::vector<std::string>> SplitLines(std::string_view text,
                                                    bool keeps_ends,
                                                    Budget* budget);

// Whether a name of a template may begin with the character, or have it later.
bool IsNameStart(char32_t character);
bool IsNamePart(char32_t character);

// What the str.isX() methods ask of a character. Letters with case are upper,
// lower or title case.
bool IsLetter(char32_t character);
bool IsDecimal(char32_t character);
bool IsNumeric(char32_t character);  // decimals, and numbers such as fractions
bool IsUpper(char32_t character);
bool IsLower(char32_t character);
bool IsPythonSpace(char32_t character);

// Shortest digits that read back as `number`, written as Python does.
std::string FormatFloat(double number);

// Like repr(): in quotes, with escapes for what cannot be printed.
std::string Quote(std::string_view text);
std::string QuoteJson(std::string_view text, bool ensure_ascii);

}  // namespace witan::jinja

#endif  // WITAN_COORDINATOR_TEXT_JINJA_TEXT_H_
