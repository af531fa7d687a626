#ifndef WITAN_COORDINATOR_TEXT_UNICODE_VERSIONS_H_
#define WITAN_COORDINATOR_TEXT_UNICODE_VERSIONS_H_

// The reference tokenizers do not agree on a version of Unicode: their patterns
// know version 16, their normalization forms version 9. PCRE2 and utf8proc know
// versions between. These functions make up for the difference.

#include <optional>
#include <string>
#include <string_view>

namespace witan {

// `text` with every character of Unicode 15 to 16 replaced by an older one of
// the same general category and number of bytes, so that patterns of classes
// match it alike; nullopt, at the cost of one scan, when it has none.
// REQUIRES: `text` is UTF-8.
std::optional<std::string> WithOlderCharacters(std::string_view text);

// True for what is newer than Unicode 9 and would be changed or moved by a
// normalization form of today.
bool IsUnknownToNormalization(char32_t character);

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_UNICODE_VERSIONS_H_
