#ifndef WITAN_COORDINATOR_CLUSTER_ENGINE_H_
#define WITAN_COORDINATOR_CLUSTER_ENGINE_H_

#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <vector>

#include "coordinator/cluster/adapter_set.h"
#include "coordinator/cluster/replica_snapshot.h"
#include "coordinator/cluster/token_sink.h"
#include "coordinator/schedule/sequence.h"

namespace witan {

// What the API asks of the cluster below it. Thread-safe; never blocks.
class Engine {
 public:
  virtual ~Engine() = default;

  // Starts a sequence; spec.id and spec.adapter are the engine's to give. OK:
  // exactly one sink->OnFinished follows, on a replica's thread, perhaps before
  // this returns. RESOURCE_EXHAUSTED, UNAVAILABLE, or NOT_FOUND for the
  // adapter's name: the sink was destroyed without a call.
  virtual absl::StatusOr<SequenceId> Submit(
      SequenceSpec spec, std::unique_ptr<TokenSink> sink) = 0;

  // Of a sequence that was submitted; nothing happens once it has ended. They
  // take effect in the order of the calls.
  virtual void Cancel(SequenceId id) = 0;
  virtual void Pause(SequenceId id) = 0;
  virtual void Resume(SequenceId id) = 0;

  // Adapters by name. `done` is called once, on any thread, when every replica
  // that serves holds the adapter of the directory, or with the reason why not:
  // RESOURCE_EXHAUSTED without room, ALREADY_EXISTS with other contents.
  virtual void LoadAdapter(const std::string& name,
                           const std::string& directory,
                           const std::string& content_hash, int64_t rank,
                           AdapterSet::DoneFn done) = 0;
  // Takes no more sequences for it and forgets it after the last one.
  // NOT_FOUND.
  virtual absl::Status UnloadAdapter(const std::string& name) = 0;
  virtual std::vector<AdapterInfo> Adapters() const = 0;

  // One for each replica, at least one; none is null.
  virtual std::vector<std::shared_ptr<const ReplicaSnapshot>> Snapshots()
      const = 0;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_ENGINE_H_
