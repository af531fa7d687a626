#ifndef WITAN_COORDINATOR_CLUSTER_REPLICA_SNAPSHOT_H_
#define WITAN_COORDINATOR_CLUSTER_REPLICA_SNAPSHOT_H_

// What a Replica tells about itself, as a plain copy that any thread may keep.

#include <cstdint>
#include <string>
#include <vector>

#include "base/step_plan.h"
#include "base/worker_protocol.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/schedule/scheduler.h"
#include "model/memory_plan.h"
#include "model/shard_plan.h"

namespace witan {

enum class ReplicaState : uint8_t {
  kWaitingForWorkers,
  kPreparing,
  kConnecting,
  kKnownAnswer,
  // Its tokens may be others than those of the replica that served first, so it
  // gets no requests. Of a ReplicaSet; a Replica by itself is never refused.
  kRefused,
  kServing,
};

// "waiting for workers", "preparing", "connecting", "known answer", "refused",
// "serving".
const char* ReplicaStateName(ReplicaState state);

// One rank of the current group, for people and metrics.
struct RankSnapshot {
  WorkerInfo worker;
  int32_t num_threads = 0;
  int64_t load_bytes_done = 0;
  int64_t load_bytes_total = 0;  // 0: not known yet
  bool prepared = false;
  int64_t weights_bytes = 0;
  int64_t kv_bytes = 0;
  StepTimings last_step;
};

// Where the time of all steps went, over all epochs. Means over the ranks, but
// for the coordinator's part: what a step took beyond its slowest rank.
struct StepTimeTotals {
  int64_t compute_us = 0;
  int64_t communication_us = 0;  // without waiting
  int64_t wait_us = 0;           // for other ranks
  int64_t coordinator_us = 0;
};

// An adapter, and where the ranks are to hold it.
struct AdapterPlacement {
  AdapterRef ref;
  std::string directory;  // empty: under this index there is to be none
  bool operator==(const AdapterPlacement&) const = default;
};

// An adapter that the ranks are to hold.
struct AdapterSnapshot {
  AdapterRef ref;
  // UNAVAILABLE while a rank has yet to answer; OK: all hold it.
  absl::Status status;
};

// A consistent copy of everything that may be looked at.
struct ReplicaSnapshot {
  ReplicaState state = ReplicaState::kWaitingForWorkers;
  Epoch epoch = 0;  // of the current group, or of the last one
  Layout layout;
  Transport transport = Transport::kSharedMemory;
  EngineLimits limits;              // of the current group
  std::vector<RankSnapshot> ranks;  // by rank; empty without a group
  std::vector<AdapterSnapshot> adapters;
  std::vector<WorkerInfo> idle_workers;
  std::vector<WorkerInfo> lost_workers;  // oldest first
  std::string weights_id;                // empty until known
  std::string numerics_id;
  SchedulerStats scheduler;  // counters over all epochs
  StepTimeTotals step_time;
  int64_t num_live_sequences = 0;
  int64_t num_group_failures = 0;
  std::string last_error;  // why the last group failed, or cannot be formed
  // Why requests are refused; empty while serving. "1 of 2 workers registered".
  std::string not_serving_reason;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_REPLICA_SNAPSHOT_H_
