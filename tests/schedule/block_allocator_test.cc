#include "coordinator/schedule/block_allocator.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace witan {
namespace {

TEST(BlockAllocatorTest, HandsOutEveryBlockButTheNullBlockOnce) {
  BlockAllocator allocator(8);
  EXPECT_EQ(allocator.capacity(), 7);
  std::set<int32_t> blocks;
  while (const std::optional<int32_t> block = allocator.Allocate()) {
    EXPECT_TRUE(blocks.insert(*block).second);
  }
  EXPECT_EQ(blocks, (std::set<int32_t>{1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(allocator.num_free(), 0);
}

TEST(BlockAllocatorTest, HasNothingWhenThereIsOnlyTheNullBlock) {
  BlockAllocator allocator(1);
  EXPECT_EQ(allocator.capacity(), 0);
  EXPECT_EQ(allocator.Allocate(), std::nullopt);
}

TEST(BlockAllocatorTest, AgreesWithANaiveModelUnderRandomOperations) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    std::mt19937_64 random(seed);
    const int64_t num_blocks = 1 + random() % 40;
    BlockAllocator allocator(num_blocks);
    std::set<int32_t> in_use;
    for (int i = 0; i < 500; ++i) {
      if (random() % 2 == 0) {
        const std::optional<int32_t> block = allocator.Allocate();
        ASSERT_EQ(block.has_value(),
                  static_cast<int64_t>(in_use.size()) < num_blocks - 1);
        if (!block) continue;
        ASSERT_GE(*block, 1);
        ASSERT_LT(*block, num_blocks);
        ASSERT_TRUE(in_use.insert(*block).second);
      } else if (!in_use.empty()) {
        auto it = in_use.begin();
        std::advance(it, random() % in_use.size());
        allocator.Free(*it);
        in_use.erase(it);
      }
      ASSERT_EQ(allocator.num_free(),
                num_blocks - 1 - static_cast<int64_t>(in_use.size()));
    }
  }
}

TEST(BlockAllocatorDeathTest, CatchesFreeingTwice) {
  BlockAllocator allocator(4);
  const int32_t block = allocator.Allocate().value();
  allocator.Free(block);
  EXPECT_DEATH(allocator.Free(block), "block 1 is free");
  EXPECT_DEATH(allocator.Free(0), "block 0 of 3");
}

}  // namespace
}  // namespace witan
