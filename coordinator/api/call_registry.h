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
  // ALREADY_EXISTS when the id is in flight.
  absl::Status Insert(const std::string& id,
                      std::shared_ptr<GenerationCall> call);
  // Nothing when the id is another call's.
  void Remove(const std::string& id, const GenerationCall* owner);
  // Null: not in flight.
  std::shared_ptr<GenerationCall> Find(const std::string& id);
  std::vector<std::shared_ptr<GenerationCall>> All();

 private:
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<GenerationCall>> calls_
      WITAN_GUARDED_BY(mutex_);
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_CALL_REGISTRY_H_
