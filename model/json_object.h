#ifndef WITAN_MODEL_JSON_OBJECT_H_
#define WITAN_MODEL_JSON_OBJECT_H_

// Reading of the JSON files of a model directory. They come from a stranger:
// nothing in them may crash, hang or exhaust memory, and nothing is guessed.

#include <absl/status/statusor.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace witan {

// Parses `text`, which must be one JSON object. Refused, with the line and the
// last key before the error: anything that is not JSON (NaN included), a key
// that occurs twice in one object, nesting deeper than kMaxJsonDepth. Messages
// begin with `name`, e.g. "config.json".
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view name,
                                               std::string_view text);

// The same of a file of a model's facts, at most kMaxConfigFileBytes long.
absl::StatusOr<nlohmann::json> ParseConfigFile(std::string_view name,
                                               const std::string& text);

// `value` for a message: short, printable, never longer than about 80 bytes.
std::string DescribeJson(const nlohmann::json& value);

// `text` for a message: in quotes, escaped, cut after kMaxQuotedBytes of text
// and about twice as many written.
std::string Quoted(std::string_view text);

}  // namespace witan

#endif  // WITAN_MODEL_JSON_OBJECT_H_
