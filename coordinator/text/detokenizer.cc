#include "coordinator/text/detokenizer.h"

#include <utility>

#include "base/utf8.h"
#include "coordinator/text/tokenizer_parts.h"

namespace witan {

namespace {

std::string Without(std::string_view text, std::string_view removed) {
  std::string result;
  size_t begin = 0;
  size_t end = 0;
  while ((end = text.find(removed, begin)) != std::string_view::npos) {
    result += text.substr(begin, end - begin);
    begin = end + removed.size();
  }
  result += text.substr(begin);
  return result;
}

}  // namespace

Detokenizer::Detokenizer(const Tokenizer& tokenizer, DetokenizeOptions options)
    : parts_(tokenizer.parts_.get()),
      options_(options),
      at_first_token_(!options.continues_text),
      num_to_strip_(options.continues_text
                        ? 0
                        : parts_->decoder.num_stripped_at_start()) {}

std::string Detokenizer::Push(TokenId id) {
  const Tokenizer::Parts::Token* token = parts_->Find(id);
  if (token == nullptr) return {};
  if (options_.skip_special && token->is_special) return {};
  const bool is_first = std::exchange(at_first_token_, false);
  std::string text;
  if (parts_->decoder.is_byte_level()) {
    held_bytes_ += token->piece;
    TakeCharacters(&text);
    return text;
  }
  if (token->byte.has_value()) {
    held_bytes_ += static_cast<char>(*token->byte);
    TakeCharacters(&text);
  } else if (parts_->decoder.strips_whole_pieces()) {
    text = Finish();
    std::string_view piece = token->piece;
    if (token->begins_word && num_to_strip_ > 0) {
      piece.remove_prefix(1);
      --num_to_strip_;
    }
    text += piece;
  } else {
    text = Finish();
    const std::string& dropped = parts_->decoder.dropped_from_first_token();
    text += is_first && !dropped.empty() ? Without(token->text, dropped)
                                         : token->piece;
  }
  StripStart(&text);
  return text;
}

std::string Detokenizer::Finish() {
  std::string text;
  if (parts_->decoder.is_byte_level()) {
    // One unfinished character.
    if (!held_bytes_.empty()) text = kReplacementCharacter;
  } else {
    for (size_t i = 0; i < held_bytes_.size(); ++i) {
      text += kReplacementCharacter;
    }
  }
  if (!text.empty()) num_to_strip_ = 0;
  held_bytes_.clear();
  return text;
}

void Detokenizer::TakeCharacters(std::string* text) {
  size_t offset = 0;
  while (offset < held_bytes_.size()) {
    const std::string_view rest = std::string_view(held_bytes_).substr(offset);
    const Utf8Step step = NextUtf8(rest);
    if (step.kind == Utf8Step::kIncomplete) break;
    if (step.kind == Utf8Step::kCharacter) {
      *text += rest.substr(0, step.num_bytes);
      offset += step.num_bytes;
    } else {
      *text += kReplacementCharacter;
      offset += parts_->decoder.is_byte_level() ? step.num_bytes : 1;
    }
  }
  held_bytes_.erase(0, offset);
}

void Detokenizer::StripStart(std::string* text) {
  if (parts_->decoder.strips_whole_pieces()) {
    if (!text->empty()) num_to_strip_ = 0;
    return;
  }
  const std::string& stripped = parts_->decoder.stripped_text();
  while (num_to_strip_ > 0 && !text->empty()) {
    if (!text->starts_with(stripped)) {
      num_to_strip_ = 0;
      return;
    }
    text->erase(0, stripped.size());
    --num_to_strip_;
  }
}

}  // namespace witan
