#ifndef WITAN_COORDINATOR_API_CALL_REGISTRY_H_
#define WITAN_COORDINATOR_API_CALL_REGISTRY_H_

#include <absl/status/status.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"

namespace witan {

class GenerationCall;

// Requests in flight by their id. Thread-safe.
class CallRegistry {
 public:
  // At most so many of one tenant. REQUIRES: at least 1.
  explicit CallRegistry(int max_calls_per_tenant)
      : max_calls_per_tenant_(max_calls_per_tenant) {}

  // ALREADY_EXISTS when the id is in flight; RESOURCE_EXHAUSTED when the tenant
  // has as many as it may.
  absl::Status Insert(const std::string& id, const std::string& tenant,
                      std::shared_ptr<GenerationCall> call);
  // Nothing when the id is another call's.
  void Remove(const std::string& id, const GenerationCall* owner);
  // Null: not in flight.
  std::shared_ptr<GenerationCall> Find(const std::string& id);
  std::vector<std::shared_ptr<GenerationCall>> All();

 private:
  struct Entry {
    std::string tenant;
    std::shared_ptr<GenerationCall> call;
  };

  const int max_calls_per_tenant_;
  Mutex mutex_;
  std::map<std::string, Entry> calls_ WITAN_GUARDED_BY(mutex_);
  // Of tenants that have some.
  std::map<std::string, int> num_calls_of_ WITAN_GUARDED_BY(mutex_);
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_CALL_REGISTRY_H_
