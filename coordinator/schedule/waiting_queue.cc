#include "coordinator/schedule/waiting_queue.h"

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"

namespace witan {

WaitingQueue::Key WaitingQueue::KeyOf(const TenantShare& share) {
  return {share.service_tokens, share.waiting.begin()->first};
}

int64_t WaitingQueue::FloorOf(const Level& level) {
  const int64_t least =
      level.order.empty() ? 0 : level.order.begin()->first.first;
  return std::max({level.admitted_service_tokens, level.virtual_tokens, least});
}

WaitingQueue::Level& WaitingQueue::LevelOf(const TenantShare& share) {
  return levels_.at(share.priority);
}

void WaitingQueue::Enter(Sequence& sequence) {
  Level& level = levels_[sequence.spec.priority];
  const auto [it, is_new] = level.shares.try_emplace(sequence.spec.tenant);
  TenantShare& share = it->second;
  if (is_new) {
    share.tenant = sequence.spec.tenant;
    share.priority = sequence.spec.priority;
  } else if (share.num_live == 0) {
    level.idle.erase(share.idle_position);
  }
  if (share.num_live++ == 0) ++level.num_live_shares;
  sequence.share = &share;
}

void WaitingQueue::Leave(Sequence& sequence) {
  TenantShare& share = *sequence.share;
  sequence.share = nullptr;
  if (--share.num_live > 0) return;
  Level& level = LevelOf(share);
  --level.num_live_shares;
  share.idle_position = level.idle.insert(level.idle.end(), &share);
  // One that was served no more than others has nothing to be remembered for.
  while (level.idle.size() > kMaxIdleTenants ||
         (!level.idle.empty() &&
          level.idle.front()->service_tokens <=
              std::max(level.admitted_service_tokens, level.virtual_tokens))) {
    const std::string tenant = level.idle.front()->tenant;
    level.idle.pop_front();
    level.shares.erase(tenant);
  }
}

void WaitingQueue::Push(Sequence& sequence) {
  TenantShare& share = *sequence.share;
  Level& level = LevelOf(share);
  if (share.waiting.empty()) {
    share.service_tokens = std::max(share.service_tokens, FloorOf(level));
  } else {
    level.order.erase(KeyOf(share));
  }
  const bool is_new = share.waiting.emplace(sequence.arrival, &sequence).second;
  WITAN_CHECK(is_new, "sequence {} is queued twice", sequence.spec.id);
  level.order.emplace(KeyOf(share), &share);
  ++size_;
}

void WaitingQueue::Remove(Sequence& sequence) {
  TenantShare& share = *sequence.share;
  Level& level = LevelOf(share);
  level.order.erase(KeyOf(share));
  const size_t num_removed = share.waiting.erase(sequence.arrival);
  WITAN_CHECK(num_removed == 1, "sequence {} is not queued", sequence.spec.id);
  if (!share.waiting.empty()) level.order.emplace(KeyOf(share), &share);
  --size_;
}

Sequence* WaitingQueue::Next() const {
  for (const auto& [priority, level] : levels_) {
    if (level.order.empty()) continue;
    return level.order.begin()->second->waiting.begin()->second;
  }
  return nullptr;
}

size_t WaitingQueue::num_shares() const {
  size_t num_shares = 0;
  for (const auto& [priority, level] : levels_) {
    num_shares += level.shares.size();
  }
  return num_shares;
}

void WaitingQueue::PopAdmitted() {
  Sequence* const next = Next();
  WITAN_CHECK(next != nullptr, "nothing is queued");
  Level& level = LevelOf(*next->share);
  level.admitted_service_tokens =
      std::max(level.admitted_service_tokens, next->share->service_tokens);
  Remove(*next);
}

void WaitingQueue::Charge(Sequence& sequence, int64_t num_tokens) {
  TenantShare& share = *sequence.share;
  Level& level = LevelOf(share);
  level.undivided_tokens += num_tokens;
  level.virtual_tokens += level.undivided_tokens / level.num_live_shares;
  level.undivided_tokens %= level.num_live_shares;
  if (share.waiting.empty()) {
    share.service_tokens += num_tokens;
    return;
  }
  level.order.erase(KeyOf(share));
  share.service_tokens += num_tokens;
  level.order.emplace(KeyOf(share), &share);
}

}  // namespace witan
