#ifndef WITAN_COORDINATOR_TEXT_JINJA_PARSER_H_
#define WITAN_COORDINATOR_TEXT_JINJA_PARSER_H_

#include <absl/status/statusor.h>

#include <string_view>

#include "coordinator/text/jinja_ast.h"

namespace witan::jinja {

// InvalidArgument names the line and what was expected; nesting is limited to
// kMaxTemplateDepth. REQUIRES: `source` is UTF-8.
absl::StatusOr<Body> ParseTemplate(std::string_view source);

}  // namespace witan::jinja

#endif  // WITAN_COORDINATOR_TEXT_JINJA_PARSER_H_
