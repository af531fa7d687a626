#include "coordinator/schedule/prefix_cache.h"

#include <algorithm>

#include "base/check.h"
#include "base/step_plan.h"

namespace witan {

PrefixCache::PrefixCache(int64_t num_blocks)
    : allocator_(num_blocks), blocks_(num_blocks) {}

void PrefixCache::LinkAsLast(int32_t block) {
  Block& ring = blocks_[kNullBlock];
  blocks_[block].previous = ring.previous;
  blocks_[block].next = kNullBlock;
  blocks_[ring.previous].next = block;
  ring.previous = block;
  ++num_kept_;
}

void PrefixCache::Unlink(int32_t block) {
  blocks_[blocks_[block].previous].next = blocks_[block].next;
  blocks_[blocks_[block].next].previous = blocks_[block].previous;
  --num_kept_;
}

std::optional<int32_t> PrefixCache::Allocate() {
  std::optional<int32_t> block = allocator_.Allocate();
  if (!block && num_kept_ > 0) {
    block = blocks_[kNullBlock].next;
    Unlink(*block);
    by_name_.erase(blocks_[*block].name);
    blocks_[*block].has_name = false;
    ++num_evictions_;
  }
  if (block) blocks_[*block].num_holders = 1;
  return block;
}

std::optional<int32_t> PrefixCache::Find(
    const BlockName& name, std::span<const TokenId> tokens) const {
  const auto it = by_name_.find(name);
  if (it == by_name_.end() ||
      !std::equal(tokens.begin(), tokens.end(), it->second.tokens.begin(),
                  it->second.tokens.end())) {
    return std::nullopt;
  }
  return it->second.block;
}

void PrefixCache::Hold(int32_t block) {
  WITAN_CHECK(blocks_[block].has_name, "block {} has no name", block);
  if (blocks_[block].num_holders++ == 0) Unlink(block);
}

void PrefixCache::Release(int32_t block) {
  Block& released = blocks_[block];
  WITAN_CHECK(released.num_holders > 0, "block {} is not held", block);
  if (--released.num_holders > 0) return;
  if (released.has_name) {
    LinkAsLast(block);
  } else {
    allocator_.Free(block);
  }
}

bool PrefixCache::Insert(int32_t block, const BlockName& name,
                         std::span<const TokenId> tokens) {
  Block& named = blocks_[block];
  WITAN_CHECK(named.num_holders > 0 && !named.has_name,
              "block {} is not held or has a name", block);
  const auto [it, is_new] = by_name_.try_emplace(name);
  if (!is_new) return false;
  it->second.block = block;
  std::copy_n(tokens.begin(), kBlockTokens, it->second.tokens.begin());
  named.has_name = true;
  named.name = name;
  return true;
}

}  // namespace witan
