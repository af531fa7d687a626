#include "coordinator/text/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/bpe.h"

namespace witan {

namespace {

// Both libraries take it from the lowest score for an unknown character.
constexpr double kUnknownPenalty = 10.0;
// What a user-defined piece gets for each of its bytes behind the first, so
// that it wins over others and a longer one wins over two (sentencepiece 0.2.3;
// before, it was the highest score for each byte less this).
constexpr double kUserDefinedBonus = 0.1;

}  // namespace

absl::StatusOr<Unigram> Unigram::Parse(const JsonValue& model) {
  Unigram unigram;
  unigram.byte_ids_.fill(-1);
  ASSIGN_OR_RETURN(unigram.byte_fallback_,
                   model["byte_fallback"].BoolOr(false));
  const JsonValue vocab = model["vocab"];
  ASSIGN_OR_RETURN(const auto entries, vocab.Array());
  double lowest = std::numeric_limits<double>::infinity();
  for (const JsonValue& entry : entries) {
    simdjson::dom::array pair;
    std::string_view text;
    double score = 0;
    if (entry.element().get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
        pair.at(0).get(text) != simdjson::SUCCESS ||
        pair.at(1).get(score) != simdjson::SUCCESS || !std::isfinite(score)) {
      return entry.Mismatch("a token and its score");
    }
    if (text.size() > kMaxTokenSpellingBytes) {
      return entry.Mismatch(
          fmt::format("a token of at most {} bytes", kMaxTokenSpellingBytes));
    }
    const auto id = static_cast<TokenId>(unigram.scores_.size());
    if (!text.empty()) unigram.pieces_.Insert(text, id);
    const std::optional<uint8_t> byte = ByteOfByteToken(text);
    if (byte.has_value() && text == fmt::format("<0x{:02X}>", *byte)) {
      unigram.byte_ids_[*byte] = id;
    }
    unigram.scores_.push_back(score);
    lowest = std::min(lowest, score);
  }
  unigram.unknown_score_ = lowest - kUnknownPenalty;
  ASSIGN_OR_RETURN(const int64_t unknown,
                   model["unk_id"].Integer(
                       0, static_cast<int64_t>(unigram.scores_.size()) - 1));
  unigram.unknown_id_ = static_cast<TokenId>(unknown);
  return unigram;
}

Unigram Unigram::FromSentencePiece(const SentencePieceModel& model) {
  using Kind = SentencePieceModel::Kind;
  Unigram unigram;
  unigram.single_precision_ = true;
  unigram.byte_fallback_ = model.byte_fallback;
  unigram.unknown_id_ = model.unknown_id;
  unigram.byte_ids_.fill(-1);
  unigram.scores_.resize(model.pieces.size());
  float lowest = std::numeric_limits<float>::max();
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    if (piece.kind != Kind::kNormal) continue;
    lowest = std::min(lowest, piece.score);
  }
  unigram.unknown_score_ = lowest - static_cast<float>(kUnknownPenalty);
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    const SentencePieceModel::Piece& piece = model.pieces[i];
    const auto id = static_cast<TokenId>(i);
    if (piece.kind == Kind::kByte) {
      unigram.byte_ids_[*ByteOfByteToken(piece.text)] = id;
    } else if (piece.kind == Kind::kNormal) {
      unigram.scores_[i] = piece.score;
      unigram.pieces_.Insert(piece.text, id);
    } else if (piece.kind == Kind::kUserDefined) {
      unigram.scores_[i] = static_cast<float>(
          kUserDefinedBonus * static_cast<double>(piece.text.size() - 1));
      unigram.pieces_.Insert(piece.text, id);
    }
  }
  return unigram;
}

void Unigram::FindBestPath(std::string_view word, Scratch* scratch) const {
  std::vector<Scratch::Node>& best = scratch->best;
  best.assign(word.size() + 1, Scratch::Node());
  const auto improve = [&](size_t begin, size_t end, TokenId id, double score) {
    double candidate = best[begin].score + score;
    // Rounded before it is compared, so that what rounding makes equal is.
    if (single_precision_) candidate = static_cast<float>(candidate);
    Scratch::Node& node = best[end];
    if (node.begin >= 0 && candidate <= node.score) return;
    node.score = candidate;
    node.begin = static_cast<int32_t>(begin);
    node.id = id;
  };
  size_t begin = 0;
  while (begin < word.size()) {
    size_t character_end = begin;
    DecodeUtf8(word, &character_end);
    bool is_piece = false;
    ByteTrie::Node node = ByteTrie::kRoot;
    size_t end = begin;
    while (end < word.size()) {
      node = pieces_.Child(node, word[end++]);
      if (node == ByteTrie::kNone) break;
      const int32_t id = pieces_.ValueAt(node);
      if (id < 0) continue;
      improve(begin, end, id, scores_[id]);
      is_piece = is_piece || end == character_end;
    }
    scratch->num_lookups_ += static_cast<int64_t>(end - begin);
    if (!is_piece) improve(begin, character_end, unknown_id_, unknown_score_);
    begin = character_end;
  }
}

void Unigram::AppendUnknown(std::string_view text,
                            std::vector<TokenId>* ids) const {
  const auto byte_id = [&](char byte) {
    return byte_ids_[static_cast<uint8_t>(byte)];
  };
  if (byte_fallback_ && std::all_of(text.begin(), text.end(), [&](char byte) {
        return byte_id(byte) >= 0;
      })) {
    for (char byte : text) ids->push_back(byte_id(byte));
  } else {
    ids->push_back(unknown_id_);
  }
}

void Unigram::Encode(std::string_view word, Scratch* scratch,
                     std::vector<TokenId>* ids) const {
  if (word.empty()) return;
  FindBestPath(word, scratch);
  std::vector<Scratch::Piece>& path = scratch->path;
  path.clear();
  for (auto end = static_cast<int32_t>(word.size()); end > 0;) {
    const Scratch::Node& node = scratch->best[end];
    if (node.id == unknown_id_ && !path.empty() &&
        path.back().id == unknown_id_) {
      path.back().begin = node.begin;
    } else {
      path.push_back({node.begin, end, node.id});
    }
    end = node.begin;
  }
  for (auto piece = path.rbegin(); piece != path.rend(); ++piece) {
    const std::string_view text =
        word.substr(piece->begin, piece->end - piece->begin);
    if (piece->id != unknown_id_) {
      ids->push_back(piece->id);
      continue;
    }
    // The spelling of the unknown token itself is not unknown.
    ByteTrie::Node node = ByteTrie::kRoot;
    for (char byte : text) {
      node = pieces_.Child(node, byte);
      if (node == ByteTrie::kNone) break;
    }
    const int32_t id = node == ByteTrie::kNone ? -1 : pieces_.ValueAt(node);
    if (id >= 0) {
      ids->push_back(id);
    } else {
      AppendUnknown(text, ids);
    }
  }
}

}  // namespace witan
