#ifndef WITAN_COORDINATOR_SCHEDULE_SCHEDULER_EVENT_H_
#define WITAN_COORDINATOR_SCHEDULE_SCHEDULER_EVENT_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <variant>
#include <vector>

#include "base/request.h"
#include "coordinator/schedule/sequence.h"

namespace witan {

// A token was made. Indices of one sequence are 0, 1, 2 ...
struct TokenEvent {
  SequenceId id = 0;
  int64_t index = 0;
  SampledToken token;
};

// Log-probabilities of the prompt's tokens from the index `first_index` on;
// indices of one sequence are 1, 2, 3 ..., each once, and all come before the
// first TokenEvent that was not forced.
struct PromptScoresEvent {
  SequenceId id = 0;
  int64_t first_index = 0;
  std::vector<SampledToken> scores;
};

// The last event of a sequence.
struct FinishEvent {
  SequenceId id = 0;
  absl::StatusOr<FinishReason> reason;  // not OK: late, or FinishAll
  SequenceUsage usage;
};

using SchedulerEvent = std::variant<PromptScoresEvent, TokenEvent, FinishEvent>;

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_SCHEDULER_EVENT_H_
