#ifndef WITAN_COORDINATOR_SCHEDULE_WAITING_QUEUE_H_
#define WITAN_COORDINATOR_SCHEDULE_WAITING_QUEUE_H_

// Who is next: the highest priority, in it the tenant that was served least, of
// it the sequence that arrived first.
//
// Service is counted in tokens computed for a tenant within a priority (Virtual
// Token Counter: Sheng et al., "Fairness in Serving Large Language Models",
// OSDI 2024). While two tenants have something waiting, what they are served
// differs by no more than what running sequences can add to a count before the
// next admission, however much one of them asks for. A tenant that has nothing
// waiting cannot save up for later: when it comes, or comes back, its count
// begins at the least one of those that wait, and no lower than the one of the
// tenant admitted last and than what every tenant would have been served if all
// had got the same (virtual time: Demers et al., "Analysis and Simulation of a
// Fair Queueing Algorithm", SIGCOMM 1989). So new names, however many, cannot
// go before a known one for ever.

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "coordinator/schedule/sequence.h"

namespace witan {

// A tenant within one priority.
struct TenantShare {
  std::string tenant;
  int32_t priority = 0;
  int64_t service_tokens = 0;
  int64_t num_live = 0;                             // sequences, waiting or not
  std::map<uint64_t, Sequence*> waiting;            // by arrival
  std::list<TenantShare*>::iterator idle_position;  // while num_live is 0
};

// Owned by the Scheduler. Operations cost a logarithm of the tenants and of the
// tenant's queue.
class WaitingQueue {
 public:
  // A new sequence, which gets its share. It is not queued yet.
  void Enter(Sequence& sequence);
  // A sequence that ended. REQUIRES: it is not queued.
  void Leave(Sequence& sequence);

  // REQUIRES: entered, and not queued.
  void Push(Sequence& sequence);
  // REQUIRES: queued.
  void Remove(Sequence& sequence);
  // Null when nothing is queued.
  Sequence* Next() const;
  // Removes Next(), which is admitted.
  void PopAdmitted();

  // Tokens were computed for a sequence's tenant.
  void Charge(Sequence& sequence, int64_t num_tokens);

  int64_t size() const { return size_; }
  // Tenants that are remembered, of all priorities.
  size_t num_shares() const;

 private:
  // Of shares with something waiting: (service, first arrival).
  using Key = std::pair<int64_t, uint64_t>;
  struct Level {
    std::unordered_map<std::string, TenantShare> shares;  // by tenant
    std::map<Key, TenantShare*> order;
    std::list<TenantShare*> idle;         // longest idle first
    int64_t admitted_service_tokens = 0;  // of the share admitted last
    // What each share would have been served, had all live ones got the same,
    // and what could not be divided among them yet.
    int64_t virtual_tokens = 0;
    int64_t undivided_tokens = 0;
    int64_t num_live_shares = 0;
  };

  static Key KeyOf(const TenantShare& share);
  // Where the count of a tenant begins that had nothing waiting.
  static int64_t FloorOf(const Level& level);
  Level& LevelOf(const TenantShare& share);

  std::map<int32_t, Level, std::greater<int32_t>> levels_;  // by priority
  int64_t size_ = 0;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_WAITING_QUEUE_H_
