#include "base/leaves.h"

namespace witan {

std::vector<Subtree> MaximalSubtrees(IndexRange leaves) {
  std::vector<Subtree> subtrees;
  int64_t first = leaves.begin;
  while (first < leaves.end) {
    int64_t size = 1;
    while (first % (2 * size) == 0 && first + 2 * size <= leaves.end &&
           2 * size <= kNumLeaves) {
      size *= 2;
    }
    subtrees.push_back({static_cast<int>(first), static_cast<int>(size)});
    first += size;
  }
  return subtrees;
}

}  // namespace witan
