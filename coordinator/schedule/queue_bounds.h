#ifndef WITAN_COORDINATOR_SCHEDULE_QUEUE_BOUNDS_H_
#define WITAN_COORDINATOR_SCHEDULE_QUEUE_BOUNDS_H_

// How much may wait and run in a scheduler, in all and of one tenant.

#include <absl/status/status.h>

#include <cstdint>
#include <string>
#include <unordered_map>

namespace witan {

// Owned by the Scheduler, used by its thread only.
class QueueBounds {
 public:
  // RESOURCE_EXHAUSTED when kMaxWaitingSequences wait, when the prompts of all
  // would come to more than kMaxLivePromptTokens, or when the tenant alone
  // would have more than MaxOfOneTenant of either, waiting or not.
  absl::Status Check(const std::string& tenant, int64_t num_prompt_tokens,
                     int64_t num_waiting) const;
  // A sequence came or went, with all that it holds.
  void Add(const std::string& tenant, int64_t num_prompt_tokens);
  void Remove(const std::string& tenant, int64_t num_prompt_tokens);

 private:
  struct Holdings {
    int64_t num_sequences = 0;
    int64_t num_prompt_tokens = 0;
  };

  Holdings all_;
  std::unordered_map<std::string, Holdings> of_tenant_;  // that has some
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_QUEUE_BOUNDS_H_
