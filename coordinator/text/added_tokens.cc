#include "coordinator/text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "base/utf8.h"

namespace witan {

namespace {

// Offset of the last character of `text`. REQUIRES: `text` is not empty.
size_t LastCharacter(std::string_view text) {
  size_t offset = text.size() - 1;
  while (offset > 0 && (text[offset] & 0xC0) == 0x80) --offset;
  return offset;
}

size_t SkipSpaceBackward(std::string_view text, size_t offset, size_t limit) {
  while (offset > limit) {
    const size_t begin = LastCharacter(text.substr(0, offset));
    size_t end = begin;
    if (!IsWhiteSpace(DecodeUtf8(text, &end))) break;
    offset = begin;
  }
  return offset;
}

size_t SkipSpaceForward(std::string_view text, size_t offset) {
  while (offset < text.size()) {
    size_t end = offset;
    if (!IsWhiteSpace(DecodeUtf8(text, &end))) break;
    offset = end;
  }
  return offset;
}

}  // namespace

absl::StatusOr<AddedTokenMatcher> AddedTokenMatcher::Create(
    std::vector<AddedToken> tokens) {
  ASSIGN_OR_RETURN(Regex word_character,
                   Regex::Compile(R"([\w\p{Join_Control}])"));
  AddedTokenMatcher matcher(std::move(word_character));
  const auto by_content = [](const AddedToken& a, const AddedToken& b) {
    return a.content < b.content;
  };
  std::stable_sort(tokens.begin(), tokens.end(), by_content);
  tokens.erase(std::unique(tokens.begin(), tokens.end(),
                           [](const AddedToken& a, const AddedToken& b) {
                             return a.content == b.content;
                           }),
               tokens.end());
  for (uint32_t i = 0; i < tokens.size(); ++i) {
    Range& range =
        matcher.by_first_byte_[static_cast<uint8_t>(tokens[i].content[0])];
    if (range.end == 0) range.begin = i;
    range.end = i + 1;
  }
  matcher.tokens_ = std::move(tokens);
  return matcher;
}

const AddedToken* AddedTokenMatcher::LongestPrefix(
    std::string_view text) const {
  Range range = by_first_byte_[static_cast<uint8_t>(text[0])];
  const AddedToken* longest = nullptr;
  // Tokens of the range share the first `depth` bytes with the text.
  for (size_t depth = 1; range.begin < range.end; ++depth) {
    const auto begin = tokens_.begin() + range.begin;
    const auto end = tokens_.begin() + range.end;
    // The shortest sorts first.
    if (begin->content.size() == depth) longest = &*begin;
    if (depth == text.size()) break;
    const int next = static_cast<uint8_t>(text[depth]);
    const auto byte_at = [depth](const AddedToken& token) {
      return token.content.size() > depth
                 ? static_cast<int>(static_cast<uint8_t>(token.content[depth]))
                 : -1;
    };
    const auto low = std::partition_point(
        begin, end, [&](const AddedToken& t) { return byte_at(t) < next; });
    const auto high = std::partition_point(
        low, end, [&](const AddedToken& t) { return byte_at(t) <= next; });
    range = {static_cast<uint32_t>(low - tokens_.begin()),
             static_cast<uint32_t>(high - tokens_.begin())};
  }
  return longest;
}

absl::StatusOr<bool> AddedTokenMatcher::IsWordCharacter(
    std::string_view character) const {
  std::vector<Regex::Part> parts;
  RETURN_IF_ERROR(word_character_.Split(character, &parts));
  return parts.front().is_match;
}

absl::StatusOr<bool> AddedTokenMatcher::TouchesWord(
    std::string_view before, std::string_view behind) const {
  if (!before.empty()) {
    ASSIGN_OR_RETURN(const bool is_word,
                     IsWordCharacter(before.substr(LastCharacter(before))));
    if (is_word) return true;
  }
  if (behind.empty()) return false;
  size_t end = 0;
  DecodeUtf8(behind, &end);
  return IsWordCharacter(behind.substr(0, end));
}

absl::StatusOr<std::vector<AddedTokenMatcher::Segment>>
AddedTokenMatcher::Split(std::string_view text, bool parse_special) const {
  std::vector<Segment> segments;
  size_t covered = 0;
  size_t offset = 0;
  size_t space_end = 0;  // of the white space that was skipped last
  while (offset < text.size()) {
    const AddedToken* token = LongestPrefix(text.substr(offset));
    if (token == nullptr) {
      ++offset;
      continue;
    }
    size_t begin = offset;
    size_t end = offset + token->content.size();
    // What is passed over is passed over whole.
    offset = end;
    if (token->special && !parse_special) continue;
    if (token->single_word) {
      ASSIGN_OR_RETURN(const bool touches_word,
                       TouchesWord(text.substr(0, begin), text.substr(end)));
      if (touches_word) continue;
    }
    if (token->lstrip) begin = SkipSpaceBackward(text, begin, covered);
    if (token->rstrip) {
      // Tokens within one stretch of white space skip it once, not each again.
      if (end > space_end) space_end = SkipSpaceForward(text, end);
      end = space_end;
    }
    if (covered < begin) segments.push_back({covered, begin, std::nullopt});
    segments.push_back({begin, end, token->id});
    covered = end;
  }
  if (covered < text.size()) {
    segments.push_back({covered, text.size(), std::nullopt});
  }
  return segments;
}

}  // namespace witan
