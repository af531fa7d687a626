#ifndef WITAN_COORDINATOR_TEXT_TOKENIZER_H_
#define WITAN_COORDINATOR_TEXT_TOKENIZER_H_

// Text to token ids and back, as the files of a model describe it:
//
// tokenizer.json (Hugging Face tokenizers). Models BPE, byte-level (Llama 3,
// Qwen) or SentencePiece-style with byte fallback (Llama 2, Mistral), and
// Unigram; normalizers NFC, NFD, NFKC, NFKD, Lowercase, Nmt, Precompiled,
// Prepend, Replace, Strip, StripAccents and their Sequence; pre-tokenizers
// Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace,
// WhitespaceSplit, CharDelimiterSplit and their Sequence; post-processors
// TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel and their
// Sequence; decoders ByteLevel, Metaspace and Sequences of Replace,
// ByteFallback, Fuse, Strip. Truncation and padding sections are ignored: a
// prompt is never cut silently.
//
// tokenizer.model (SentencePiece), types BPE and UNIGRAM, with the tokens and
// switches of tokenizer_config.json (added_tokens_decoder, add_bos_token, by
// default on, add_eos_token, legacy, add_prefix_space) as the Python tokenizer
// of transformers 4 applies them. Control pieces are special tokens. An unknown
// token decodes to the model's unk_surface.
//
// tekken.json (Mistral). Its special tokens come first, then its vocabulary.
//
// Anything else is an error at load that names the field and its value.

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/request.h"

namespace witan {

struct EncodeOptions {
  // Adds what the post-processor's template adds, mostly a begin-of-sequence
  // token. Leave it off for text that a chat template made.
  bool add_special_tokens = true;
  // Turns the spelling of a special token inside the text ("<|eot|>") into
  // that token. Off: it is text like any other. Added tokens that are not
  // special are always found.
  bool parse_special = true;
};

// What a tokenizer is read from: the contents of files, "" for one that does
// not exist.
struct TokenizerFiles {
  enum class Format { kTokenizerJson, kSentencePiece, kTekken };
  Format format = Format::kTokenizerJson;
  std::string_view tokenizer;  // of tokenizer.json, .model or tekken.json
  std::string_view tokenizer_config = {};    // tokenizer_config.json
  std::string_view special_tokens_map = {};  // special_tokens_map.json
};

// Immutable after Load; any number of threads may use one at once.
class Tokenizer {
 public:
  struct Parts;  // coordinator/text/tokenizer_parts.h

  // Reads the first of tokenizer.json, tokenizer.model and tekken.json that
  // `directory` has and, where they exist, tokenizer_config.json and
  // special_tokens_map.json. Errors name the file, the field and the value.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(
      const std::string& directory);

  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromFiles(
      const TokenizerFiles& files);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // InvalidArgument, naming the byte offset, when `text` is not UTF-8;
  // ResourceExhausted when a pre-tokenizer pattern needs more steps than
  // kMaxRegexSteps on it. O(n log n) in the bytes of the longest pre-token.
  absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text,
                                              EncodeOptions options) const;

  // Always valid UTF-8: bytes that form no character become U+FFFD. Ids that
  // name no token within [0, vocab_size()) decode to nothing; other ids are
  // InvalidArgument. The same text as pushing all ids through a Detokenizer.
  absl::StatusOr<std::string> Decode(std::span<const TokenId> ids,
                                     bool skip_special) const;

  // One more than the greatest id, added tokens included.
  int64_t vocab_size() const;
  std::optional<TokenId> IdOf(std::string_view token) const;
  std::optional<TokenId> eos_id() const;
  // Names and spellings that tokenizer_config.json gives ("bos_token", "<s>"),
  // by ascending name: what a chat template sees as variables.
  const std::vector<std::pair<std::string, std::string>>& special_tokens()
      const;

 private:
  friend class Detokenizer;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);

  std::unique_ptr<const Parts> parts_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_TOKENIZER_H_
