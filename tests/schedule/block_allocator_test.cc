#include "coordinator/schedule/block_allocator.h"

#include <gtest/gtest.h>

#include <map>
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
  EXPECT_EQ(allocator.num_used(), 7);
}

TEST(BlockAllocatorTest, HasNothingWhenThereIsOnlyTheNullBlock) {
  BlockAllocator allocator(1);
  EXPECT_EQ(allocator.capacity(), 0);
  EXPECT_EQ(allocator.Allocate(), std::nullopt);
}

TEST(BlockAllocatorTest, KeepsASharedBlockUntilItsLastUserIsGone) {
  BlockAllocator allocator(2);
  const int32_t block = allocator.Allocate().value();
  allocator.AddReference(block);
  allocator.Free(block);
  EXPECT_EQ(allocator.Allocate(), std::nullopt);
  allocator.Free(block);
  EXPECT_EQ(allocator.Allocate(), block);
}

TEST(BlockAllocatorTest, AgreesWithANaiveModelUnderRandomOperations) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    std::mt19937_64 random(seed);
    const int64_t num_blocks = 1 + random() % 40;
    BlockAllocator allocator(num_blocks);
    std::map<int32_t, int32_t> references;  // of blocks in use
    for (int i = 0; i < 500; ++i) {
      const uint64_t operation = random() % 3;
      if (operation == 0) {
        const std::optional<int32_t> block = allocator.Allocate();
        ASSERT_EQ(block.has_value(),
                  static_cast<int64_t>(references.size()) < num_blocks - 1);
        if (!block) continue;
        ASSERT_GE(*block, 1);
        ASSERT_LT(*block, num_blocks);
        ASSERT_TRUE(references.emplace(*block, 1).second);
      } else if (!references.empty()) {
        auto it = references.begin();
        std::advance(it, random() % references.size());
        if (operation == 1) {
          allocator.AddReference(it->first);
          ++it->second;
        } else {
          allocator.Free(it->first);
          if (--it->second == 0) references.erase(it);
        }
      }
      ASSERT_EQ(allocator.num_used(), static_cast<int64_t>(references.size()));
      ASSERT_EQ(allocator.num_used() + allocator.num_free(), num_blocks - 1);
      for (int32_t block = 1; block < num_blocks; ++block) {
        const auto it = references.find(block);
        ASSERT_EQ(allocator.num_references(block),
                  it == references.end() ? 0 : it->second);
      }
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
