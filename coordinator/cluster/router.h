#ifndef WITAN_COORDINATOR_CLUSTER_ROUTER_H_
#define WITAN_COORDINATOR_CLUSTER_ROUTER_H_

// Which replica takes a request: the one that has the least to compute before
// and for it. What a replica has cached is not asked but remembered: the blocks
// of the prompts that it was sent, as many as its cache has, least recently
// used ones forgotten first. A wrong guess costs time and changes no token.

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/step_plan.h"
#include "coordinator/schedule/block_name.h"

namespace witan {

enum class RoutingPolicy : uint8_t {
  kPrefix,      // by cached prompts and load
  kRoundRobin,  // in turn
};

// What one request means for the replica that it is sent to.
struct Route {
  int replica = 0;
  Epoch epoch = 0;
  int64_t num_hit_tokens = 0;  // expected in the replica's cache
  int64_t cost_tokens = 0;     // to be computed, as far as one can tell
};

// Pure: no clock, no thread. Used under its owner's lock.
class Router {
 public:
  using MayTakeFn = std::function<bool(int replica)>;

  Router(int num_replicas, RoutingPolicy policy);

  // A replica serves with an empty cache of `num_blocks`. Nothing happens if
  // it is known to serve in this epoch. False: its tokens may be others than
  // those of the replica that served first, so it gets no requests.
  bool OnServing(int replica, Epoch epoch, int64_t num_blocks,
                 const PrefixIdentity& identity = {});
  void OnNotServing(int replica);

  // `names`: of the prompt's full blocks. `replica`: the one it has to be, for
  // a request's other choices. `may_take`: whether a replica is fit for the
  // request; none: all are. Nothing when none that is fit, or not that one,
  // serves.
  std::optional<Route> Choose(int64_t num_prompt_tokens, int64_t max_tokens,
                              std::span<const BlockName> names,
                              std::optional<int> replica = std::nullopt,
                              const MayTakeFn& may_take = nullptr);
  // Of what is served; nothing when nothing ever was.
  const std::optional<PrefixIdentity>& identity() const { return identity_; }

  // The request that `route` was chosen for has ended.
  void OnFinished(const Route& route);

  int64_t num_routed(int replica) const {
    return replicas_[replica].num_routed;
  }
  // Tokens that the requests it was sent have yet to compute.
  int64_t outstanding_tokens(int replica) const {
    return replicas_[replica].outstanding_tokens;
  }

 private:
  // Names in order of last use, the oldest first.
  class PrefixIndex {
   public:
    void Reset(size_t capacity);
    size_t CountHits(std::span<const BlockName> names) const;
    void Touch(std::span<const BlockName> names);
    size_t size() const { return positions_.size(); }

   private:
    using Order = std::list<BlockName>;
    size_t capacity_ = 0;
    Order order_;
    std::unordered_map<BlockName, Order::iterator, BlockNameHash> positions_;
  };
  struct Replica {
    bool serving = false;
    Epoch epoch = 0;
    PrefixIndex index;
    int64_t outstanding_tokens = 0;
    int64_t num_routed = 0;
  };

  bool MayBeChosen(int replica, const MayTakeFn& may_take) const {
    return replicas_[replica].serving && (!may_take || may_take(replica));
  }
  std::optional<int> ChooseByPrefix(int64_t num_prompt_tokens,
                                    std::span<const BlockName> names,
                                    const MayTakeFn& may_take) const;
  std::optional<int> ChooseInTurn(const MayTakeFn& may_take);

  const RoutingPolicy policy_;
  std::optional<PrefixIdentity> identity_;
  std::vector<Replica> replicas_;
  int next_in_turn_ = 0;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_ROUTER_H_
