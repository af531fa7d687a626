#include "coordinator/text/bad_words.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "base/status.h"

namespace witan {

absl::StatusOr<std::vector<std::vector<TokenId>>> EncodeBadWords(
    const std::vector<std::string>& words, const Tokenizer& tokenizer) {
  std::vector<std::vector<TokenId>> sequences;
  for (size_t i = 0; i < words.size(); ++i) {
    // A space that is there already is not doubled.
    const std::string& word = words[i];
    const size_t first = std::min(word.find_first_not_of(' '), word.size());
    const std::string bare = first == word.size() ? word : word.substr(first);
    for (const std::string& text : {bare, " " + bare}) {
      ASSIGN_OR_RETURN(std::vector<TokenId> ids,
                       tokenizer.Encode(text, {.add_special_tokens = false}));
      if (ids.empty() || ids.size() > static_cast<size_t>(kMaxBadWordTokens)) {
        return InvalidArgument("entry {} has {} tokens; allowed is 1 to {}", i,
                               ids.size(), kMaxBadWordTokens);
      }
      sequences.push_back(std::move(ids));
    }
  }
  std::sort(sequences.begin(), sequences.end());
  sequences.erase(std::unique(sequences.begin(), sequences.end()),
                  sequences.end());
  return sequences;
}

}  // namespace witan
