#include "coordinator/text/byte_trie.h"

#include <bit>
#include <utility>

namespace witan {

namespace {

constexpr size_t kInitialEdges = 16;

}  // namespace

ByteTrie::ByteTrie()
    : values_(1, -1),
      edges_(kInitialEdges),
      shift_(64 - std::countr_zero(kInitialEdges)) {
  first_.fill(kNone);
}

void ByteTrie::Place(Edge edge) {
  size_t slot = SlotOf(edge.key);
  while (edges_[slot].key != kNoKey) slot = (slot + 1) & (edges_.size() - 1);
  edges_[slot] = edge;
}

void ByteTrie::Grow() {
  std::vector<Edge> old = std::exchange(edges_, {});
  edges_.resize(2 * old.size());
  --shift_;
  for (const Edge& edge : old) {
    if (edge.key != kNoKey) Place(edge);
  }
}

ByteTrie::Node ByteTrie::Child(Node node, char byte) const {
  if (node == kRoot) return first_[static_cast<uint8_t>(byte)];
  const uint64_t key = KeyOf(node, byte);
  size_t slot = SlotOf(key);
  while (edges_[slot].key != key) {
    if (edges_[slot].key == kNoKey) return kNone;
    slot = (slot + 1) & (edges_.size() - 1);
  }
  return edges_[slot].child;
}

void ByteTrie::Insert(std::string_view key, int32_t value) {
  Node node = kRoot;
  for (char byte : key) {
    Node child = Child(node, byte);
    if (child == kNone) {
      child = static_cast<Node>(values_.size());
      values_.push_back(-1);
      if (node == kRoot) {
        first_[static_cast<uint8_t>(byte)] = child;
      } else {
        if (2 * (num_edges_ + 1) > edges_.size()) Grow();
        Place({KeyOf(node, byte), child});
        ++num_edges_;
      }
    }
    node = child;
  }
  values_[node] = value;
}

size_t ByteTrie::LongestPrefix(std::string_view text) const {
  size_t longest = 0;
  Node node = kRoot;
  for (size_t i = 0; i < text.size(); ++i) {
    node = Child(node, text[i]);
    if (node == kNone) break;
    if (values_[node] >= 0) longest = i + 1;
  }
  return longest;
}

}  // namespace witan
