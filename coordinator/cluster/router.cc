#include "coordinator/cluster/router.h"

#include <algorithm>
#include <tuple>

#include "base/limits.h"

namespace witan {
namespace {

// Of the tokens that a request may make, how many count as work that it brings:
// most ask for more than they use.
constexpr int64_t kExpectedOutputTokens = 128;
// A token that another replica has cached costs more than its computation: it
// takes a place in a second cache.
constexpr int64_t kNewTokenWeight = 2;

}  // namespace

void Router::PrefixIndex::Reset(size_t capacity) {
  capacity_ = capacity;
  order_.clear();
  positions_.clear();
}

size_t Router::PrefixIndex::CountHits(std::span<const BlockName> names) const {
  size_t num_hits = 0;
  while (num_hits < names.size() && positions_.contains(names[num_hits])) {
    ++num_hits;
  }
  return num_hits;
}

void Router::PrefixIndex::Touch(std::span<const BlockName> names) {
  // Last to first, so that a block is forgotten before its parent.
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    const auto [it, is_new] = positions_.try_emplace(*name);
    if (is_new) {
      it->second = order_.insert(order_.end(), *name);
    } else {
      order_.splice(order_.end(), order_, it->second);
    }
  }
  while (positions_.size() > capacity_) {
    positions_.erase(order_.front());
    order_.pop_front();
  }
}

Router::Router(int num_replicas, RoutingPolicy policy)
    : policy_(policy), replicas_(num_replicas) {}

bool Router::OnServing(int replica, Epoch epoch, int64_t num_blocks,
                       const PrefixIdentity& identity) {
  if (!identity_) identity_ = identity;
  Replica& r = replicas_[replica];
  if (identity != *identity_) {
    r.serving = false;
    return false;
  }
  if (r.serving && r.epoch == epoch) return true;
  r.serving = true;
  r.epoch = epoch;
  r.outstanding_tokens = 0;
  r.index.Reset(static_cast<size_t>(
      std::clamp<int64_t>(num_blocks, 0, kMaxRememberedBlocks)));
  return true;
}

void Router::OnNotServing(int replica) { replicas_[replica].serving = false; }

std::optional<Route> Router::Choose(int64_t num_prompt_tokens,
                                    int64_t max_tokens,
                                    std::span<const BlockName> names,
                                    std::optional<int> replica,
                                    const MayTakeFn& may_take) {
  if (!replica) {
    replica = policy_ == RoutingPolicy::kPrefix
                  ? ChooseByPrefix(num_prompt_tokens, names, may_take)
                  : ChooseInTurn(may_take);
  }
  if (!replica || !replicas_[*replica].serving) return std::nullopt;
  Replica& chosen = replicas_[*replica];
  Route route;
  route.replica = *replica;
  route.epoch = chosen.epoch;
  // The last token of a prompt is always computed.
  route.num_hit_tokens = std::min(
      static_cast<int64_t>(chosen.index.CountHits(names)) * kBlockTokens,
      num_prompt_tokens - 1);
  route.cost_tokens = num_prompt_tokens - route.num_hit_tokens +
                      std::min(max_tokens, kExpectedOutputTokens);
  chosen.index.Touch(names);
  chosen.outstanding_tokens += route.cost_tokens;
  ++chosen.num_routed;
  return route;
}

std::optional<int> Router::ChooseByPrefix(int64_t num_prompt_tokens,
                                          std::span<const BlockName> names,
                                          const MayTakeFn& may_take) const {
  std::optional<int> best;
  std::tuple<int64_t, size_t> best_cost;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    const Replica& replica = replicas_[i];
    if (!MayBeChosen(static_cast<int>(i), may_take)) continue;
    const int64_t num_hit_tokens =
        static_cast<int64_t>(replica.index.CountHits(names)) * kBlockTokens;
    // Of equals the one that has more room for what is new to all.
    const std::tuple<int64_t, size_t> cost = {
        replica.outstanding_tokens +
            kNewTokenWeight * (num_prompt_tokens - num_hit_tokens),
        replica.index.size()};
    if (best && cost >= best_cost) continue;
    best = static_cast<int>(i);
    best_cost = cost;
  }
  return best;
}

std::optional<int> Router::ChooseInTurn(const MayTakeFn& may_take) {
  const int num_replicas = static_cast<int>(replicas_.size());
  for (int i = 0; i < num_replicas; ++i) {
    const int replica = next_in_turn_;
    next_in_turn_ = (next_in_turn_ + 1) % num_replicas;
    if (MayBeChosen(replica, may_take)) return replica;
  }
  return std::nullopt;
}

void Router::OnFinished(const Route& route) {
  Replica& replica = replicas_[route.replica];
  // What an earlier epoch was sent died with it.
  if (replica.epoch != route.epoch) return;
  replica.outstanding_tokens -= route.cost_tokens;
}

}  // namespace witan
