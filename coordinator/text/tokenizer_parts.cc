#include "coordinator/text/tokenizer_parts.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/tokenizer_config.h"

namespace witan {

namespace {

using Token = Tokenizer::Parts::Token;

constexpr std::string_view kTokenizerJson = "tokenizer.json";

absl::Status ReadVocabulary(const JsonValue& vocab,
                            std::vector<Token>* tokens) {
  simdjson::dom::object object;
  if (!vocab.exists() || vocab.element().get(object) != simdjson::SUCCESS) {
    return vocab.Mismatch("an object of tokens and their ids");
  }
  for (simdjson::dom::key_value_pair member : object) {
    const auto member_value = [&] {
      return JsonValue(member.value,
                       fmt::format("{}[\"{}\"]", vocab.path(), member.key));
    };
    int64_t id = 0;
    if (member.value.get(id) != simdjson::SUCCESS || id < 0 ||
        id >= kMaxVocabSize) {
      return member_value().Integer(0, kMaxVocabSize - 1).status();
    }
    Token token;
    token.text = member.key;
    token.exists = true;
    if (!Tokenizer::Parts::PlaceToken(std::move(token),
                                      static_cast<TokenId>(id), tokens)) {
      return member_value().Mismatch(fmt::format(
          "an id of its own; token '{}' has this one", (*tokens)[id].text));
    }
  }
  return absl::OkStatus();
}

// "model.vocab" of a Unigram model, of which Unigram::Parse reads the scores.
absl::Status ReadScoredVocabulary(const JsonValue& vocab,
                                  std::vector<Token>* tokens) {
  ASSIGN_OR_RETURN(const auto entries, vocab.Array());
  if (entries.size() > static_cast<size_t>(kMaxVocabSize)) {
    return InvalidArgument("{}: more than {} tokens", vocab.path(),
                           kMaxVocabSize);
  }
  for (const JsonValue& entry : entries) {
    simdjson::dom::array pair;
    std::string_view text;
    if (entry.element().get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
        pair.at(0).get(text) != simdjson::SUCCESS) {
      return entry.Mismatch("a token and its score");
    }
    Token token;
    token.text = text;
    token.exists = true;
    tokens->push_back(std::move(token));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::variant<Bpe, Unigram>> ParseModel(
    const JsonValue& model, const Vocabulary& ids,
    const PreTokenizer& pre_tokenizer, bool is_unigram) {
  if (!is_unigram) {
    return Bpe::Parse(model, ids, pre_tokenizer.is_byte_level());
  }
  if (pre_tokenizer.is_byte_level()) {
    return model["type"].Mismatch("BPE behind a ByteLevel pre-tokenizer");
  }
  return Unigram::Parse(model);
}

absl::StatusOr<AddedToken> ReadAddedToken(const JsonValue& value) {
  AddedToken token;
  ASSIGN_OR_RETURN(token.content, value["content"].String());
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) {
    return value["content"].Mismatch(
        fmt::format("1 to {} bytes", kMaxAddedTokenBytes));
  }
  ASSIGN_OR_RETURN(const int64_t id, value["id"].Integer(0, kMaxVocabSize - 1));
  token.id = static_cast<TokenId>(id);
  ASSIGN_OR_RETURN(token.special, value["special"].BoolOr(false));
  ASSIGN_OR_RETURN(token.lstrip, value["lstrip"].BoolOr(false));
  ASSIGN_OR_RETURN(token.rstrip, value["rstrip"].BoolOr(false));
  ASSIGN_OR_RETURN(token.single_word, value["single_word"].BoolOr(false));
  ASSIGN_OR_RETURN(token.normalized,
                   value["normalized"].BoolOr(!token.special));
  return token;
}

// Reads "added_tokens" and gives those that the model does not know a place.
absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(
    const JsonValue& value, const Vocabulary& vocabulary,
    std::vector<Token>* tokens) {
  std::vector<AddedToken> added_tokens;
  if (!value.exists()) return added_tokens;
  ASSIGN_OR_RETURN(const auto entries, value.Array());
  for (const JsonValue& entry : entries) {
    ASSIGN_OR_RETURN(AddedToken added, ReadAddedToken(entry));
    const auto known = vocabulary.find(added.content);
    if (known != vocabulary.end() && known->second != added.id) {
      return entry["id"].Mismatch(fmt::format(
          "{}, the id of '{}' in model.vocab", known->second, added.content));
    }
    if (known == vocabulary.end()) {
      Token token;
      token.text = added.content;
      token.exists = true;
      if (!Tokenizer::Parts::PlaceToken(std::move(token), added.id, tokens)) {
        return entry["id"].Mismatch(
            fmt::format("an id of its own; token '{}' has this one",
                        (*tokens)[added.id].text));
      }
    }
    if (added.special) (*tokens)[added.id].is_special = true;
    added_tokens.push_back(std::move(added));
  }
  return added_tokens;
}

// Appends the ids of one template item that is not the text itself.
absl::Status ReadTemplateToken(const JsonValue& item,
                               const JsonValue& post_processor,
                               const std::vector<Token>& tokens,
                               std::vector<TokenId>* ids) {
  ASSIGN_OR_RETURN(const std::string_view name,
                   item["SpecialToken"]["id"].String());
  const JsonValue listed = post_processor["special_tokens"][name]["ids"];
  ASSIGN_OR_RETURN(const auto entries, listed.Array());
  for (const JsonValue& entry : entries) {
    ASSIGN_OR_RETURN(const int64_t id, entry.Integer(0, kMaxVocabSize - 1));
    if (id >= static_cast<int64_t>(tokens.size()) || !tokens[id].exists) {
      return entry.Mismatch("the id of a token");
    }
    if (ids->size() >= kMaxPostProcessorTokens) {
      return entry.Mismatch(fmt::format("at most {} tokens around a text",
                                        kMaxPostProcessorTokens));
    }
    ids->push_back(static_cast<TokenId>(id));
  }
  return absl::OkStatus();
}

// Appends the id of a token that is given as [SPELLING, ID].
absl::Status ReadNamedToken(const JsonValue& value,
                            const Tokenizer::Parts& parts,
                            std::vector<TokenId>* ids) {
  ASSIGN_OR_RETURN(const auto entries, value.Array());
  if (entries.size() != 2) return value.Mismatch("a token and its id");
  ASSIGN_OR_RETURN(const int64_t id, entries[1].Integer(0, kMaxVocabSize - 1));
  if (parts.Find(static_cast<TokenId>(id)) == nullptr) {
    return entries[1].Mismatch("the id of a token");
  }
  ids->push_back(static_cast<TokenId>(id));
  return absl::OkStatus();
}

// Fills prefix and suffix; `*has_template` tells whether a template was found.
absl::Status ReadPostProcessor(const JsonValue& value, Tokenizer::Parts* parts,
                               bool* has_template) {
  if (!value.exists()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string_view type, value["type"].String());
  if (type == "ByteLevel") return absl::OkStatus();  // only moves offsets
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const auto members, value["processors"].Array());
    for (const JsonValue& member : members) {
      RETURN_IF_ERROR(ReadPostProcessor(member, parts, has_template));
    }
    return absl::OkStatus();
  }
  const bool is_pair = type == "RobertaProcessing" || type == "BertProcessing";
  if (!is_pair && type != "TemplateProcessing") {
    return value["type"].Mismatch(
        "TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel or "
        "Sequence");
  }
  if (*has_template) {
    return value.Mismatch("at most one that adds tokens to the text");
  }
  *has_template = true;
  if (is_pair) {
    RETURN_IF_ERROR(ReadNamedToken(value["cls"], *parts, &parts->prefix));
    return ReadNamedToken(value["sep"], *parts, &parts->suffix);
  }
  ASSIGN_OR_RETURN(const auto items, value["single"].Array());
  bool behind_text = false;
  for (const JsonValue& item : items) {
    if (item["Sequence"].exists()) {
      if (behind_text) return item.Mismatch("the text only once");
      behind_text = true;
      continue;
    }
    RETURN_IF_ERROR(
        ReadTemplateToken(item, value, parts->tokens,
                          behind_text ? &parts->suffix : &parts->prefix));
  }
  if (!behind_text) return value["single"].Mismatch("the text once");
  return absl::OkStatus();
}

// What a rule makes of a token's spelling; a rule that makes too much of it is
// a fault of the file.
absl::Status BlameFile(const absl::Status& status, const std::string& token) {
  if (status.ok()) return status;
  return InvalidArgument(
      "tokenizer.json: token {}: {}",
      nlohmann::json(token.substr(0, kMaxQuotedBytes))
          .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
      MessageOf(status));
}

// Parts those that are looked for in the text as given from those of normalized
// text, which stand for the normalized text that they are found in.
absl::Status PrepareAddedTokens(const std::vector<AddedToken>& added,
                                const Normalizer& normalizer,
                                std::vector<Token>* tokens,
                                std::vector<AddedToken>* raw,
                                std::vector<AddedToken>* normalized) {
  for (AddedToken token : added) {
    if (!token.normalized) {
      raw->push_back(std::move(token));
      continue;
    }
    absl::StatusOr<std::string> content = normalizer.Apply(token.content);
    RETURN_IF_ERROR(BlameFile(content.status(), token.content));
    if (content->size() > kMaxAddedTokenBytes) {
      return InvalidArgument(
          "tokenizer.json: normalizer makes more than {} bytes of an added "
          "token",
          kMaxAddedTokenBytes);
    }
    token.content = *std::move(content);
    (*tokens)[token.id].piece = token.content;
    if (!token.content.empty()) normalized->push_back(std::move(token));
  }
  return absl::OkStatus();
}

// Decodes the spelling of each token, or what stands in `piece` for it.
absl::Status FillPieces(const Decoder& decoder, std::vector<Token>* tokens) {
  int64_t num_bytes = 0;
  for (Token& token : *tokens) {
    if (!token.exists) continue;
    absl::StatusOr<std::string> piece =
        decoder.PieceOf(token.piece.empty() ? token.text : token.piece);
    RETURN_IF_ERROR(BlameFile(piece.status(), token.text));
    token.piece = *std::move(piece);
    num_bytes += static_cast<int64_t>(token.piece.size());
    if (num_bytes > kMaxTokenizerFileBytes) {
      return InvalidArgument(
          "tokenizer.json: decoder makes more than {} bytes of the vocabulary",
          kMaxTokenizerFileBytes);
    }
    if (decoder.byte_fallback()) token.byte = ByteOfByteToken(token.text);
  }
  return absl::OkStatus();
}

}  // namespace

bool Tokenizer::Parts::PlaceToken(Token token, TokenId id,
                                  std::vector<Token>* tokens) {
  if (static_cast<size_t>(id) >= tokens->size()) tokens->resize(id + 1);
  if ((*tokens)[id].exists) return false;
  (*tokens)[id] = std::move(token);
  return true;
}

absl::StatusOr<Vocabulary> Tokenizer::Parts::IndexTokens(
    const std::vector<Token>& tokens, std::string_view file) {
  Vocabulary ids;
  ids.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].exists || tokens[id].text.empty()) continue;
    const auto [entry, inserted] =
        ids.emplace(tokens[id].text, static_cast<TokenId>(id));
    if (!inserted) {
      return InvalidArgument("{}: token '{}' has two ids, {} and {}", file,
                             tokens[id].text, entry->second, id);
    }
  }
  return ids;
}

absl::Status Tokenizer::Parts::AssignRoles(const TokenizerConfig& config,
                                           std::string_view file) {
  ASSIGN_OR_RETURN(ids, IndexTokens(tokens, file));
  special_tokens = config.special_tokens;
  const auto id_of = [&](std::string_view role, std::optional<TokenId>* id) {
    const std::string* spelling = config.Find(role);
    if (spelling == nullptr) return absl::OkStatus();
    const auto found = ids.find(*spelling);
    if (found == ids.end()) {
      return InvalidArgument(
          "tokenizer_config.json: {}: '{}' is no token of {}", role, *spelling,
          file);
    }
    *id = found->second;
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(id_of("bos_token", &bos_id));
  return id_of("eos_token", &eos_id);
}

absl::Status Tokenizer::Parts::AddBosAndEos(bool add_bos, bool add_eos) {
  const auto add = [](bool wanted, std::string_view role,
                      std::optional<TokenId> id, std::vector<TokenId>* around) {
    if (!wanted) return absl::OkStatus();
    if (!id.has_value()) {
      return InvalidArgument(
          "tokenizer_config.json: add_{0} is true, but {0} is missing", role);
    }
    around->push_back(*id);
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(add(add_bos, "bos_token", bos_id, &prefix));
  return add(add_eos, "eos_token", eos_id, &suffix);
}

absl::StatusOr<std::unique_ptr<const Tokenizer::Parts>>
Tokenizer::Parts::FromTokenizerJson(const TokenizerFiles& files) {
  ASSIGN_OR_RETURN(const JsonDocument document,
                   JsonDocument::Parse(files.tokenizer, kTokenizerJson));
  ASSIGN_OR_RETURN(
      const TokenizerConfig config,
      TokenizerConfig::Parse(files.tokenizer_config, files.special_tokens_map));
  const JsonValue root = document.root();
  const JsonValue model = root["model"];
  // Files of before the field existed are BPE if they have merges.
  ASSIGN_OR_RETURN(
      const std::string_view type,
      model["type"].StringOr(model["merges"].exists() ? "BPE" : "missing"));
  const bool is_unigram = type == "Unigram";
  if (!is_unigram && type != "BPE") {
    return model["type"].Mismatch("BPE or Unigram");
  }

  std::vector<Token> tokens;
  RETURN_IF_ERROR(is_unigram ? ReadScoredVocabulary(model["vocab"], &tokens)
                             : ReadVocabulary(model["vocab"], &tokens));
  ASSIGN_OR_RETURN(Normalizer normalizer,
                   Normalizer::Parse(root["normalizer"]));
  ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer,
                   PreTokenizer::Parse(root["pre_tokenizer"]));
  ASSIGN_OR_RETURN(Decoder decoder, Decoder::Parse(root["decoder"]));
  ASSIGN_OR_RETURN(Vocabulary model_ids,
                   IndexTokens(tokens, "tokenizer.json: model.vocab"));
  ASSIGN_OR_RETURN(auto text_model,
                   ParseModel(model, model_ids, pre_tokenizer, is_unigram));
  // `tokens` may grow from here on, which moves what `model_ids` looks at.
  std::vector<Token> all_tokens = tokens;
  ASSIGN_OR_RETURN(
      const std::vector<AddedToken> added,
      ReadAddedTokens(root["added_tokens"], model_ids, &all_tokens));
  std::vector<AddedToken> raw;
  std::vector<AddedToken> normalized;
  RETURN_IF_ERROR(
      PrepareAddedTokens(added, normalizer, &all_tokens, &raw, &normalized));
  ASSIGN_OR_RETURN(AddedTokenMatcher raw_matcher,
                   AddedTokenMatcher::Create(std::move(raw)));
  ASSIGN_OR_RETURN(AddedTokenMatcher normalized_matcher,
                   AddedTokenMatcher::Create(std::move(normalized)));
  RETURN_IF_ERROR(FillPieces(decoder, &all_tokens));

  auto parts = std::make_unique<Parts>(
      Parts{.tokens = std::move(all_tokens),
            .normalizer = std::move(normalizer),
            .added_tokens = std::move(raw_matcher),
            .normalized_added_tokens = std::move(normalized_matcher),
            .pre_tokenizer = std::move(pre_tokenizer),
            .model = std::move(text_model),
            .decoder = std::move(decoder)});
  RETURN_IF_ERROR(parts->AssignRoles(config, kTokenizerJson));
  bool has_template = false;
  RETURN_IF_ERROR(
      ReadPostProcessor(root["post_processor"], parts.get(), &has_template));
  if (!has_template) {
    RETURN_IF_ERROR(parts->AddBosAndEos(config.add_bos_token.value_or(false),
                                        config.add_eos_token.value_or(false)));
  }
  return parts;
}

}  // namespace witan
