#ifndef WITAN_BASE_UTF8_H_
#define WITAN_BASE_UTF8_H_

// UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing above
// U+10FFFF.

#include <cstddef>
#include <string>
#include <string_view>

namespace witan {

// U+FFFD in UTF-8: stands for bytes that form no character.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

struct Utf8Step {
  enum Kind { kCharacter, kIncomplete, kInvalid };
  Kind kind;
  // Bytes of the character; of the prefix of one that ends the text; or of the
  // longest part that could have begun one (at least 1).
  size_t num_bytes;
};

// What `bytes` begins with. REQUIRES: `bytes` is not empty.
Utf8Step NextUtf8(std::string_view bytes);

// Length of the longest prefix of `text` that is well-formed UTF-8.
size_t ValidUtf8Prefix(std::string_view text);

inline bool IsValidUtf8(std::string_view text) {
  return ValidUtf8Prefix(text) == text.size();
}

// `text` with one U+FFFD in place of each longest part that could have begun a
// character, and of each byte that cannot: what the Unicode standard (3.9)
// recommends and Python's errors="replace" does.
std::string ReplaceInvalidUtf8(std::string_view text);

// The character at `*offset`, which moves behind it. REQUIRES: `text` is UTF-8
// and `*offset` is where a character begins.
char32_t DecodeUtf8(std::string_view text, size_t* offset);

void AppendUtf8(char32_t character, std::string* text);

// Number of characters. REQUIRES: `text` is UTF-8.
size_t CountUtf8(std::string_view text);

// The Unicode property White_Space.
bool IsWhiteSpace(char32_t character);

}  // namespace witan

#endif  // WITAN_BASE_UTF8_H_
