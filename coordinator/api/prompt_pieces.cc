#include "coordinator/api/prompt_pieces.h"

#include <utility>

namespace witan {

void AddLogprobs(const SampledToken& token, v1::TokenLogprobs& out) {
  out.set_logprob(token.logprob);
  for (const TokenLogprob& top : token.top_logprobs) {
    v1::TokenLogprob& entry = *out.add_top();
    entry.set_token_id(top.token_id);
    entry.set_logprob(top.logprob);
  }
}

PromptPieces::PromptPieces(std::shared_ptr<const std::vector<TokenId>> prompt,
                           const Tokenizer& tokenizer, bool has_text,
                           bool skip_special_tokens)
    : prompt_(std::move(prompt)),
      has_text_(has_text),
      detokenizer_(tokenizer, {.skip_special = skip_special_tokens}) {}

v1::PromptPiece PromptPieces::Next(int64_t num_tokens) {
  v1::PromptPiece piece;
  piece.set_index(next_);
  for (const int64_t end = next_ + num_tokens; next_ < end; ++next_) {
    const TokenId token_id = (*prompt_)[static_cast<size_t>(next_)];
    piece.add_token_ids(token_id);
    if (has_text_) piece.mutable_text()->append(detokenizer_.Push(token_id));
  }
  if (has_text_ && num_left() == 0) {
    piece.mutable_text()->append(detokenizer_.Finish());
  }
  return piece;
}

}  // namespace witan
