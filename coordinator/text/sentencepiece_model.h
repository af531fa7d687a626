#ifndef WITAN_COORDINATOR_TEXT_SENTENCEPIECE_MODEL_H_
#define WITAN_COORDINATOR_TEXT_SENTENCEPIECE_MODEL_H_

// The contents of a tokenizer.model: the message ModelProto of
// google/sentencepiece, src/sentencepiece_model.proto. Only what decides how
// text is encoded and decoded is kept; what the trainer noted is passed over.

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/request.h"

namespace witan {

// U+2581: how pieces spell a space.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

struct SentencePieceModel {
  enum class Algorithm { kUnigram = 1, kBpe = 2 };
  enum class Kind {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  struct Piece {
    std::string text;  // UTF-8, never empty, no two alike
    float score = 0;   // finite
    Kind kind = Kind::kNormal;
  };

  std::vector<Piece> pieces;  // by token id
  Algorithm algorithm = Algorithm::kUnigram;
  TokenId unknown_id = 0;  // of the one piece of kind kUnknown
  // By their spelling in the model; absent when no control piece has it.
  std::optional<TokenId> bos_id;
  std::optional<TokenId> eos_id;
  std::string bos_piece = "<s>";
  std::string eos_piece = "</s>";
  // All 256 bytes have pieces and stand in for unknown characters.
  bool byte_fallback = false;
  std::string unknown_surface = " \xE2\x81\x87 ";
  bool treat_whitespace_as_suffix = false;

  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  std::string precompiled_charsmap;  // "": none

  // InvalidArgument names the field and the value of what is damaged, beyond a
  // limit or not supported (algorithms WORD and CHAR, UNUSED pieces of a BPE
  // model, a denormalizer).
  static absl::StatusOr<SentencePieceModel> Parse(std::string_view file);
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_SENTENCEPIECE_MODEL_H_
