#include "cli/bench/feed.h"

#include <algorithm>
#include <cmath>

#include "base/limits.h"

namespace witan::bench {

LoadFeed::LoadFeed(const Plan& plan)
    : plan_(plan),
      end_us_(std::llround(plan.workload().duration_s *
                           static_cast<double>(kMicrosPerSecond))),
      num_of_class_(plan.classes().size()) {
  for (size_t i = 0; i < plan.classes().size(); ++i) {
    const TrafficClass& traffic = plan.classes()[i];
    const Micros start =
        std::llround(traffic.start_s * static_cast<double>(kMicrosPerSecond));
    for (int64_t k = 0; k < traffic.num_clients; ++k) {
      idle_.push({start, static_cast<int>(i)});
    }
  }
}

bool LoadFeed::WantsToGoOn(const IdleClient& client) const {
  const size_t index = static_cast<size_t>(client.class_index);
  const int64_t limit = plan_.classes()[index].num_requests;
  return (limit == 0 || num_of_class_[index] < limit) &&
         (end_us_ == 0 || client.due_us < end_us_);
}

bool LoadFeed::ClientIsNext() const {
  return !idle_.empty() &&
         (next_open_loop_ == plan_.open_loop().size() ||
          idle_.top().due_us < plan_.open_loop()[next_open_loop_].due_us);
}

std::optional<Micros> LoadFeed::NextDue() {
  for (; !idle_.empty(); idle_.pop()) {
    if (!WantsToGoOn(idle_.top())) continue;
    if (num_closed_loop_ < kMaxBenchRequests) break;
    stopped_at_max_requests_ = true;
  }
  if (ClientIsNext()) return idle_.top().due_us;
  if (next_open_loop_ == plan_.open_loop().size()) return std::nullopt;
  return plan_.open_loop()[next_open_loop_].due_us;
}

PlannedRequest LoadFeed::Take() {
  if (!ClientIsNext()) return plan_.open_loop()[next_open_loop_++];
  const IdleClient client = idle_.top();
  idle_.pop();
  ++num_closed_loop_;
  PlannedRequest request = plan_.ClosedLoopRequest(
      client.class_index,
      num_of_class_[static_cast<size_t>(client.class_index)]++);
  request.due_us = client.due_us;
  return request;
}

void LoadFeed::OnEnd(const PlannedRequest& request, Micros now) {
  const TrafficClass& traffic =
      plan_.classes()[static_cast<size_t>(request.class_index)];
  if (traffic.open_loop()) return;
  const Micros think = std::llround(traffic.think_time_ms *
                                    static_cast<double>(kMicrosPerMilli));
  idle_.push({now + think, request.class_index});
}

int64_t LoadFeed::num_left() const {
  auto num_left =
      static_cast<int64_t>(plan_.open_loop().size() - next_open_loop_);
  for (size_t i = 0; i < plan_.classes().size(); ++i) {
    const TrafficClass& traffic = plan_.classes()[i];
    if (traffic.open_loop() || traffic.num_requests == 0) continue;
    num_left += traffic.num_requests - num_of_class_[i];
  }
  return num_left;
}

std::optional<Micros> WarmupFeed::NextDue() {
  if (num_taken_ == plan_.workload().num_warmup_requests ||
      num_in_flight_ == kMaxBenchWarmupClients) {
    return std::nullopt;
  }
  return due_us_;
}

PlannedRequest WarmupFeed::Take() {
  ++num_in_flight_;
  PlannedRequest request = plan_.WarmupRequest(num_taken_++);
  request.due_us = due_us_;
  return request;
}

void WarmupFeed::OnEnd(const PlannedRequest&, Micros now) {
  --num_in_flight_;
  due_us_ = now;
}

}  // namespace witan::bench
