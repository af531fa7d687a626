#ifndef WITAN_COORDINATOR_TEXT_NORMALIZER_H_
#define WITAN_COORDINATOR_TEXT_NORMALIZER_H_

#include <absl/status/statusor.h>

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "coordinator/text/json_value.h"
#include "coordinator/text/regex.h"

namespace witan {

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` in a Unicode normalization form. REQUIRES: `text` is UTF-8.
// O(n log n), also on long runs of combining marks.
std::string NormalizeUnicode(std::string_view text, UnicodeForm form);

// A pattern given as {"String": text} or {"Regex": pattern}.
absl::StatusOr<Regex> ParsePattern(const JsonValue& value);

// The "normalizer" of a tokenizer.json: what happens to text before it is cut.
class Normalizer {
 public:
  // An absent value is the identity.
  static absl::StatusOr<Normalizer> Parse(const JsonValue& value);

  // REQUIRES: `text` is UTF-8. So is the result.
  absl::StatusOr<std::string> Apply(std::string_view text) const;

 private:
  struct Unicode {
    UnicodeForm form;
  };
  struct Prepend {
    std::string text;
  };
  struct Replace {
    Regex pattern;
    std::string replacement;
  };

  absl::Status AddSteps(const JsonValue& value);

  std::vector<std::variant<Unicode, Prepend, Replace>> steps_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_NORMALIZER_H_
