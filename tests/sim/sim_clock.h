#ifndef WITAN_TESTS_SIM_SIM_CLOCK_H_
#define WITAN_TESTS_SIM_SIM_CLOCK_H_

// Simulated time: events in order of their time, and of being scheduled where
// that is equal. Nothing waits; the clock jumps from event to event.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace witan {

class SimClock {
 public:
  using Event = std::function<void()>;

  Micros now() const { return now_; }
  int64_t num_events() const { return num_events_; }

  // A time in the past means now.
  void At(Micros when, Event event) {
    heap_.push_back({std::max(when, now_), next_order_++, std::move(event)});
    std::push_heap(heap_.begin(), heap_.end(), Later);
  }
  void After(Micros delay, Event event) { At(now_ + delay, std::move(event)); }

  // Of the next event; the end of time without one.
  Micros NextTime() const {
    return heap_.empty() ? std::numeric_limits<Micros>::max()
                         : heap_.front().when;
  }
  // REQUIRES: there is a next event.
  void RunNext() {
    std::pop_heap(heap_.begin(), heap_.end(), Later);
    Entry entry = std::move(heap_.back());
    heap_.pop_back();
    now_ = entry.when;
    ++num_events_;
    entry.event();
  }

 private:
  struct Entry {
    Micros when = 0;
    uint64_t order = 0;
    Event event;
  };
  static bool Later(const Entry& a, const Entry& b) {
    return std::pair(a.when, a.order) > std::pair(b.when, b.order);
  }

  Micros now_ = 0;
  uint64_t next_order_ = 0;
  int64_t num_events_ = 0;
  std::vector<Entry> heap_;
};

}  // namespace witan

#endif  // WITAN_TESTS_SIM_SIM_CLOCK_H_
