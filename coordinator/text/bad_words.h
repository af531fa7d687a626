#ifndef WITAN_COORDINATOR_TEXT_BAD_WORDS_H_
#define WITAN_COORDINATOR_TEXT_BAD_WORDS_H_

#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "base/request.h"
#include "coordinator/text/tokenizer.h"

namespace witan {

// The token sequences that spell each of `words`: as it is, and after a space,
// which is another token at its beginning in most vocabularies (as vLLM does
// it). At most two for each word, none twice. INVALID_ARGUMENT names the word
// that has no token or more than kMaxBadWordTokens.
//
// Other spellings of a word, of smaller tokens, are not found; no tokenizer
// makes them of its text, but a model may.
absl::StatusOr<std::vector<std::vector<TokenId>>> EncodeBadWords(
    const std::vector<std::string>& words, const Tokenizer& tokenizer);

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_BAD_WORDS_H_
