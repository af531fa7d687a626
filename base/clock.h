#ifndef WITAN_BASE_CLOCK_H_
#define WITAN_BASE_CLOCK_H_

// Time as an argument. Deciding code (scheduler, membership, replica) takes a
// `Micros now` and never reads a clock; only edges own a Clock.

#include <cstdint>

namespace witan {

// Microseconds on a monotonic clock with an arbitrary start.
using Micros = int64_t;

constexpr Micros kMicrosPerMilli = 1000;
constexpr Micros kMicrosPerSecond = 1000 * 1000;

class Clock {
 public:
  virtual ~Clock() = default;
  // Thread-safe; never goes back.
  virtual Micros Now() const = 0;
};

// The process-wide monotonic clock (CLOCK_MONOTONIC).
const Clock& MonotonicClock();

}  // namespace witan

#endif  // WITAN_BASE_CLOCK_H_
