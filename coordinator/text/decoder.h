#ifndef WITAN_COORDINATOR_TEXT_DECODER_H_
#define WITAN_COORDINATOR_TEXT_DECODER_H_

#include <absl/status/statusor.h>

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "coordinator/text/json_value.h"
#include "coordinator/text/regex.h"

namespace witan {

// The "decoder" of a tokenizer.json, reduced to what each token adds to the
// text by itself and a few rules about its neighbours, which the Detokenizer
// applies as tokens arrive.
class Decoder {
 public:
  static absl::StatusOr<Decoder> Parse(const JsonValue& value);
  // Tokens are bytes.
  static Decoder ByteLevel();
  // Of a tokenizer.model: byte tokens, and `num_stripped_at_start` tokens at
  // the start of a text lose the space that begins a word.
  static Decoder SentencePiece(int num_stripped_at_start);

  // The text of one token; raw bytes, perhaps parts of characters, if
  // is_byte_level().
  absl::StatusOr<std::string> PieceOf(std::string_view spelling) const;

  bool is_byte_level() const { return is_byte_level_; }
  // Tokens spelled "<0x0A>" are bytes.
  bool byte_fallback() const { return byte_fallback_; }
  // Not empty: the first token of a text loses every occurrence of it.
  const std::string& dropped_from_first_token() const {
    return dropped_from_first_token_;
  }
  // Up to so many `stripped_text` are removed from the start of the text.
  int num_stripped_at_start() const { return num_stripped_at_start_; }
  const std::string& stripped_text() const { return stripped_text_; }
  // They are removed from tokens of the vocabulary only, at most one of each,
  // not from what bytes spell.
  bool strips_whole_pieces() const { return strips_whole_pieces_; }

 private:
  struct Replace {
    Regex pattern;
    std::string replacement;
  };

  absl::Status AddSteps(const JsonValue& value, int* last_order);
  absl::Status AddMetaspace(const JsonValue& value);
  absl::Status AddStrip(const JsonValue& value);

  bool is_byte_level_ = false;
  bool byte_fallback_ = false;
  std::vector<Replace> replacements_;
  std::string dropped_from_first_token_;
  int num_stripped_at_start_ = 0;
  std::string stripped_text_;
  bool strips_whole_pieces_ = false;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_DECODER_H_
