#ifndef WITAN_COORDINATOR_CLUSTER_WORKER_PLACEMENT_H_
#define WITAN_COORDINATOR_CLUSTER_WORKER_PLACEMENT_H_

// Which replica a worker joins. Pure.

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace witan {

// The workers of one replica, by host.
struct ReplicaWorkers {
  std::map<std::string, int> num_by_host;

  int num_workers() const;
};

// One that lacks workers, of these the one with most workers on `host_id`
// already (they can share memory), else the one that lacks fewest, so that one
// serves early; once none lacks any, the one with fewest spares. Ties go to the
// lower index. REQUIRES: at least one replica.
int PlaceWorker(const std::vector<ReplicaWorkers>& replicas, int num_ranks,
                const std::string& host_id);

// A replica that lacks workers and another one that has one to spare.
struct SpareMove {
  int from = 0;
  int to = 0;
};
std::optional<SpareMove> FindSpareMove(
    const std::vector<ReplicaWorkers>& replicas, int num_ranks);

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_WORKER_PLACEMENT_H_
