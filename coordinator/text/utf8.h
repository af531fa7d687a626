#ifndef WITAN_COORDINATOR_TEXT_UTF8_H_
#define WITAN_COORDINATOR_TEXT_UTF8_H_

// Characters of UTF-8 one by one; whole texts are checked by base/utf8.h.

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

// The character at `*offset`, which moves behind it. REQUIRES: `text` is UTF-8
// and `*offset` is where a character begins.
char32_t DecodeUtf8(std::string_view text, size_t* offset);

void AppendUtf8(char32_t character, std::string* text);

// The Unicode property White_Space.
bool IsWhiteSpace(char32_t character);

// Number of characters. REQUIRES: `text` is UTF-8.
size_t CountUtf8(std::string_view text);

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_UTF8_H_
