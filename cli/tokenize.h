#ifndef WITAN_CLI_TOKENIZE_H_
#define WITAN_CLI_TOKENIZE_H_

#include <absl/status/status.h>

#include <istream>
#include <ostream>

#include "coordinator/text/tokenizer.h"

namespace witan {

// {"text": ...} per line in, {"token_ids": [...]} per line out, without
// special tokens. Ends at the first line that is not such an object or whose
// text the tokenizer refuses; INVALID_ARGUMENT names the line.
absl::Status TokenizeLines(const Tokenizer& tokenizer, std::istream& in,
                           std::ostream& out);

}  // namespace witan

#endif  // WITAN_CLI_TOKENIZE_H_
