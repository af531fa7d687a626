#include "coordinator/schedule/queue_bounds.h"

#include "base/limits.h"
#include "base/status.h"

namespace witan {

absl::Status QueueBounds::Check(const std::string& tenant,
                                int64_t num_prompt_tokens,
                                int64_t num_waiting) const {
  if (num_waiting >= kMaxWaitingSequences) {
    return ResourceExhausted(
        "{} sequences are waiting already, the most there may be; try again "
        "later",
        num_waiting);
  }
  if (num_prompt_tokens > kMaxLivePromptTokens - all_.num_prompt_tokens) {
    return ResourceExhausted(
        "a prompt of {} tokens beside the {} tokens of prompts being served "
        "and waiting is more than {}; try again later",
        num_prompt_tokens, all_.num_prompt_tokens, kMaxLivePromptTokens);
  }
  const auto found = of_tenant_.find(tenant);
  if (found == of_tenant_.end()) return absl::OkStatus();
  const Holdings& holdings = found->second;
  if (holdings.num_sequences >= MaxOfOneTenant(kMaxWaitingSequences) ||
      num_prompt_tokens >
          MaxOfOneTenant(kMaxLivePromptTokens) - holdings.num_prompt_tokens) {
    return ResourceExhausted(
        "tenant \"{}\" has {} sequences with {} prompt tokens, as much as one "
        "tenant may have; try again later",
        tenant, holdings.num_sequences, holdings.num_prompt_tokens);
  }
  return absl::OkStatus();
}

void QueueBounds::Add(const std::string& tenant, int64_t num_prompt_tokens) {
  for (Holdings* const holdings : {&all_, &of_tenant_[tenant]}) {
    ++holdings->num_sequences;
    holdings->num_prompt_tokens += num_prompt_tokens;
  }
}

void QueueBounds::Remove(const std::string& tenant, int64_t num_prompt_tokens) {
  const auto found = of_tenant_.find(tenant);
  for (Holdings* const holdings : {&all_, &found->second}) {
    --holdings->num_sequences;
    holdings->num_prompt_tokens -= num_prompt_tokens;
  }
  if (found->second.num_sequences == 0) of_tenant_.erase(found);
}

}  // namespace witan
