#ifndef WITAN_COORDINATOR_TEXT_JINJA_EXPRESSION_PARSER_H_
#define WITAN_COORDINATOR_TEXT_JINJA_EXPRESSION_PARSER_H_

#include <absl/status/statusor.h>

#include <vector>

#include "coordinator/text/jinja_ast.h"
#include "coordinator/text/jinja_token_stream.h"

namespace witan::jinja {

// These take what they parse from `tokens`. InvalidArgument names the line.

absl::StatusOr<ExpressionPtr> ParseExpression(TokenStream* tokens);
// One expression, or several with commas between. Without `with_if` a word "if"
// ends it, as in the head of a loop.
absl::StatusOr<ExpressionPtr> ParseTuple(TokenStream* tokens,
                                         bool with_if = true);
// Appends `| name(...)`. REQUIRES: at "|".
absl::Status ParseFilter(TokenStream* tokens, std::vector<Suffix>* suffixes);
// The same without "|". REQUIRES: at the name.
absl::Status ParseFilterName(TokenStream* tokens,
                             std::vector<Suffix>* suffixes);

}  // namespace witan::jinja

#endif  // WITAN_COORDINATOR_TEXT_JINJA_EXPRESSION_PARSER_H_
