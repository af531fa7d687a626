#ifndef WITAN_COORDINATOR_CLUSTER_WORKER_PLACEMENT_H_
#define WITAN_COORDINATOR_CLUSTER_WORKER_PLACEMENT_H_

// Which replica a worker joins. Pure.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace witan {

// The workers of one replica, by host.
struct ReplicaWorkers {
  std::map<std::string, int> num_by_host;
  int num_coming = 0;  // spares of others on their way

  int num_workers() const;
};

// One that lacks workers, of these the one with most workers on `host_id`
// already (they can share memory), else the one that lacks fewest, so that one
// serves early; once none lacks any, the one with fewest spares. Ties go to the
// lower index. REQUIRES: at least one replica.
int PlaceWorker(const std::vector<ReplicaWorkers>& replicas, int num_ranks,
                const std::string& host_id);

// From one that has a worker to spare to one that lacks it.
struct SpareMove {
  int from = 0;
  int to = 0;
  bool operator==(const SpareMove&) const = default;
};

// The moves of spares, one after the other for each that is missing: a spare
// that was let go is counted where it is missing until it registers again, so
// that one lost worker does not send all spares on their way. One that does not
// come within kMaxReconnectPauseMs is no longer waited for; the next one then
// comes from another replica, if there is one, because a replica that waits for
// workers itself lets none go.
class SpareMoves {
 public:
  // To be asked for whenever something changed, and now and then.
  std::optional<SpareMove> Next(std::vector<ReplicaWorkers> replicas,
                                int num_ranks, Micros now);
  // A worker registered with `replica`.
  void OnPlaced(int replica);

 private:
  struct Coming {
    int to = 0;
    Micros until = 0;
  };
  std::vector<Coming> coming_;
  int last_from_ = -1;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_WORKER_PLACEMENT_H_
