#ifndef WITAN_COORDINATOR_TEXT_TOKENIZER_PARTS_H_
#define WITAN_COORDINATOR_TEXT_TOKENIZER_PARTS_H_

// What a Tokenizer is made of. Included by the files of the tokenizer only.

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/text/added_tokens.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/decoder.h"
#include "coordinator/text/normalizer.h"
#include "coordinator/text/pre_tokenizer.h"
#include "coordinator/text/tokenizer.h"

namespace witan {

struct Tokenizer::Parts {
  struct Token {
    std::string text;             // as the vocabulary spells it
    std::string piece;            // Decoder::PieceOf
    std::optional<uint8_t> byte;  // a byte token, where the decoder has them
    bool exists = false;
    bool is_special = false;
  };

  std::vector<Token> tokens;  // by id
  Vocabulary ids;             // views of tokens[].text
  Normalizer normalizer;
  AddedTokenMatcher added_tokens;             // in the text as given
  AddedTokenMatcher normalized_added_tokens;  // in normalized text
  PreTokenizer pre_tokenizer;
  Bpe model;
  Decoder decoder;
  // What add_special_tokens puts around a text.
  std::vector<TokenId> prefix;
  std::vector<TokenId> suffix;
  std::optional<TokenId> bos_id;
  std::optional<TokenId> eos_id;
  std::vector<std::pair<std::string, std::string>> special_tokens;

  // Reads and checks the three files; "" for one that does not exist.
  static absl::StatusOr<std::unique_ptr<const Parts>> Parse(
      std::string_view tokenizer_json, std::string_view tokenizer_config,
      std::string_view special_tokens_map);

  // Appends the ids of `text`, which holds no added token that is looked for
  // before normalization.
  absl::Status EncodeText(std::string_view text, bool at_text_start,
                          bool parse_special, Bpe::Scratch* scratch,
                          std::vector<TokenId>* out) const;

  const Token* Find(TokenId id) const {
    if (id < 0 || static_cast<size_t>(id) >= tokens.size()) return nullptr;
    return tokens[id].exists ? &tokens[id] : nullptr;
  }
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_TOKENIZER_PARTS_H_
