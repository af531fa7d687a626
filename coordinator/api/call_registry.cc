#include "coordinator/api/call_registry.h"

#include <utility>

#include "base/status.h"
#include "coordinator/api/generation_call.h"

namespace witan {

absl::Status CallRegistry::Insert(const std::string& id,
                                  const std::string& tenant,
                                  std::shared_ptr<GenerationCall> call) {
  MutexLock lock(mutex_);
  if (calls_.contains(id)) {
    return AlreadyExists(
        "a request with request_id \"{}\" is in flight; choose another id, or "
        "cancel that one",
        id);
  }
  const auto of_tenant = num_calls_of_.find(tenant);
  if (of_tenant != num_calls_of_.end() &&
      of_tenant->second >= max_calls_per_tenant_) {
    return ResourceExhausted(
        "tenant \"{}\" has {} streams open, as many as one tenant may have; "
        "retry later",
        tenant, max_calls_per_tenant_);
  }
  ++num_calls_of_[tenant];
  calls_.emplace(id, Entry{tenant, std::move(call)});
  return absl::OkStatus();
}

void CallRegistry::Remove(const std::string& id, const GenerationCall* owner) {
  std::shared_ptr<GenerationCall> call;  // destroyed outside the lock
  MutexLock lock(mutex_);
  const auto found = calls_.find(id);
  if (found == calls_.end() || found->second.call.get() != owner) return;
  const auto of_tenant = num_calls_of_.find(found->second.tenant);
  if (--of_tenant->second == 0) num_calls_of_.erase(of_tenant);
  call = std::move(found->second.call);
  calls_.erase(found);
}

std::shared_ptr<GenerationCall> CallRegistry::Find(const std::string& id) {
  MutexLock lock(mutex_);
  const auto found = calls_.find(id);
  return found == calls_.end() ? nullptr : found->second.call;
}

std::vector<std::shared_ptr<GenerationCall>> CallRegistry::All() {
  std::vector<std::shared_ptr<GenerationCall>> calls;
  MutexLock lock(mutex_);
  calls.reserve(calls_.size());
  for (const auto& [id, entry] : calls_) calls.push_back(entry.call);
  return calls;
}

}  // namespace witan
