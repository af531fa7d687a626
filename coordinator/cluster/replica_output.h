#ifndef WITAN_COORDINATOR_CLUSTER_REPLICA_OUTPUT_H_
#define WITAN_COORDINATOR_CLUSTER_REPLICA_OUTPUT_H_

// What a Replica wants to be done with its workers' connections.

#include <absl/status/status.h>

#include <variant>
#include <vector>

#include "base/worker_protocol.h"
#include "coordinator/cluster/membership.h"

namespace witan {

// `message` goes to each of `workers`.
struct SendMessage {
  std::vector<WorkerId> workers;
  CoordinatorMessage message;
};

// The connection of `worker` is to be ended with this status.
struct CloseWorker {
  WorkerId worker = 0;
  absl::Status reason;
};

using ReplicaOutput = std::variant<SendMessage, CloseWorker>;

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_REPLICA_OUTPUT_H_
