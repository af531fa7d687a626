#ifndef WITAN_COORDINATOR_TEXT_TEMPLATE_ARGUMENT_H_
#define WITAN_COORDINATOR_TEXT_TEMPLATE_ARGUMENT_H_

#include <absl/status/statusor.h>

#include <nlohmann/json.hpp>
#include <string>

namespace witan {

// A variable of a chat template as clients send it: JSON, or a string where it
// is not JSON. InvalidArgument when it is nested deeper than one level less
// than kMaxJsonDepth (all arguments are one object) or has an object with more
// than kMaxTemplateObjectMembers members.
absl::StatusOr<nlohmann::ordered_json> ParseTemplateArgument(
    const std::string& value);

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_TEMPLATE_ARGUMENT_H_
