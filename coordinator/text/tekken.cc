// A Tokenizer from tekken.json: Mistral's format, as mistral-common reads it
// (mistral_common/tokens/tokenizers/tekken.py).

#include <array>
#include <string>
#include <unordered_set>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/base64.h"
#include "coordinator/text/tokenizer_parts.h"

namespace witan {

namespace {

using Token = Tokenizer::Parts::Token;

constexpr std::string_view kTekkenJson = "tekken.json";

// Special tokens of files of before they were listed, by id.
constexpr std::array<std::string_view, 20> kUnlistedSpecialTokens = {
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]"};

absl::Status PlaceSpecialToken(std::string_view text, TokenId id,
                               const JsonValue& value,
                               std::vector<Token>* tokens,
                               std::vector<AddedToken>* added) {
  Token token;
  token.text = text;
  token.piece = text;
  token.exists = true;
  token.is_special = true;
  if (!Tokenizer::Parts::PlaceToken(std::move(token), id, tokens)) {
    return value.Mismatch(
        fmt::format("an id of its own; token '{}' has this one",
                    (*tokens)[static_cast<size_t>(id)].text));
  }
  added->push_back({.content = std::string(text), .id = id, .special = true});
  return absl::OkStatus();
}

// Those that are listed, then fillers up to `num_special_tokens`.
absl::Status ReadSpecialTokens(const JsonValue& value,
                               int64_t num_special_tokens,
                               std::vector<Token>* tokens,
                               std::vector<AddedToken>* added) {
  int64_t num_listed = 0;
  if (value.exists()) {
    ASSIGN_OR_RETURN(const auto entries, value.Array());
    for (const JsonValue& entry : entries) {
      ASSIGN_OR_RETURN(const int64_t id,
                       entry["rank"].Integer(0, num_special_tokens - 1));
      ASSIGN_OR_RETURN(const std::string_view text,
                       entry["token_str"].String());
      if (text.empty() || text.size() > kMaxAddedTokenBytes) {
        return entry["token_str"].Mismatch(
            fmt::format("1 to {} bytes", kMaxAddedTokenBytes));
      }
      RETURN_IF_ERROR(PlaceSpecialToken(text, static_cast<TokenId>(id),
                                        entry["rank"], tokens, added));
      ++num_listed;
    }
  } else {
    for (const std::string_view text : kUnlistedSpecialTokens) {
      if (num_listed == num_special_tokens) break;
      RETURN_IF_ERROR(PlaceSpecialToken(text, static_cast<TokenId>(num_listed),
                                        value, tokens, added));
      ++num_listed;
    }
  }
  for (int64_t id = num_listed; id < num_special_tokens; ++id) {
    RETURN_IF_ERROR(PlaceSpecialToken(fmt::format("<SPECIAL_{}>", id),
                                      static_cast<TokenId>(id), value, tokens,
                                      added));
  }
  return absl::OkStatus();
}

// The first `num_tokens` of "vocab", behind the special tokens.
absl::Status ReadVocabulary(const JsonValue& vocab, int64_t num_tokens,
                            std::vector<Token>* tokens) {
  tokens->reserve(tokens->size() + static_cast<size_t>(num_tokens));
  simdjson::dom::array array;
  if (!vocab.exists() || vocab.element().get(array) != simdjson::SUCCESS) {
    return vocab.Mismatch("an array of tokens");
  }
  std::unordered_set<std::string_view> special;
  for (const Token& token : *tokens) special.insert(token.text);
  std::unordered_set<std::string> seen;
  int64_t index = 0;
  for (simdjson::dom::element element : array) {
    if (index == num_tokens) break;
    const auto value = [&] {
      return JsonValue(element, fmt::format("{}[{}]", vocab.path(), index));
    };
    int64_t rank = 0;
    std::string_view text;
    if (element.at_key("rank").get(rank) != simdjson::SUCCESS ||
        rank != index) {
      return value().Mismatch(fmt::format("the rank {}", index));
    }
    std::optional<std::string> bytes;
    if (element.at_key("token_bytes").get(text) == simdjson::SUCCESS) {
      bytes = DecodeBase64(text);
    }
    if (!bytes.has_value() || bytes->empty() ||
        bytes->size() > kMaxTokenSpellingBytes) {
      return value()["token_bytes"].Mismatch(
          fmt::format("1 to {} bytes in base64", kMaxTokenSpellingBytes));
    }
    if (index < 256 &&
        (bytes->size() != 1 || static_cast<uint8_t>((*bytes)[0]) != index)) {
      return value()["token_bytes"].Mismatch(fmt::format("byte {}", index));
    }
    if (!seen.insert(*bytes).second) {
      return value()["token_bytes"].Mismatch("bytes of its own");
    }
    Token token;
    // Parts of characters have no spelling; a special token keeps its own.
    if (IsValidUtf8(*bytes) && !special.contains(*bytes)) token.text = *bytes;
    token.piece = *std::move(bytes);
    token.exists = true;
    tokens->push_back(std::move(token));
    ++index;
  }
  if (index != num_tokens) {
    return InvalidArgument(
        "{}: {} tokens; config.default_vocab_size less "
        "config.default_num_special_tokens are {}",
        vocab.path(), index, num_tokens);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer::Parts>>
Tokenizer::Parts::FromTekken(const TokenizerFiles& files) {
  ASSIGN_OR_RETURN(const JsonDocument document,
                   JsonDocument::Parse(files.tokenizer, kTekkenJson));
  ASSIGN_OR_RETURN(
      const TokenizerConfig config,
      TokenizerConfig::Parse(files.tokenizer_config, files.special_tokens_map));
  const JsonValue root = document.root();
  const JsonValue settings = root["config"];
  ASSIGN_OR_RETURN(const int64_t vocab_size,
                   settings["default_vocab_size"].Integer(1, kMaxVocabSize));
  ASSIGN_OR_RETURN(
      const int64_t num_special_tokens,
      settings["default_num_special_tokens"].Integer(0, vocab_size));
  const JsonValue pattern_value = settings["pattern"];
  ASSIGN_OR_RETURN(const std::string_view pattern, pattern_value.String());
  absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::ByteLevel(pattern);
  if (!pre_tokenizer.ok()) {
    return Annotate(pre_tokenizer.status(), pattern_value.path());
  }

  std::vector<Token> tokens;
  std::vector<AddedToken> added;
  RETURN_IF_ERROR(ReadSpecialTokens(root["special_tokens"], num_special_tokens,
                                    &tokens, &added));
  RETURN_IF_ERROR(
      ReadVocabulary(root["vocab"], vocab_size - num_special_tokens, &tokens));
  std::vector<Bpe::RankedToken> ranked;
  for (size_t id = added.size(); id < tokens.size(); ++id) {
    ranked.push_back({tokens[id].piece, static_cast<TokenId>(id),
                      static_cast<uint32_t>(id)});
  }
  absl::StatusOr<Bpe> bpe =
      Bpe::FromRankedTokens(ranked, {.is_byte_level = true});
  if (!bpe.ok()) {
    return InvalidArgument("tekken.json: vocab: {}", MessageOf(bpe.status()));
  }
  ASSIGN_OR_RETURN(AddedTokenMatcher matcher,
                   AddedTokenMatcher::Create(std::move(added)));
  ASSIGN_OR_RETURN(AddedTokenMatcher none, AddedTokenMatcher::Create({}));
  auto parts =
      std::make_unique<Parts>(Parts{.tokens = std::move(tokens),
                                    .normalizer = Normalizer(),
                                    .added_tokens = std::move(matcher),
                                    .normalized_added_tokens = std::move(none),
                                    .pre_tokenizer = *std::move(pre_tokenizer),
                                    .model = *std::move(bpe),
                                    .decoder = Decoder::ByteLevel()});
  RETURN_IF_ERROR(parts->AssignRoles(config, kTekkenJson));
  const auto default_to = [&](std::string_view token,
                              std::optional<TokenId>* id) {
    const auto found = parts->ids.find(token);
    if (!id->has_value() && found != parts->ids.end()) *id = found->second;
  };
  default_to("<s>", &parts->bos_id);
  default_to("</s>", &parts->eos_id);
  RETURN_IF_ERROR(parts->AddBosAndEos(
      config.add_bos_token.value_or(parts->bos_id.has_value()),
      config.add_eos_token.value_or(false)));
  return parts;
}

}  // namespace witan
