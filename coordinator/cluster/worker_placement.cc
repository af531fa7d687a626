#include "coordinator/cluster/worker_placement.h"

#include <algorithm>
#include <tuple>

#include "base/limits.h"

namespace witan {

int ReplicaWorkers::num_workers() const {
  int num_workers = num_coming;
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

std::optional<SpareMove> SpareMoves::Next(std::vector<ReplicaWorkers> replicas,
                                          int num_ranks, Micros now) {
  std::erase_if(coming_,
                [now](const Coming& coming) { return coming.until <= now; });
  for (const Coming& coming : coming_) ++replicas[coming.to].num_coming;
  const int num_replicas = static_cast<int>(replicas.size());
  std::optional<int> lacking, sparing;
  for (int i = 0; i < num_replicas; ++i) {
    if (!lacking && replicas[i].num_workers() < num_ranks) lacking = i;
    const int in_turn = (last_from_ + 1 + i) % num_replicas;
    if (!sparing && replicas[in_turn].num_workers() > num_ranks) {
      sparing = in_turn;
    }
  }
  if (!lacking || !sparing) return std::nullopt;
  last_from_ = *sparing;
  coming_.push_back({*lacking, now + kMaxReconnectPauseMs * kMicrosPerMilli});
  return SpareMove{*sparing, *lacking};
}

void SpareMoves::OnPlaced(int replica) {
  const auto found =
      std::find_if(coming_.begin(), coming_.end(),
                   [replica](const Coming& c) { return c.to == replica; });
  if (found != coming_.end()) coming_.erase(found);
}

}  // namespace witan
