#ifndef WITAN_BASE_UTF8_H_
#define WITAN_BASE_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace witan {

// Length of the longest prefix of `text` that is well-formed UTF-8 (RFC 3629:
// no overlong forms, no surrogates, nothing above U+10FFFF).
size_t ValidUtf8Prefix(std::string_view text);

inline bool IsValidUtf8(std::string_view text) {
  return ValidUtf8Prefix(text) == text.size();
}

// `text` with U+FFFD in place of each byte that is not part of a well-formed
// character.
std::string ReplaceInvalidUtf8(std::string_view text);

}  // namespace witan

#endif  // WITAN_BASE_UTF8_H_
