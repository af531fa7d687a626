#include "coordinator/schedule/block_allocator.h"

#include "base/check.h"
#include "base/step_plan.h"

namespace witan {

BlockAllocator::BlockAllocator(int64_t num_blocks) {
  WITAN_CHECK(num_blocks >= 1, "num_blocks is {}", num_blocks);
  in_use_.assign(num_blocks, false);
  free_.reserve(num_blocks - 1);
  // Low ids first.
  for (int64_t block = num_blocks - 1; block > kNullBlock; --block) {
    free_.push_back(static_cast<int32_t>(block));
  }
}

std::optional<int32_t> BlockAllocator::Allocate() {
  if (free_.empty()) return std::nullopt;
  const int32_t block = free_.back();
  free_.pop_back();
  in_use_[block] = true;
  return block;
}

void BlockAllocator::Free(int32_t block) {
  WITAN_CHECK(block > kNullBlock && block <= capacity(), "block {} of {}",
              block, capacity());
  WITAN_CHECK(in_use_[block], "block {} is free", block);
  in_use_[block] = false;
  free_.push_back(block);
}

}  // namespace witan
