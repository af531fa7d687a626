#ifndef WITAN_COORDINATOR_CLUSTER_ENGINE_H_
#define WITAN_COORDINATOR_CLUSTER_ENGINE_H_

#include <absl/status/statusor.h>

#include <memory>
#include <vector>

#include "coordinator/cluster/replica_snapshot.h"
#include "coordinator/cluster/token_sink.h"
#include "coordinator/schedule/sequence.h"

namespace witan {

// What the API asks of the cluster below it. Thread-safe; never blocks.
class Engine {
 public:
  virtual ~Engine() = default;

  // Starts a sequence; spec.id is the engine's to give. OK: exactly one
  // sink->OnFinished follows, on a replica's thread, perhaps before this
  // returns. RESOURCE_EXHAUSTED or UNAVAILABLE: the sink was destroyed without
  // a call.
  virtual absl::StatusOr<SequenceId> Submit(
      SequenceSpec spec, std::unique_ptr<TokenSink> sink) = 0;

  // Of a sequence that was submitted; nothing happens once it has ended. They
  // take effect in the order of the calls.
  virtual void Cancel(SequenceId id) = 0;
  virtual void Pause(SequenceId id) = 0;
  virtual void Resume(SequenceId id) = 0;

  // One for each replica, at least one; none is null.
  virtual std::vector<std::shared_ptr<const ReplicaSnapshot>> Snapshots()
      const = 0;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_ENGINE_H_
