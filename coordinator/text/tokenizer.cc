#include "coordinator/text/tokenizer.h"

#include <utility>

#include "base/file.h"
#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/detokenizer.h"
#include "coordinator/text/sentencepiece_model.h"
#include "coordinator/text/tokenizer_parts.h"

namespace witan {

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts)
    : parts_(std::move(parts)) {}

Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(
    const std::string& directory) {
  using Format = TokenizerFiles::Format;
  constexpr std::pair<const char*, Format> kFormats[] = {
      {"tokenizer.json", Format::kTokenizerJson},
      {"tokenizer.model", Format::kSentencePiece},
      {"tekken.json", Format::kTekken}};
  TokenizerFiles files;
  absl::StatusOr<std::string> contents = NotFound(
      "{}: none of tokenizer.json, tokenizer.model and tekken.json is there; a "
      "model directory needs one of them",
      directory);
  for (const auto& [name, format] : kFormats) {
    absl::StatusOr<std::string> read =
        ReadFile(directory + "/" + name, kMaxTokenizerFileBytes);
    if (absl::IsNotFound(read.status())) continue;
    contents = std::move(read);
    files.format = format;
    break;
  }
  RETURN_IF_ERROR(contents.status());
  ASSIGN_OR_RETURN(const std::string config,
                   ReadFileOrEmpty(directory + "/tokenizer_config.json",
                                   kMaxTokenizerFileBytes));
  ASSIGN_OR_RETURN(const std::string special_tokens_map,
                   ReadFileOrEmpty(directory + "/special_tokens_map.json",
                                   kMaxTokenizerFileBytes));
  files.tokenizer = *contents;
  files.tokenizer_config = config;
  files.special_tokens_map = special_tokens_map;
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = FromFiles(files);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), directory);
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromFiles(
    const TokenizerFiles& files) {
  absl::StatusOr<std::unique_ptr<const Parts>> parts;
  switch (files.format) {
    case TokenizerFiles::Format::kTokenizerJson:
      parts = Parts::FromTokenizerJson(files);
      break;
    case TokenizerFiles::Format::kSentencePiece:
      parts = Parts::FromSentencePiece(files);
      break;
    case TokenizerFiles::Format::kTekken:
      parts = Parts::FromTekken(files);
      break;
  }
  RETURN_IF_ERROR(parts.status());
  return std::unique_ptr<Tokenizer>(new Tokenizer(*std::move(parts)));
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::Encode(
    std::string_view text, EncodeOptions options) const {
  if (text.size() > kMaxEncodeTextBytes) {
    return InvalidArgument("text of {} bytes exceeds the limit of {}",
                           text.size(), kMaxEncodeTextBytes);
  }
  const size_t invalid = ValidUtf8Prefix(text);
  if (invalid != text.size()) {
    return InvalidArgument("text is not valid UTF-8 at byte {} (0x{:02X})",
                           invalid, static_cast<uint8_t>(text[invalid]));
  }
  std::vector<TokenId> ids;
  Parts::Scratch scratch;
  if (options.add_special_tokens) ids = parts_->prefix;
  ASSIGN_OR_RETURN(const auto segments,
                   parts_->added_tokens.Split(text, options.parse_special));
  if (parts_->spaces_leading_token && !segments.empty() &&
      segments.front().token_id.has_value() &&
      !parts_->tokens[*segments.front().token_id].is_special) {
    parts_->EncodeWord(kSpaceMark, &scratch, &ids);
  }
  for (const AddedTokenMatcher::Segment& segment : segments) {
    if (segment.token_id.has_value()) {
      ids.push_back(*segment.token_id);
      continue;
    }
    RETURN_IF_ERROR(parts_->EncodeText(
        text.substr(segment.begin, segment.end - segment.begin),
        /*at_text_start=*/segment.begin == 0, options.parse_special, &scratch,
        &ids));
  }
  if (options.add_special_tokens) {
    ids.insert(ids.end(), parts_->suffix.begin(), parts_->suffix.end());
  }
  return ids;
}

void Tokenizer::Parts::EncodeWord(std::string_view word, Scratch* scratch,
                                  std::vector<TokenId>* out) const {
  if (const auto* bpe = std::get_if<Bpe>(&model)) {
    bpe->Encode(word, &scratch->bpe, out);
  } else {
    std::get<Unigram>(model).Encode(word, &scratch->unigram, out);
  }
}

absl::Status Tokenizer::Parts::EncodeText(std::string_view text,
                                          bool at_text_start,
                                          bool parse_special, Scratch* scratch,
                                          std::vector<TokenId>* out) const {
  ASSIGN_OR_RETURN(const std::string normalized,
                   normalizer.Apply(text, at_text_start));
  ASSIGN_OR_RETURN(const auto segments,
                   normalized_added_tokens.Split(normalized, parse_special));
  const auto encode_word = [&](std::string_view word) {
    EncodeWord(word, scratch, out);
  };
  for (const AddedTokenMatcher::Segment& segment : segments) {
    if (segment.token_id.has_value()) {
      out->push_back(*segment.token_id);
      continue;
    }
    RETURN_IF_ERROR(pre_tokenizer.Apply(
        std::string_view(normalized)
            .substr(segment.begin, segment.end - segment.begin),
        at_text_start && segment.begin == 0, encode_word));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const TokenId> ids,
                                              bool skip_special) const {
  Detokenizer detokenizer(*this, {.skip_special = skip_special});
  std::string text;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size()) {
      return InvalidArgument("token id {} at index {}; allowed: 0 to {}",
                             ids[i], i, vocab_size() - 1);
    }
    text += detokenizer.Push(ids[i]);
  }
  return text + detokenizer.Finish();
}

int64_t Tokenizer::vocab_size() const {
  return static_cast<int64_t>(parts_->tokens.size());
}

std::optional<TokenId> Tokenizer::IdOf(std::string_view token) const {
  const auto found = parts_->ids.find(token);
  if (found == parts_->ids.end()) return std::nullopt;
  return found->second;
}

std::optional<TokenId> Tokenizer::eos_id() const { return parts_->eos_id; }

const std::vector<std::pair<std::string, std::string>>&
Tokenizer::special_tokens() const {
  return parts_->special_tokens;
}

}  // namespace witan
