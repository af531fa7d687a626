#include "coordinator/schedule/block_allocator.h"

#include "base/check.h"
#include "base/step_plan.h"

namespace witan {

BlockAllocator::BlockAllocator(int64_t num_blocks) {
  WITAN_CHECK(num_blocks >= 1, "num_blocks is {}", num_blocks);
  references_.assign(num_blocks, 0);
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
  references_[block] = 1;
  return block;
}

void BlockAllocator::AddReference(int32_t block) {
  WITAN_CHECK(num_references(block) > 0, "block {} is free", block);
  ++references_[block];
}

void BlockAllocator::Free(int32_t block) {
  WITAN_CHECK(num_references(block) > 0, "block {} is free", block);
  if (--references_[block] == 0) free_.push_back(block);
}

int32_t BlockAllocator::num_references(int32_t block) const {
  WITAN_CHECK(block > kNullBlock && block <= capacity(), "block {} of {}",
              block, capacity());
  return references_[block];
}

}  // namespace witan
