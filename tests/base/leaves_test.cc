#include "base/leaves.h"

#include <gtest/gtest.h>

namespace witan {
namespace {

TEST(LeavesTest, LeavesTileTheUnitsInOrder) {
  for (const int64_t num_units : {0, 1, 3, 7, 8, 9, 32, 60, 113}) {
    int64_t next = 0;
    for (int leaf = 0; leaf < kNumLeaves; ++leaf) {
      const IndexRange units = LeafUnits(num_units, leaf);
      EXPECT_EQ(units.begin, next);
      EXPECT_LE(units.begin, units.end);
      next = units.end;
    }
    EXPECT_EQ(next, num_units);
  }
}

TEST(LeavesTest, MembersTileTheLeavesForEveryGroupSize) {
  for (int size = 1; size <= kNumLeaves; ++size) {
    int64_t next = 0;
    for (int member = 0; member < size; ++member) {
      const IndexRange leaves = LeavesOfMember(member, size);
      EXPECT_EQ(leaves.begin, next);
      next = leaves.end;
    }
    EXPECT_EQ(next, kNumLeaves);
  }
}

// A subtree is a node of the binary tree over eight leaves.
bool IsNode(const Subtree& subtree) {
  for (int size = 1; size <= kNumLeaves; size *= 2) {
    for (int first = 0; first < kNumLeaves; first += size) {
      if (subtree == Subtree{first, size}) return true;
    }
  }
  return false;
}

TEST(LeavesTest, MaximalSubtreesTileARangeWithNodesThatCannotBeJoined) {
  for (int begin = 0; begin <= kNumLeaves; ++begin) {
    for (int end = begin; end <= kNumLeaves; ++end) {
      const std::vector<Subtree> subtrees = MaximalSubtrees({begin, end});
      int next = begin;
      for (const Subtree& subtree : subtrees) {
        EXPECT_TRUE(IsNode(subtree))
            << subtree.first_leaf << "+" << subtree.num_leaves;
        EXPECT_EQ(subtree.first_leaf, next);
        next += subtree.num_leaves;
        // The parent node does not lie inside the range.
        const int parent_size = 2 * subtree.num_leaves;
        const int parent = subtree.first_leaf / parent_size * parent_size;
        EXPECT_TRUE(parent_size > kNumLeaves || parent < begin ||
                    parent + parent_size > end);
      }
      EXPECT_EQ(next, end);
    }
  }
}

}  // namespace
}  // namespace witan
