#ifndef WITAN_COORDINATOR_TEXT_BYTE_TRIE_H_
#define WITAN_COORDINATOR_TEXT_BYTE_TRIE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace witan {

// A set of byte strings, each with a number, walked byte by byte. Immutable
// once built; any number of threads at once.
class ByteTrie {
 public:
  using Node = uint32_t;
  static constexpr Node kRoot = 0;
  static constexpr Node kNone = ~Node{0};

  ByteTrie();

  // The value of an equal key is replaced. REQUIRES: `key` is not empty,
  // `value` is not negative, all keys together have less than 2^32 - 1 bytes.
  void Insert(std::string_view key, int32_t value);

  // The node of a longer prefix, or kNone.
  Node Child(Node node, char byte) const;
  // Of the key that ends at `node`; -1 when none does.
  int32_t ValueAt(Node node) const { return values_[node]; }

  // Bytes of the longest key that `text` begins with, 0 for none.
  size_t LongestPrefix(std::string_view text) const;

  bool empty() const { return values_.size() == 1; }

 private:
  // Edges are kept by (node, byte) in a table with open addressing, at most
  // half full.
  struct Edge {
    uint64_t key = kNoKey;
    Node child = kNone;
  };
  static constexpr uint64_t kNoKey = ~uint64_t{0};
  static uint64_t KeyOf(Node node, char byte) {
    return (uint64_t{node} << 8) | static_cast<uint8_t>(byte);
  }
  size_t SlotOf(uint64_t key) const {
    // Fibonacci hashing: the high bits of the product are well mixed.
    return static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> shift_);
  }
  void Grow();
  void Place(Edge edge);

  std::array<Node, 256> first_;  // children of the root
  std::vector<int32_t> values_;  // by node
  std::vector<Edge> edges_;
  size_t num_edges_ = 0;
  int shift_ = 0;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_BYTE_TRIE_H_
