#ifndef WITAN_COORDINATOR_API_PROMPT_PIECES_H_
#define WITAN_COORDINATOR_API_PROMPT_PIECES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "base/request.h"
#include "coordinator/text/detokenizer.h"
#include "coordinator/text/tokenizer.h"
#include "proto/inference.pb.h"

namespace witan {

void AddLogprobs(const SampledToken& token, v1::TokenLogprobs& out);

// A prompt as pieces of a stream, in order. One thread at a time.
class PromptPieces {
 public:
  // `tokenizer` outlives this object. `has_text`: with the tokens' text.
  PromptPieces(std::shared_ptr<const std::vector<TokenId>> prompt,
               const Tokenizer& tokenizer, bool has_text,
               bool skip_special_tokens);

  int64_t num_left() const { return std::ssize(*prompt_) - next_; }
  // The next tokens, at most num_left().
  v1::PromptPiece Next(int64_t num_tokens);

 private:
  const std::shared_ptr<const std::vector<TokenId>> prompt_;
  const bool has_text_;
  Detokenizer detokenizer_;
  int64_t next_ = 0;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_PROMPT_PIECES_H_
