#ifndef WITAN_COORDINATOR_SCHEDULE_SCHEDULER_EVENT_H_
#define WITAN_COORDINATOR_SCHEDULE_SCHEDULER_EVENT_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <variant>

#include "base/request.h"
#include "coordinator/schedule/sequence.h"

namespace witan {

// A token was made. Indices of one sequence are 0, 1, 2 ...
struct TokenEvent {
  SequenceId id = 0;
  int64_t index = 0;
  SampledToken token;
};

// The last event of a sequence.
struct FinishEvent {
  SequenceId id = 0;
  absl::StatusOr<FinishReason> reason;  // not OK: late, or FinishAll
  SequenceUsage usage;
};

using SchedulerEvent = std::variant<TokenEvent, FinishEvent>;

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_SCHEDULER_EVENT_H_
