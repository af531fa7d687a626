#include "coordinator/text/sentencepiece_normalizer.h"

#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"

namespace witan {

absl::StatusOr<SentencePieceNormalizer> SentencePieceNormalizer::Create(
    const SentencePieceModel& model) {
  SentencePieceNormalizer normalizer;
  if (!model.precompiled_charsmap.empty()) {
    absl::StatusOr<PrecompiledCharsmap> charsmap =
        PrecompiledCharsmap::Parse(model.precompiled_charsmap);
    if (!charsmap.ok()) {
      return Annotate(charsmap.status(),
                      "tokenizer.model: normalizer_spec: precompiled_charsmap");
    }
    normalizer.charsmap_ = *std::move(charsmap);
  }
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePieceModel::Piece& piece = model.pieces[id];
    if (piece.kind == SentencePieceModel::Kind::kUserDefined) {
      normalizer.user_defined_.Insert(piece.text, static_cast<int32_t>(id));
    }
  }
  normalizer.add_dummy_prefix_ = model.add_dummy_prefix;
  normalizer.remove_extra_whitespaces_ = model.remove_extra_whitespaces;
  normalizer.suffix_instead_ = model.treat_whitespace_as_suffix;
  normalizer.space_ = model.escape_whitespaces ? kSpaceMark : " ";
  return normalizer;
}

SentencePieceNormalizer::Step SentencePieceNormalizer::Next(
    std::string_view text) const {
  const size_t verbatim = user_defined_.LongestPrefix(text);
  if (verbatim > 0) return {verbatim, text.substr(0, verbatim)};
  if (const auto match = charsmap_.Longest(text)) {
    return {match->num_bytes, match->replacement};
  }
  size_t end = 0;
  DecodeUtf8(text, &end);
  return {end, text.substr(0, end)};
}

absl::StatusOr<std::string> SentencePieceNormalizer::Apply(
    std::string_view text, bool wants_dummy_prefix) const {
  std::string result;
  if (remove_extra_whitespaces_) {
    while (!text.empty()) {
      const Step step = Next(text);
      if (step.replacement != " ") break;
      text.remove_prefix(step.num_bytes);
    }
  }
  if (text.empty()) return result;
  result.reserve(text.size() + text.size() / 2);
  const bool adds_space = add_dummy_prefix_ && wants_dummy_prefix;
  if (adds_space && !suffix_instead_) result += space_;
  bool follows_space = remove_extra_whitespaces_;
  while (!text.empty()) {
    const Step step = Next(text);
    text.remove_prefix(step.num_bytes);
    std::string_view added = step.replacement;
    while (follows_space && added.starts_with(' ')) added.remove_prefix(1);
    if (added.empty()) continue;
    for (char c : added) {
      if (c == ' ') {
        result += space_;
      } else {
        result += c;
      }
    }
    follows_space = remove_extra_whitespaces_ && added.ends_with(' ');
    if (result.size() > kMaxEncodeTextBytes) {
      return ResourceExhausted("the normalizer makes more than {} bytes",
                               kMaxEncodeTextBytes);
    }
  }
  if (remove_extra_whitespaces_) {
    while (result.ends_with(space_)) {
      result.resize(result.size() - space_.size());
    }
  }
  if (adds_space && suffix_instead_) result += space_;
  return result;
}

}  // namespace witan
