#ifndef WITAN_COORDINATOR_TEXT_DETOKENIZER_H_
#define WITAN_COORDINATOR_TEXT_DETOKENIZER_H_

#include <string>

#include "base/request.h"
#include "coordinator/text/tokenizer.h"

namespace witan {

struct DetokenizeOptions {
  bool skip_special = true;
  // The tokens continue a text (a completion after its prompt), so the space
  // that SentencePiece vocabularies put before the first word is kept.
  bool continues_text = false;
};

// Turns the tokens of one stream into text as they arrive. Every piece that it
// returns is valid UTF-8: bytes of an unfinished character are held back until
// it is complete or can no longer be, and then become U+FFFD. The pieces of
// Push and Finish, joined, are Tokenizer::Decode of the tokens.
//
// Invalid bytes follow the reference of each vocabulary: one U+FFFD for each
// maximal invalid part (byte-level), or for each invalid byte token
// (SentencePiece byte fallback). The library tokenizers differs in the latter:
// of byte tokens in a row that are not UTF-8 as a whole it replaces every one,
// the characters among them too, which a stream may have shown by then.
//
// Used by one thread at a time; O(bytes of the token) per token.
class Detokenizer {
 public:
  // REQUIRES: `tokenizer` outlives this object.
  Detokenizer(const Tokenizer& tokenizer, DetokenizeOptions options);

  // The text that became certain with `id`, often none. An id that names no
  // token (models pad their vocabulary) adds nothing.
  std::string Push(TokenId id);

  // The rest: held-back bytes as U+FFFD. No Push may follow.
  std::string Finish();

 private:
  // Moves the characters that are complete from held_bytes_ to `text`.
  void TakeCharacters(std::string* text);
  // Applies the rule about spaces at the start of the text.
  void StripStart(std::string* text);

  const Tokenizer::Parts* parts_;
  DetokenizeOptions options_;
  bool at_first_token_;
  int num_to_strip_;
  std::string held_bytes_;  // at most 3: a prefix of one UTF-8 character
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_DETOKENIZER_H_
