#include "coordinator/text/unicode_versions.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "base/utf8.h"

namespace witan {

namespace {

struct StandIn {
  char32_t first;
  char32_t last;
  char32_t replacement;
};

struct Range {
  char32_t first;
  char32_t last;
};

#include "coordinator/text/unicode_versions.inc"

// The row that holds `character`, or null. Rows ascend.
template <typename Row, size_t kNumRows>
const Row* FindRow(const Row (&rows)[kNumRows], char32_t character) {
  const Row* row = std::partition_point(
      std::begin(rows), std::end(rows),
      [&](const Row& candidate) { return candidate.last < character; });
  return row != std::end(rows) && row->first <= character ? row : nullptr;
}

// All of them have three bytes or four.
bool MayBeNew(char lead) { return static_cast<uint8_t>(lead) >= 0xE0; }

}  // namespace

std::optional<std::string> WithOlderCharacters(std::string_view text) {
  std::optional<std::string> replaced;
  for (size_t offset = 0; offset < text.size();) {
    if (!MayBeNew(text[offset])) {
      ++offset;
      continue;
    }
    const size_t begin = offset;
    const StandIn* row = FindRow(kStandIns, DecodeUtf8(text, &offset));
    if (row == nullptr) continue;
    if (!replaced.has_value()) replaced = std::string(text);
    std::string stand_in;
    AppendUtf8(row->replacement, &stand_in);
    replaced->replace(begin, offset - begin, stand_in);
  }
  return replaced;
}

bool IsUnknownToNormalization(char32_t character) {
  return FindRow(kChangedSinceUnicode9, character) != nullptr;
}

}  // namespace witan
