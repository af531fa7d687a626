#ifndef WITAN_COORDINATOR_TEXT_PRECOMPILED_CHARSMAP_H_
#define WITAN_COORDINATOR_TEXT_PRECOMPILED_CHARSMAP_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace witan {

// The rewriting rules that SentencePiece compiles into a model: a double-array
// trie of what is replaced, as the library Darts-clone lays it out, and the
// replacements, each ended by a zero byte. In the file: the trie's size in
// bytes (4 bytes, little-endian), the trie's 4-byte units, the replacements.
// Immutable; any number of threads at once.
class PrecompiledCharsmap {
 public:
  // Without rules.
  PrecompiledCharsmap() = default;
  // InvalidArgument when sizes contradict each other, a replacement is not
  // UTF-8 or a trie leads outside of itself is found only when met: look-ups
  // check every step.
  static absl::StatusOr<PrecompiledCharsmap> Parse(std::string_view blob);

  bool empty() const { return units_.empty(); }

  struct Match {
    size_t num_bytes = 0;  // of the text, at least 1
    std::string_view replacement;
  };
  // The longest or the shortest rule that `text` begins with. Takes as many
  // steps as the longest rule has bytes.
  std::optional<Match> Longest(std::string_view text) const;
  std::optional<Match> Shortest(std::string_view text) const;

 private:
  std::optional<Match> Find(std::string_view text, bool longest) const;

  std::vector<uint32_t> units_;
  std::string replacements_;  // ends with a zero byte
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_PRECOMPILED_CHARSMAP_H_
