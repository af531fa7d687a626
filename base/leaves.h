#ifndef WITAN_BASE_LEAVES_H_
#define WITAN_BASE_LEAVES_H_

// The eight leaves of the numerics contract and the tree that sums them.
//
// Every sum that is split over ranks has kNumLeaves partial sums ("leaves"),
// joined by the fixed binary tree ((0+1)+(2+3))+((4+5)+(6+7)) in fp32. Leaf i
// of n units (query heads, 32-column blocks of the FFN, experts) holds units
// [i*n/8, (i+1)*n/8); it may be empty, and then contributes +0.0, which is
// added like any other. The bits of the result depend on neither the number
// of ranks nor on who owns which leaf.

#include <cstdint>
#include <vector>

namespace witan {

constexpr int kNumLeaves = 8;
// Columns of a dense FFN that are one unit.
constexpr int64_t kFfnUnitColumns = 32;

// A half-open range of indices; empty when begin == end.
struct IndexRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const IndexRange&) const = default;
};

// Units of leaf `leaf` out of `num_units`.
constexpr IndexRange LeafUnits(int64_t num_units, int leaf) {
  return {leaf * num_units / kNumLeaves, (leaf + 1) * num_units / kNumLeaves};
}

// Leaves owned by member `index` of a group of `group_size` ranks (1 to 8,
// also 3, 5, 6, 7); perhaps none.
constexpr IndexRange LeavesOfMember(int index, int group_size) {
  return {int64_t{index} * kNumLeaves / group_size,
          (int64_t{index} + 1) * kNumLeaves / group_size};
}

// A node of the summation tree: num_leaves is 1, 2, 4 or 8 and divides
// first_leaf.
struct Subtree {
  int first_leaf = 0;
  int num_leaves = 0;
  bool operator==(const Subtree&) const = default;
};

// The maximal aligned subtrees that tile `leaves`, ascending: what a rank that
// owns these leaves contributes, one fp32 vector each. [3,6) -> {3,1} {4,2}.
std::vector<Subtree> MaximalSubtrees(IndexRange leaves);

}  // namespace witan

#endif  // WITAN_BASE_LEAVES_H_
