#ifndef WITAN_COORDINATOR_SCHEDULE_PREFIX_CACHE_H_
#define WITAN_COORDINATOR_SCHEDULE_PREFIX_CACHE_H_

// The blocks of a replica's KV cache: who holds which, and which of them can be
// found again by the name of what is in them.
//
// A block is free, held (by one or several sequences), or kept: held by nobody,
// but full and named, until its place is needed. Kept blocks are given away
// least recently used leaf first. A sequence holds all blocks before one that
// it holds, and returns them last to first, so that a block always stands
// before its parent in the order of last use.

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/limits.h"
#include "base/request.h"
#include "coordinator/schedule/block_allocator.h"
#include "coordinator/schedule/block_name.h"

namespace witan {

// Owned by a Scheduler. All operations O(1); deterministic.
class PrefixCache {
 public:
  // Ids 1 .. num_blocks - 1. REQUIRES: num_blocks >= 1.
  explicit PrefixCache(int64_t num_blocks);

  // A block for one holder: a free one, else the kept one that comes first,
  // which loses its name. Nothing when all are held.
  std::optional<int32_t> Allocate();

  // The block of this name and these tokens, held or kept. Comparing tokens
  // makes a collision of names harmless.
  std::optional<int32_t> Find(const BlockName& name,
                              std::span<const TokenId> tokens) const;
  // One holder more of a block that Find found.
  void Hold(int32_t block);
  // One holder less; the last one leaves it kept if it has a name, else free.
  // REQUIRES: it is held.
  void Release(int32_t block);

  // Names a full block. False, and nothing is done, when another block has the
  // name already. REQUIRES: it is held and has no name.
  bool Insert(int32_t block, const BlockName& name,
              std::span<const TokenId> tokens);

  int32_t num_holders(int32_t block) const {
    return blocks_[block].num_holders;
  }
  bool is_held(int32_t block) const { return num_holders(block) > 0; }
  // Blocks that exist at all.
  int64_t capacity() const { return allocator_.capacity(); }
  // Blocks that Allocate can give: free and kept ones.
  int64_t num_available() const { return allocator_.num_free() + num_kept_; }
  int64_t num_named() const { return static_cast<int64_t>(by_name_.size()); }
  int64_t num_evictions() const { return num_evictions_; }

 private:
  using Tokens = std::array<TokenId, kBlockTokens>;
  struct Entry {
    int32_t block = 0;
    Tokens tokens;
  };
  struct Block {
    int32_t num_holders = 0;
    bool has_name = false;
    // Neighbours among the kept ones; kNullBlock is the ring's fixed point.
    int32_t previous = 0;
    int32_t next = 0;
    BlockName name;
  };

  void LinkAsLast(int32_t block);
  void Unlink(int32_t block);

  BlockAllocator allocator_;
  std::vector<Block> blocks_;  // by id
  std::unordered_map<BlockName, Entry, BlockNameHash> by_name_;
  int64_t num_kept_ = 0;
  int64_t num_evictions_ = 0;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_PREFIX_CACHE_H_
