#ifndef WITAN_MODEL_GGUF_TOKENIZER_H_
#define WITAN_MODEL_GGUF_TOKENIZER_H_

// The tokenizer of a GGUF file as the files of a Hugging Face directory, so
// that one tokenizer serves every model.
//
// tokenizer.ggml.model "gpt2" is byte-level BPE with the merges of the file; it
// names its pre-tokenizer (tokenizer.ggml.pre), of which the rules are not in
// the file but here. "llama" is SentencePiece BPE: a merge for every way to put
// a token together of two others, by the token's score, as transformers'
// converter makes them. Other models and pre-tokenizers are refused by name.

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "model/gguf_model.h"

namespace witan {

struct TokenizerTexts {
  std::string tokenizer;         // tokenizer.json
  std::string tokenizer_config;  // tokenizer_config.json, without a template
  std::string chat_template;     // empty: there is none
};

// Errors name the key, its value and what is allowed.
absl::StatusOr<TokenizerTexts> TokenizerOfGguf(const GgufModel& model);

// The same of the files that `model` names (FindGgufFiles); nothing when it is
// a Hugging Face directory. Errors name the file too.
absl::StatusOr<std::optional<TokenizerTexts>> ReadTokenizerOfGguf(
    const std::string& model);

// The control token that is spelled so.
std::optional<int64_t> ControlTokenOfGguf(const GgufModel& model,
                                          std::string_view text);

}  // namespace witan

#endif  // WITAN_MODEL_GGUF_TOKENIZER_H_
