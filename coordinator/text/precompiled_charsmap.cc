#include "coordinator/text/precompiled_charsmap.h"

#include <algorithm>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"

namespace witan {

namespace {

// A unit of Darts-clone: bit 31 marks a value, bit 8 that a value hangs below,
// bit 9 that the offset is counted in 256s.
bool HasLeaf(uint32_t unit) { return ((unit >> 8) & 1) != 0; }
uint32_t ValueOf(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t LabelOf(uint32_t unit) { return unit & 0x800000FF; }
uint32_t OffsetOf(uint32_t unit) {
  return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

}  // namespace

absl::StatusOr<PrecompiledCharsmap> PrecompiledCharsmap::Parse(
    std::string_view blob) {
  PrecompiledCharsmap charsmap;
  const auto number_at = [&](size_t offset) {
    uint32_t number = 0;
    for (size_t i = 0; i < 4; ++i) {
      number |= uint32_t{static_cast<uint8_t>(blob[offset + i])} << (8 * i);
    }
    return number;
  };
  if (blob.size() < 4) {
    return InvalidArgument("{} bytes; at least 4 are needed", blob.size());
  }
  const size_t trie_bytes = number_at(0);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > blob.size() - 4) {
    return InvalidArgument(
        "a trie of {} bytes; expected a multiple of 4 from 4 to {}", trie_bytes,
        blob.size() - 4);
  }
  charsmap.units_.reserve(trie_bytes / 4);
  for (size_t offset = 4; offset < 4 + trie_bytes; offset += 4) {
    charsmap.units_.push_back(number_at(offset));
  }
  charsmap.replacements_ = blob.substr(4 + trie_bytes);
  if (!IsValidUtf8(charsmap.replacements_)) {
    return InvalidArgument("a replacement that is not UTF-8");
  }
  charsmap.replacements_ += '\0';
  for (size_t begin = 0, end; begin < charsmap.replacements_.size();
       begin = end + 1) {
    end = charsmap.replacements_.find('\0', begin);
    if (end - begin > kMaxNameBytes) {
      return InvalidArgument("a replacement of {} bytes; at most {} are read",
                             end - begin, kMaxNameBytes);
    }
  }
  return charsmap;
}

std::optional<PrecompiledCharsmap::Match> PrecompiledCharsmap::Longest(
    std::string_view text) const {
  return Find(text, /*longest=*/true);
}

std::optional<PrecompiledCharsmap::Match> PrecompiledCharsmap::Shortest(
    std::string_view text) const {
  return Find(text, /*longest=*/false);
}

std::optional<PrecompiledCharsmap::Match> PrecompiledCharsmap::Find(
    std::string_view text, bool longest) const {
  std::optional<Match> match;
  if (units_.empty()) return match;
  size_t node = OffsetOf(units_[0]);
  // A rule longer than any real one is a cycle of a damaged trie.
  const size_t end = std::min(text.size(), kMaxCharsmapRuleBytes);
  for (size_t i = 0; i < end; ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (byte == 0 || node >= units_.size()) break;
    const uint32_t unit = units_[node];
    if (LabelOf(unit) != byte) break;
    node ^= OffsetOf(unit);
    if (!HasLeaf(unit)) continue;
    if (node >= units_.size()) break;
    const uint32_t begin = ValueOf(units_[node]);
    if (begin >= replacements_.size()) break;
    // A view up to the zero byte; one that begins within a character would
    // not be UTF-8.
    if ((replacements_[begin] & 0xC0) == 0x80) break;
    match = Match{i + 1, std::string_view(&replacements_[begin])};
    if (!longest) break;
  }
  // Rules of a damaged trie might end within a character of the text.
  if (match.has_value() && match->num_bytes < text.size() &&
      (text[match->num_bytes] & 0xC0) == 0x80) {
    return std::nullopt;
  }
  return match;
}

}  // namespace witan
