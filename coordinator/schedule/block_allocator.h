#ifndef WITAN_COORDINATOR_SCHEDULE_BLOCK_ALLOCATOR_H_
#define WITAN_COORDINATOR_SCHEDULE_BLOCK_ALLOCATOR_H_

// Hands out the ids of KV-cache blocks. The bytes live in the workers; this
// object never sees them.

#include <cstdint>
#include <optional>
#include <vector>

namespace witan {

// Owned by the Scheduler. All operations O(1); deterministic: the block freed
// last is handed out first.
class BlockAllocator {
 public:
  // Ids 1 .. num_blocks - 1; id 0 is the null block and is never handed out.
  // REQUIRES: num_blocks >= 1.
  explicit BlockAllocator(int64_t num_blocks);

  // A block, or nothing when all are in use.
  std::optional<int32_t> Allocate();
  // REQUIRES: the block is in use.
  void Free(int32_t block);

  // Blocks that can be handed out at all.
  int64_t capacity() const { return static_cast<int64_t>(in_use_.size()) - 1; }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }

 private:
  std::vector<bool> in_use_;   // by block id
  std::vector<int32_t> free_;  // a stack
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_BLOCK_ALLOCATOR_H_
