#ifndef WITAN_COORDINATOR_TEXT_ADDED_TOKENS_H_
#define WITAN_COORDINATOR_TEXT_ADDED_TOKENS_H_

#include <absl/status/statusor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/request.h"
#include "coordinator/text/regex.h"

namespace witan {

// One entry of "added_tokens": a token that is found in the text itself,
// before the text is cut into words.
struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool special = false;
  bool lstrip = false;       // takes the whitespace before it along
  bool rstrip = false;       // and behind it
  bool single_word = false;  // only where no word character touches it
  bool normalized = false;   // looked for in the normalized text
};

// Finds a set of added tokens in text, leftmost first, then longest.
// Immutable; any number of threads at once.
class AddedTokenMatcher {
 public:
  // `content` of each token is what is looked for; of equal ones the first is
  // found. REQUIRES: none is empty or longer than kMaxAddedTokenBytes.
  static absl::StatusOr<AddedTokenMatcher> Create(
      std::vector<AddedToken> tokens);

  struct Segment {
    size_t begin = 0;
    size_t end = 0;
    std::optional<TokenId> token_id;  // absent: ordinary text, never empty
  };

  // Cuts `text` in order. `parse_special`: special tokens count as well.
  // REQUIRES: `text` is UTF-8. O(bytes of text x bytes of the longest token),
  // in practice one table look-up per byte.
  absl::StatusOr<std::vector<Segment>> Split(std::string_view text,
                                             bool parse_special) const;

 private:
  explicit AddedTokenMatcher(Regex word_character)
      : word_character_(std::move(word_character)) {}
  // The longest token that `text` begins with, or null.
  const AddedToken* LongestPrefix(std::string_view text) const;
  absl::StatusOr<bool> TouchesWord(std::string_view before,
                                   std::string_view behind) const;
  absl::StatusOr<bool> IsWordCharacter(std::string_view character) const;

  struct Range {
    uint32_t begin = 0;
    uint32_t end = 0;
  };
  std::vector<AddedToken> tokens_;        // by ascending content
  std::array<Range, 256> by_first_byte_;  // into tokens_
  Regex word_character_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_ADDED_TOKENS_H_
