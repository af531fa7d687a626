#ifndef WITAN_COORDINATOR_TEXT_SENTENCEPIECE_NORMALIZER_H_
#define WITAN_COORDINATOR_TEXT_SENTENCEPIECE_NORMALIZER_H_

#include <absl/status/statusor.h>

#include <string>
#include <string_view>

#include "coordinator/text/byte_trie.h"
#include "coordinator/text/precompiled_charsmap.h"
#include "coordinator/text/sentencepiece_model.h"

namespace witan {

// What SentencePiece does to text before it cuts it: normalizer_spec of a
// tokenizer.model, as Normalizer::Normalize of src/normalizer.cc applies it.
// Immutable; any number of threads at once.
class SentencePieceNormalizer {
 public:
  static absl::StatusOr<SentencePieceNormalizer> Create(
      const SentencePieceModel& model);

  // In place of what the model says.
  void set_add_dummy_prefix(bool value) { add_dummy_prefix_ = value; }

  // `wants_dummy_prefix`: a space is put before the text (or behind it), where
  // the model adds one at all. REQUIRES: `text` is UTF-8. So is the result.
  // ResourceExhausted when it has more than kMaxEncodeTextBytes.
  absl::StatusOr<std::string> Apply(std::string_view text,
                                    bool wants_dummy_prefix) const;

 private:
  // What `text` begins with and what becomes of it.
  struct Step {
    size_t num_bytes = 0;
    std::string_view replacement;
  };
  Step Next(std::string_view text) const;

  PrecompiledCharsmap charsmap_;
  ByteTrie user_defined_;  // left as they are
  bool add_dummy_prefix_ = false;
  bool remove_extra_whitespaces_ = false;
  bool suffix_instead_ = false;
  std::string space_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_SENTENCEPIECE_NORMALIZER_H_
