#include "coordinator/api/call_registry.h"

#include <utility>

#include "base/status.h"
#include "coordinator/api/generation_call.h"

namespace witan {

absl::Status CallRegistry::Insert(const std::string& id,
                                  std::shared_ptr<GenerationCall> call) {
  MutexLock lock(mutex_);
  if (calls_.emplace(id, std::move(call)).second) return absl::OkStatus();
  return AlreadyExists(
      "a request with request_id \"{}\" is in flight; choose another id, or "
      "cancel that one",
      id);
}

void CallRegistry::Remove(const std::string& id, const GenerationCall* owner) {
  std::shared_ptr<GenerationCall> call;  // destroyed outside the lock
  MutexLock lock(mutex_);
  const auto found = calls_.find(id);
  if (found == calls_.end() || found->second.get() != owner) return;
  call = std::move(found->second);
  calls_.erase(found);
}

std::shared_ptr<GenerationCall> CallRegistry::Find(const std::string& id) {
  MutexLock lock(mutex_);
  const auto found = calls_.find(id);
  return found == calls_.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<GenerationCall>> CallRegistry::All() {
  std::vector<std::shared_ptr<GenerationCall>> calls;
  MutexLock lock(mutex_);
  calls.reserve(calls_.size());
  for (const auto& [id, call] : calls_) calls.push_back(call);
  return calls;
}

}  // namespace witan
