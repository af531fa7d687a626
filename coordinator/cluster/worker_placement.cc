#include "coordinator/cluster/worker_placement.h"

#include <tuple>

namespace witan {

int ReplicaWorkers::num_workers() const {
  int num_workers = 0;
  for (const auto& [host, num] : num_by_host) num_workers += num;
  return num_workers;
}

int PlaceWorker(const std::vector<ReplicaWorkers>& replicas, int num_ranks,
                const std::string& host_id) {
  int best = 0;
  std::tuple<bool, int, int> best_key;
  for (size_t i = 0; i < replicas.size(); ++i) {
    const int num_workers = replicas[i].num_workers();
    const bool lacks_workers = num_workers < num_ranks;
    const auto on_host = replicas[i].num_by_host.find(host_id);
    const int num_on_host =
        on_host == replicas[i].num_by_host.end() ? 0 : on_host->second;
    const std::tuple<bool, int, int> key =
        lacks_workers ? std::tuple(true, num_on_host, num_workers)
                      : std::tuple(false, 0, -num_workers);
    if (i > 0 && key <= best_key) continue;
    best = static_cast<int>(i);
    best_key = key;
  }
  return best;
}

std::optional<SpareMove> FindSpareMove(
    const std::vector<ReplicaWorkers>& replicas, int num_ranks) {
  std::optional<int> lacking, sparing;
  for (size_t i = 0; i < replicas.size(); ++i) {
    const int num_workers = replicas[i].num_workers();
    if (num_workers < num_ranks && !lacking) lacking = static_cast<int>(i);
    if (num_workers > num_ranks && !sparing) sparing = static_cast<int>(i);
  }
  if (!lacking || !sparing) return std::nullopt;
  return SpareMove{*sparing, *lacking};
}

}  // namespace witan
