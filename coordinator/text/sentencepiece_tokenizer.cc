// A Tokenizer from tokenizer.model.

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/sentencepiece_model.h"
#include "coordinator/text/sentencepiece_normalizer.h"
#include "coordinator/text/tokenizer_parts.h"

namespace witan {

namespace {

using Token = Tokenizer::Parts::Token;
using Kind = SentencePieceModel::Kind;

constexpr std::string_view kTokenizerModel = "tokenizer.model";

std::string WithSpaces(std::string_view piece) {
  std::string text;
  size_t begin = 0;
  for (size_t end = 0;
       (end = piece.find(kSpaceMark, begin)) != std::string_view::npos;) {
    text += piece.substr(begin, end - begin);
    text += ' ';
    begin = end + kSpaceMark.size();
  }
  return text += piece.substr(begin);
}

std::vector<Token> TokensOf(const SentencePieceModel& model) {
  std::vector<Token> tokens;
  tokens.reserve(model.pieces.size());
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    Token token;
    token.text = piece.text;
    token.exists = true;
    token.is_special = piece.kind == Kind::kControl;
    switch (piece.kind) {
      case Kind::kByte:
        token.byte = ByteOfByteToken(piece.text);
        break;
      case Kind::kControl:
        token.piece = piece.text;
        break;
      case Kind::kUnknown:
        token.piece = model.unknown_surface;
        break;
      default:
        token.piece = WithSpaces(piece.text);
        token.begins_word = piece.text.starts_with(kSpaceMark);
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// Normal pieces may merge, those of the highest score first.
absl::StatusOr<Bpe> MakeBpe(const SentencePieceModel& model) {
  std::vector<Bpe::RankedToken> ranked;
  Vocabulary characters;
  std::set<float> scores;
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    const SentencePieceModel::Piece& piece = model.pieces[i];
    const auto id = static_cast<TokenId>(i);
    if (piece.kind != Kind::kUnknown) characters.emplace(piece.text, id);
    if (piece.kind != Kind::kNormal) continue;
    ranked.push_back({piece.text, id, 0});
    scores.insert(piece.score);
  }
  // Pieces of one score have one rank.
  const std::vector<float> ascending(scores.begin(), scores.end());
  for (Bpe::RankedToken& token : ranked) {
    const auto above =
        std::upper_bound(ascending.begin(), ascending.end(),
                         model.pieces[static_cast<size_t>(token.id)].score);
    token.rank = static_cast<uint32_t>(ascending.end() - above);
  }
  absl::StatusOr<Bpe> bpe =
      Bpe::FromRankedTokens(ranked, {.characters = &characters,
                                     .byte_fallback = model.byte_fallback,
                                     .unknown_id = model.unknown_id});
  if (!bpe.ok()) {
    return InvalidArgument("tokenizer.model: pieces: {}",
                           MessageOf(bpe.status()));
  }
  return bpe;
}

// Tokens of tokenizer_config.json get their place and their switches; control
// pieces that it does not name are found in text as they stand.
absl::StatusOr<std::vector<AddedToken>> PlaceAddedTokens(
    const TokenizerConfig& config, const SentencePieceModel& model,
    std::vector<Token>* tokens) {
  std::vector<AddedToken> added;
  std::set<TokenId> placed;
  for (AddedToken token : config.added_tokens) {
    const auto id = static_cast<size_t>(token.id);
    const std::string field =
        fmt::format("tokenizer_config.json: added_tokens_decoder.{}", id);
    if (id < tokens->size() && (*tokens)[id].exists) {
      if ((*tokens)[id].text != token.content) {
        return InvalidArgument("{}: got '{}'; tokenizer.model has '{}' there",
                               field, token.content, (*tokens)[id].text);
      }
      if (token.special) (*tokens)[id].piece = token.content;
      (*tokens)[id].begins_word = false;
    } else {
      Token fresh;
      fresh.text = token.content;
      fresh.piece = token.content;
      fresh.exists = true;
      Tokenizer::Parts::PlaceToken(std::move(fresh), token.id, tokens);
    }
    (*tokens)[id].is_special = token.special;
    placed.insert(token.id);
    token.normalized = false;  // the Python tokenizer knows no such thing
    added.push_back(std::move(token));
  }
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    const SentencePieceModel::Piece& piece = model.pieces[i];
    const auto id = static_cast<TokenId>(i);
    if (piece.kind != Kind::kControl || placed.contains(id)) continue;
    if (piece.text.size() > kMaxAddedTokenBytes) continue;
    added.push_back({.content = piece.text, .id = id, .special = true});
  }
  return added;
}

// User-defined pieces of a BPE model are found before anything merges.
std::vector<AddedToken> UserDefined(const SentencePieceModel& model) {
  std::vector<AddedToken> found;
  if (model.algorithm != SentencePieceModel::Algorithm::kBpe) return found;
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    if (model.pieces[i].kind != Kind::kUserDefined) continue;
    found.push_back(
        {.content = model.pieces[i].text, .id = static_cast<TokenId>(i)});
  }
  return found;
}

// An unknown token that the companions name is special, as they have it.
void MarkUnknown(const TokenizerConfig& config, const SentencePieceModel& model,
                 Token* token) {
  const std::string* named = config.Find("unk_token");
  if (named == nullptr ||
      *named != model.pieces[static_cast<size_t>(model.unknown_id)].text) {
    return;
  }
  token->is_special = true;
  token->piece = token->text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer::Parts>>
Tokenizer::Parts::FromSentencePiece(const TokenizerFiles& files) {
  ASSIGN_OR_RETURN(const SentencePieceModel model,
                   SentencePieceModel::Parse(files.tokenizer));
  ASSIGN_OR_RETURN(
      const TokenizerConfig config,
      TokenizerConfig::Parse(files.tokenizer_config, files.special_tokens_map));
  std::vector<Token> tokens = TokensOf(model);
  ASSIGN_OR_RETURN(std::vector<AddedToken> added,
                   PlaceAddedTokens(config, model, &tokens));
  MarkUnknown(config, model, &tokens[static_cast<size_t>(model.unknown_id)]);
  ASSIGN_OR_RETURN(SentencePieceNormalizer rules,
                   SentencePieceNormalizer::Create(model));
  ASSIGN_OR_RETURN(AddedTokenMatcher raw,
                   AddedTokenMatcher::Create(std::move(added)));
  ASSIGN_OR_RETURN(AddedTokenMatcher normalized,
                   AddedTokenMatcher::Create(UserDefined(model)));
  std::variant<Bpe, Unigram> text_model = Unigram();
  if (model.algorithm == SentencePieceModel::Algorithm::kBpe) {
    ASSIGN_OR_RETURN(text_model, MakeBpe(model));
  } else {
    text_model = Unigram::FromSentencePiece(model);
  }
  // With `legacy` the library puts the space before every text, otherwise the
  // Python tokenizer does it once.
  const bool is_legacy = config.legacy.value_or(true);
  const bool has_prefix = is_legacy ? model.add_dummy_prefix
                                    : config.add_prefix_space.value_or(true);
  rules.set_add_dummy_prefix(has_prefix);
  int num_stripped = 0;
  if (model.add_dummy_prefix || model.remove_extra_whitespaces) {
    num_stripped = model.remove_extra_whitespaces
                       ? std::numeric_limits<int32_t>::max()
                       : 1;
  }
  auto parts = std::make_unique<Parts>(Parts{
      .tokens = std::move(tokens),
      .normalizer = Normalizer::FromSentencePiece(std::move(rules), !is_legacy),
      .added_tokens = std::move(raw),
      .normalized_added_tokens = std::move(normalized),
      .pre_tokenizer = PreTokenizer(),
      .model = std::move(text_model),
      .decoder = Decoder::SentencePiece(num_stripped),
      .spaces_leading_token = !is_legacy && has_prefix});
  RETURN_IF_ERROR(parts->AssignRoles(config, kTokenizerModel));
  if (!parts->bos_id.has_value()) parts->bos_id = model.bos_id;
  if (!parts->eos_id.has_value()) parts->eos_id = model.eos_id;
  RETURN_IF_ERROR(parts->AddBosAndEos(
      config.add_bos_token.value_or(parts->bos_id.has_value()),
      config.add_eos_token.value_or(false)));
  return parts;
}

}  // namespace witan
