#ifndef WITAN_CLI_BENCH_FEED_H_
#define WITAN_CLI_BENCH_FEED_H_

#include <cstdint>
#include <optional>
#include <queue>
#include <utility>
#include <vector>

#include "cli/bench/plan.h"

namespace witan::bench {

// What is to be sent next, and when. Pure: time is an argument, counted from
// the beginning of the load. One thread.
class Feed {
 public:
  virtual ~Feed() = default;
  // When the next request is due; none while all wait for answers, and at the
  // end.
  virtual std::optional<Micros> NextDue() = 0;
  // That request. REQUIRES: NextDue() is a time.
  virtual PlannedRequest Take() = 0;
  // `request` was answered, or failed: its client, if it has one, goes on.
  virtual void OnEnd(const PlannedRequest& request, Micros now) = 0;
};

// The measured load: open loops by the plan's arrivals, closed loops by who is
// idle.
class LoadFeed final : public Feed {
 public:
  // `plan` outlives this.
  explicit LoadFeed(const Plan& plan);

  std::optional<Micros> NextDue() override;
  PlannedRequest Take() override;
  void OnEnd(const PlannedRequest& request, Micros now) override;
  // Not taken yet: of the open loops, and of classes of clients whose number of
  // requests is given.
  int64_t num_left() const;
  // A client was turned away by kMaxBenchRequests alone.
  bool stopped_at_max_requests() const { return stopped_at_max_requests_; }

 private:
  // A client that thinks until then.
  struct IdleClient {
    Micros due_us = 0;
    int class_index = 0;
    bool operator>(const IdleClient& other) const {
      return std::pair(due_us, class_index) >
             std::pair(other.due_us, other.class_index);
    }
  };

  // Neither its class nor the time says no.
  bool WantsToGoOn(const IdleClient& client) const;
  bool ClientIsNext() const;

  const Plan& plan_;
  const Micros end_us_;  // 0: no such bound
  size_t next_open_loop_ = 0;
  int64_t num_closed_loop_ = 0;  // taken
  bool stopped_at_max_requests_ = false;
  std::vector<int64_t> num_of_class_;  // taken, of the closed loops
  std::priority_queue<IdleClient, std::vector<IdleClient>, std::greater<>>
      idle_;
};

// Warm-up: at most kMaxBenchWarmupClients requests at a time.
class WarmupFeed final : public Feed {
 public:
  explicit WarmupFeed(const Plan& plan) : plan_(plan) {}

  std::optional<Micros> NextDue() override;
  PlannedRequest Take() override;
  void OnEnd(const PlannedRequest& request, Micros now) override;

 private:
  const Plan& plan_;
  int64_t num_taken_ = 0;
  int64_t num_in_flight_ = 0;
  Micros due_us_ = 0;
};

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_FEED_H_
