#ifndef WITAN_COORDINATOR_TEXT_BASE64_H_
#define WITAN_COORDINATOR_TEXT_BASE64_H_

#include <optional>
#include <string>
#include <string_view>

namespace witan {

// The bytes that `text` spells in base64 (RFC 4648, section 4), with padding;
// nullopt when it is anything else.
std::optional<std::string> DecodeBase64(std::string_view text);

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_BASE64_H_
