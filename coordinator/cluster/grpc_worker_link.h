#ifndef WITAN_COORDINATOR_CLUSTER_GRPC_WORKER_LINK_H_
#define WITAN_COORDINATOR_CLUSTER_GRPC_WORKER_LINK_H_

#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/replica.h"
#include "coordinator/cluster/worker_placement.h"
#include "proto/worker.grpc.pb.h"

namespace witan {

class ReplicaSet;

// The coordinator's end of the streams that workers dial: gives each worker to
// a replica when it registers (worker_placement.h), turns messages into structs
// and posts them into the replica's loop, and sends what the replicas put out.
// A worker that sends what proto/wire refuses, or that does not take its
// messages (kMaxWorkerLinkQueue), is cut off, and one too many
// (kMaxWorkerLinks) is refused. Thread-safe; never blocks.
class WorkerLinkService : public worker::v1::WorkerLink::CallbackService {
 public:
  // `vocab_size` bounds the token ids that workers may report. `clock` outlives
  // this.
  WorkerLinkService(int64_t vocab_size, const Clock& clock);
  ~WorkerLinkService() override;

  // REQUIRES: called once, before the server that holds this service starts;
  // `replicas` outlive that server.
  void SetReplicas(ReplicaSet* replicas) { replicas_ = replicas; }

  // Sends a spare worker to a replica that lacks one, if there are both
  // (SpareMoves). To be called with every snapshot of a replica.
  void MoveSpare();

  // ReplicaSet's SendFn.
  void Send(ReplicaOutput output);

  grpc::ServerBidiReactor<worker::v1::FromWorker, worker::v1::FromCoordinator>*
  Attach(grpc::CallbackServerContext* context) override;

 private:
  class Link;

  std::shared_ptr<Link> Find(WorkerId id);
  void Remove(WorkerId id);
  // The replica of a link that registers from `host_id`: its id from then on.
  WorkerId Place(WorkerId id, const std::string& host_id);
  std::vector<ReplicaWorkers> Workers() const WITAN_REQUIRES(mutex_);

  const int64_t vocab_size_;
  const Clock& clock_;
  ReplicaSet* replicas_ = nullptr;
  Mutex mutex_;
  // Registered ones; the host of each.
  std::map<WorkerId, std::string> hosts_ WITAN_GUARDED_BY(mutex_);
  SpareMoves moves_ WITAN_GUARDED_BY(mutex_);
  std::map<WorkerId, std::shared_ptr<Link>> links_ WITAN_GUARDED_BY(mutex_);
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_GRPC_WORKER_LINK_H_
