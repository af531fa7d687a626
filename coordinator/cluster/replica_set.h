#ifndef WITAN_COORDINATOR_CLUSTER_REPLICA_SET_H_
#define WITAN_COORDINATOR_CLUSTER_REPLICA_SET_H_

// All replicas of the model and the router in front of them.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "coordinator/cluster/engine.h"
#include "coordinator/cluster/replica_loop.h"
#include "coordinator/cluster/router.h"
#include "coordinator/cluster/trace_file.h"

namespace witan {

struct ReplicaSetOptions {
  ReplicaOptions replica;  // of each of them
  int num_replicas = 1;    // 1 to kMaxReplicas
  RoutingPolicy routing = RoutingPolicy::kPrefix;
  TraceFile* trace = nullptr;  // outlives the replicas; may be null
};

// Thread-safe; owns the replicas' threads. Ids of workers and sequences tell
// their replica: replica r of R gives r+1, r+1+R, r+1+2R ...
class ReplicaSet final : public Engine {
 public:
  // ReplicaLoop's functions, with the replica's index; called on its thread.
  // Snapshots say kRefused where a replica serves what the others do not.
  using SendFn = std::function<void(ReplicaOutput output)>;
  using SnapshotFn =
      std::function<void(int replica, const ReplicaSnapshot& snapshot)>;

  ReplicaSet(const ReplicaSetOptions& options, const Clock& clock, SendFn send,
             SnapshotFn on_snapshot = nullptr);
  ~ReplicaSet() override;

  // --- Requests (Engine) ----------------------------------------------------
  absl::StatusOr<SequenceId> Submit(SequenceSpec spec,
                                    std::unique_ptr<TokenSink> sink) override;
  void Cancel(SequenceId id) override;
  void Pause(SequenceId id) override;
  void Resume(SequenceId id) override;
  std::vector<std::shared_ptr<const ReplicaSnapshot>> Snapshots()
      const override;

  // --- Workers --------------------------------------------------------------
  int num_replicas() const { return static_cast<int>(loops_.size()); }
  // Workers that one replica needs.
  int num_ranks() const { return num_ranks_; }
  ReplicaLoop& loop(int replica) { return *loops_[replica]; }
  // REQUIRES: the id of a worker or sequence that one of the loops gave.
  int ReplicaOf(uint64_t id) const;

  // Stops all replicas (ReplicaLoop::Stop).
  void Stop(const std::string& reason);

 private:
  class RoutedSink;

  void OnSnapshot(int replica, const ReplicaSnapshot& snapshot);
  void OnRefused(int replica, const ReplicaSnapshot& snapshot)
      WITAN_REQUIRES(mutex_);
  bool IsRefused(int replica, const ReplicaSnapshot& snapshot) const
      WITAN_REQUIRES(mutex_);
  std::optional<Route> ChooseReplica(SequenceSpec& spec);
  // UNAVAILABLE, of the first replica that can say more than that.
  absl::Status WhyNoneServes() const;
  ReplicaLoop& LoopOf(SequenceId id);

  const ModelConfig model_;
  const int num_ranks_;
  const SnapshotFn on_snapshot_;

  mutable Mutex mutex_;
  Router router_ WITAN_GUARDED_BY(mutex_);
  // By replica: in which it was found to be another model; 0: none.
  std::vector<Epoch> refused_epochs_ WITAN_GUARDED_BY(mutex_);

  std::vector<std::unique_ptr<ReplicaLoop>> loops_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_REPLICA_SET_H_
