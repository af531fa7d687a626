#ifndef WITAN_CLI_RESTART_POLICY_H_
#define WITAN_CLI_RESTART_POLICY_H_

#include <algorithm>

#include "base/clock.h"
#include "base/limits.h"

namespace witan {

// How long to wait before a process that ended is started again.
class RestartPolicy {
 public:
  // The pause after an end; `lifetime` is how long it had run.
  Micros PauseAfterEnd(Micros lifetime) {
    if (lifetime >= kRespawnForgivenAfterMs * kMicrosPerMilli) num_ends_ = 0;
    const int doublings = std::min(num_ends_++, 16);
    return std::min(kMinRespawnPauseMs << doublings, kMaxRespawnPauseMs) *
           kMicrosPerMilli;
  }
  // Ends in a row.
  int num_ends() const { return num_ends_; }

 private:
  int num_ends_ = 0;
};

}  // namespace witan

#endif  // WITAN_CLI_RESTART_POLICY_H_
