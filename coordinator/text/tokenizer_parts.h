#ifndef WITAN_COORDINATOR_TEXT_TOKENIZER_PARTS_H_
#define WITAN_COORDINATOR_TEXT_TOKENIZER_PARTS_H_

// What a Tokenizer is made of. Included by the files of the tokenizer only.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "coordinator/text/added_tokens.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/decoder.h"
#include "coordinator/text/normalizer.h"
#include "coordinator/text/pre_tokenizer.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/tokenizer_config.h"
#include "coordinator/text/unigram.h"

namespace witan {

struct Tokenizer::Parts {
  struct Token {
    std::string text;             // as the vocabulary spells it; "": not at all
    std::string piece;            // Decoder::PieceOf
    std::optional<uint8_t> byte;  // a byte token, where the decoder has them
    bool exists = false;
    bool is_special = false;
    // `piece` begins with the space of a word, which the start of a text loses
    // if decoder.strips_whole_pieces().
    bool begins_word = false;
  };

  // Working memory of the models, to be reused by one thread.
  struct Scratch {
    Bpe::Scratch bpe;
    Unigram::Scratch unigram;
  };

  std::vector<Token> tokens;  // by id
  Vocabulary ids;             // views of tokens[].text
  Normalizer normalizer;
  AddedTokenMatcher added_tokens;             // in the text as given
  AddedTokenMatcher normalized_added_tokens;  // in normalized text
  PreTokenizer pre_tokenizer;
  std::variant<Bpe, Unigram> model;
  Decoder decoder;
  // A text that begins with an added token that is not special still gets the
  // space of its first word, as a word of its own.
  bool spaces_leading_token = false;
  // What add_special_tokens puts around a text.
  std::vector<TokenId> prefix;
  std::vector<TokenId> suffix;
  std::optional<TokenId> bos_id;
  std::optional<TokenId> eos_id;
  std::vector<std::pair<std::string, std::string>> special_tokens;

  // Each reads and checks one format, with the companions that it may have.
  static absl::StatusOr<std::unique_ptr<const Parts>> FromTokenizerJson(
      const TokenizerFiles& files);
  static absl::StatusOr<std::unique_ptr<const Parts>> FromSentencePiece(
      const TokenizerFiles& files);
  static absl::StatusOr<std::unique_ptr<const Parts>> FromTekken(
      const TokenizerFiles& files);

  // The rest of what they do alike. `file` is the one that has the tokens.

  // Spellings and ids; InvalidArgument when a token has two.
  static absl::StatusOr<Vocabulary> IndexTokens(
      const std::vector<Token>& tokens, std::string_view file);
  // Puts `token` at `id`; false when another stands there.
  static bool PlaceToken(Token token, TokenId id, std::vector<Token>* tokens);
  // Fills ids, bos_id, eos_id and special_tokens.
  absl::Status AssignRoles(const TokenizerConfig& config,
                           std::string_view file);
  // Fills prefix and suffix.
  absl::Status AddBosAndEos(bool add_bos, bool add_eos);

  // Appends the ids of `text`, which holds no added token that is looked for
  // before normalization.
  absl::Status EncodeText(std::string_view text, bool at_text_start,
                          bool parse_special, Scratch* scratch,
                          std::vector<TokenId>* out) const;
  // The same of one word.
  void EncodeWord(std::string_view word, Scratch* scratch,
                  std::vector<TokenId>* out) const;

  const Token* Find(TokenId id) const {
    if (id < 0 || static_cast<size_t>(id) >= tokens.size()) return nullptr;
    return tokens[id].exists ? &tokens[id] : nullptr;
  }
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_TOKENIZER_PARTS_H_
