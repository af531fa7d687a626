#ifndef WITAN_COORDINATOR_CLUSTER_TRACE_FILE_H_
#define WITAN_COORDINATOR_CLUSTER_TRACE_FILE_H_

// What the replicas did, as a file that chrome://tracing and Perfetto open
// (Trace Event Format, JSON array; times in microseconds of the monotonic
// clock). A process for each replica; in it a line for the coordinator, one for
// each rank, and the requests.
//
// A rank tells how long it computed, communicated and waited in a step, not
// when: the three are drawn one after the other. No text of a request and no
// id of a client is written.

#include <absl/status/statusor.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "coordinator/cluster/step_observer.h"

namespace witan {

// Thread-safe.
class TraceFile {
 public:
  // Replaces a trace of ours. INVALID_ARGUMENT with the system's reason when
  // the file cannot be written, or when it holds something else: a path that
  // another program reads must not cost the user what is there.
  static absl::StatusOr<std::unique_ptr<TraceFile>> Create(
      const std::string& path, int num_replicas);
  // Ends the array. A file that was cut off before opens too.
  ~TraceFile();
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;

  // Owned by this object.
  StepObserver& observer(int replica) { return *observers_[replica]; }

 private:
  class ReplicaTrace;

  TraceFile(std::string path, std::FILE* file, int num_replicas);
  // Up to kMaxTraceBytes; what comes then is left out, which the log says.
  void Write(const std::string& events);

  const std::string path_;
  Mutex mutex_;
  std::FILE* const file_;
  int64_t num_bytes_ WITAN_GUARDED_BY(mutex_) = 0;
  bool stopped_ WITAN_GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<StepObserver>> observers_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_TRACE_FILE_H_
