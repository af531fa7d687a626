#ifndef WITAN_COORDINATOR_CLUSTER_PLANNER_H_
#define WITAN_COORDINATOR_CLUSTER_PLANNER_H_

// Which worker takes which rank, and with what limits. Pure.

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/worker_protocol.h"
#include "coordinator/cluster/membership.h"
#include "model/config.h"
#include "model/memory_plan.h"
#include "model/shard_plan.h"

namespace witan {

struct PlannerOptions {
  // limits.num_blocks > 0 forces the number of KV blocks; 0: as many as fit in
  // the memory of every rank: what was promised to its worker, or its share of
  // what the host can spare.
  EngineLimits limits;
  std::optional<Transport> transport;  // forced, else shared memory if possible
  int32_t num_threads = 0;             // per rank, unless a worker was told
                                       // its own; 0: cores / ranks
  int64_t one_shot_max_bytes = 0;      // see PrepareGroup
  // Replicas that may have ranks on the same hosts. What a host has is divided
  // as if all of them did: a replica does not know where the others are.
  int num_replicas = 1;
};

// Rank r of the group is workers[r].
struct GroupPlan {
  std::vector<WorkerId> workers;
  std::vector<int32_t> num_threads;  // by rank
  Transport transport = Transport::kSharedMemory;
  EngineLimits limits;
};

// INVALID_ARGUMENT names what is outside its range. To be asked once, at the
// start: nothing that a worker does can make up for it.
absl::Status CheckPlannerOptions(const ModelConfig& config,
                                 const PlannerOptions& options);

// Chooses layout.num_ranks() of the idle workers. All of them compute the same
// bits (by device and order of the CPU path); those whose memory does not hold
// a rank are left out, and so are those that failed more starts, as long as
// there are enough others. Of the rest all on one host if one has enough (of
// several such hosts the one whose first worker comes first), else hosts with
// the most workers first; within a host in order of failed starts, then of
// registration.
//
// When no choice works: UNAVAILABLE "1 of 2 workers registered" when they are
// too few; FAILED_PRECONDITION when they would compute different bits, or when
// shared memory is forced across hosts; RESOURCE_EXHAUSTED when the model does
// not fit in their memory.
// REQUIRES: CheckPlannerOptions(config, options) is OK.
absl::StatusOr<GroupPlan> PlanGroup(const ModelConfig& config, Layout layout,
                                    const PlannerOptions& options,
                                    const std::vector<WorkerInfo>& idle);

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_PLANNER_H_
