#ifndef WITAN_COORDINATOR_TEXT_NORMALIZER_H_
#define WITAN_COORDINATOR_TEXT_NORMALIZER_H_

#include <absl/status/statusor.h>

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "coordinator/text/json_value.h"
#include "coordinator/text/precompiled_charsmap.h"
#include "coordinator/text/regex.h"
#include "coordinator/text/sentencepiece_normalizer.h"

namespace witan {

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` in a normalization form of Unicode 9, which the library tokenizers
// knows: newer characters stay as they are. REQUIRES: `text` is UTF-8.
// O(n log n), also on long runs of combining marks.
std::string NormalizeUnicode(std::string_view text, UnicodeForm form);

// A pattern given as {"String": text} or {"Regex": pattern}.
absl::StatusOr<Regex> ParsePattern(const JsonValue& value);

// The "normalizer" of a tokenizer.json: what happens to text before it is cut.
class Normalizer {
 public:
  // An absent value is the identity.
  static absl::StatusOr<Normalizer> Parse(const JsonValue& value);

  // `prefixes_start_only`: only where the whole input begins a text gets the
  // space of its first word.
  static Normalizer FromSentencePiece(SentencePieceNormalizer rules,
                                      bool prefixes_start_only);

  // `at_text_start`: `text` is where the whole input begins. REQUIRES: `text`
  // is UTF-8. So is the result. ResourceExhausted when it has more than
  // kMaxEncodeTextBytes.
  absl::StatusOr<std::string> Apply(std::string_view text,
                                    bool at_text_start = true) const;

 private:
  // Rules for one character at a time.
  enum class Simple { kLowercase, kNmt, kStripAccents };
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

  struct Strip {
    bool left;
    bool right;
  };
  struct SentencePiece {
    SentencePieceNormalizer rules;
    bool prefixes_start_only;
  };
  using Step = std::variant<Unicode, Prepend, Replace, Simple, Strip,
                            PrecompiledCharsmap, SentencePiece>;

  absl::Status AddSteps(const JsonValue& value);
  absl::Status AddPrecompiled(const JsonValue& value);
  static absl::StatusOr<std::string> ApplyStep(const Step& step,
                                               std::string text,
                                               bool at_text_start);
  static std::string ApplySimple(Simple rule, std::string_view text);

  std::vector<Step> steps_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_NORMALIZER_H_
