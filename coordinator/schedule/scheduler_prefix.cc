// Prompts computed once for several sequences.

#include <algorithm>

#include "base/limits.h"
#include "coordinator/schedule/scheduler.h"

namespace witan {

BlockName Scheduler::RootOf(const Sequence& sequence) const {
  return RootBlockName(options_.identity, sequence.spec.tenant,
                       sequence.spec.adapter.content_hash,
                       sequence.num_tokens());
}

void Scheduler::TakeNames(Sequence& sequence) {
  const BlockName root = RootOf(sequence);
  const size_t num_full = sequence.tokens.size() / kBlockTokens;
  if (sequence.spec.block_root == root &&
      sequence.spec.block_names.size() == num_full) {
    sequence.block_names = std::move(sequence.spec.block_names);
  }
  sequence.spec.block_names.clear();
  sequence.spec.block_root = root;
}

void Scheduler::ChooseRope(Sequence& sequence) {
  if (sequence.long_rope ||
      !HasLongRope(options_.identity, sequence.num_tokens())) {
    return;
  }
  sequence.long_rope = true;
  // All its keys are others from here on.
  const BlockName root = RootOf(sequence);
  if (sequence.spec.block_root == root) return;
  sequence.spec.block_root = root;
  sequence.block_names.clear();
}

size_t Scheduler::NumShareableBlocks(const Sequence& sequence) const {
  if (!options_.prefix_cache) return 0;
  size_t num_tokens = sequence.tokens.size() - 1;
  if (sequence.num_scored_rows < sequence.num_rows_to_score()) {
    num_tokens = static_cast<size_t>(sequence.num_scored_rows);
  }
  return num_tokens / kBlockTokens;
}

std::span<const TokenId> Scheduler::TokensOfBlock(const Sequence& sequence,
                                                  size_t block) const {
  return std::span(sequence.tokens).subspan(block * kBlockTokens, kBlockTokens);
}

void Scheduler::NameBlocks(Sequence& sequence, size_t num_blocks) {
  std::vector<BlockName>& names = sequence.block_names;
  while (names.size() < num_blocks) {
    names.push_back(
        ChildBlockName(names.empty() ? sequence.spec.block_root : names.back(),
                       TokensOfBlock(sequence, names.size())));
  }
}

std::vector<int32_t> Scheduler::FindCachedBlocks(Sequence& sequence) {
  std::vector<int32_t> found;
  const size_t num_blocks = NumShareableBlocks(sequence);
  while (found.size() < num_blocks) {
    NameBlocks(sequence, found.size() + 1);
    const std::optional<int32_t> block =
        blocks_.Find(sequence.block_names[found.size()],
                     TokensOfBlock(sequence, found.size()));
    if (!block) break;
    found.push_back(*block);
  }
  return found;
}

bool Scheduler::ParkIfPending(Sequence& sequence, size_t num_cached_blocks) {
  const size_t num_blocks = NumShareableBlocks(sequence);
  PendingBlock* last = nullptr;
  size_t block = num_cached_blocks;
  for (; block < num_blocks; ++block) {
    NameBlocks(sequence, block + 1);
    const auto it = pending_.find(sequence.block_names[block]);
    // One of a lower priority may not come to it for long.
    if (it == pending_.end() ||
        it->second.owner->spec.priority < sequence.spec.priority) {
      break;
    }
    last = &it->second;
  }
  if (last == nullptr) return false;
  waiting_.Remove(sequence);
  sequence.parked_on = sequence.block_names[block - 1];
  sequence.parked_index = last->parked.size();
  last->parked.push_back(&sequence);
  ++num_parked_;
  ++counters_.num_parked;
  return true;
}

void Scheduler::Unpark(Sequence& sequence) {
  std::vector<Sequence*>& parked = pending_.at(*sequence.parked_on).parked;
  parked[sequence.parked_index] = parked.back();
  parked[sequence.parked_index]->parked_index = sequence.parked_index;
  parked.pop_back();
  sequence.parked_on.reset();
  --num_parked_;
}

void Scheduler::RegisterPendingBlocks(Sequence& sequence) {
  const size_t num_blocks = sequence.tokens.size() / kBlockTokens;
  NameBlocks(sequence, num_blocks);
  for (size_t i = sequence.num_named_blocks; i < num_blocks; ++i) {
    const auto [it, is_new] = pending_.try_emplace(sequence.block_names[i],
                                                   PendingBlock{&sequence, {}});
    // Those parked on one of a lower priority wait for this one instead.
    if (!is_new && it->second.owner->spec.priority < sequence.spec.priority) {
      it->second.owner = &sequence;
    }
  }
  sequence.num_pending_blocks = num_blocks;
}

void Scheduler::ErasePendingBlock(const Sequence& owner,
                                  const BlockName& name) {
  const auto it = pending_.find(name);
  if (it == pending_.end() || it->second.owner != &owner) return;
  const std::vector<Sequence*> parked = std::move(it->second.parked);
  pending_.erase(it);
  for (Sequence* const sequence : parked) {
    sequence->parked_on.reset();
    --num_parked_;
    waiting_.Push(*sequence);
  }
}

void Scheduler::ErasePendingBlocks(Sequence& sequence) {
  for (size_t i = sequence.num_named_blocks; i < sequence.num_pending_blocks;
       ++i) {
    ErasePendingBlock(sequence, sequence.block_names[i]);
  }
  sequence.num_pending_blocks = 0;
}

void Scheduler::CommitRows(Sequence& sequence, int64_t num_rows) {
  sequence.num_committed_tokens += num_rows;
  if (!options_.prefix_cache) return;
  // The token of a row may be unknown here: it was made after the end.
  const size_t num_full =
      static_cast<size_t>(
          std::min(sequence.num_committed_tokens, sequence.num_tokens())) /
      kBlockTokens;
  NameBlocks(sequence, num_full);
  while (sequence.num_named_blocks < num_full) {
    const size_t block = sequence.num_named_blocks;
    const BlockName& name = sequence.block_names[block];
    if (!blocks_.Insert(sequence.block_table[block], name,
                        TokensOfBlock(sequence, block))) {
      // Another sequence was faster. What follows would have a parent that
      // this sequence does not hold, and so stays without a name.
      ErasePendingBlocks(sequence);
      return;
    }
    ErasePendingBlock(sequence, name);
    ++sequence.num_named_blocks;
  }
}

}  // namespace witan
