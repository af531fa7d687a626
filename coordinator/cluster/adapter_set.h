#ifndef WITAN_COORDINATOR_CLUSTER_ADAPTER_SET_H_
#define WITAN_COORDINATOR_CLUSTER_ADAPTER_SET_H_

// The LoRA adapters that a cluster serves, by name: who has which index on the
// ranks, which of them all serving replicas hold, and how many sequences use
// each. Pure; the owner guards it and carries out what it says.
//
//   Begin --> Loading --all serving replicas hold it--> Ready
//   Loading --one of them cannot--> gone, with the reason
//   Ready --End--> Draining (no new sequences) --the last one ended--> gone

#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/cluster/replica_snapshot.h"

namespace witan {

enum class AdapterState : uint8_t { kLoading, kReady, kDraining };

// One adapter, for people.
struct AdapterInfo {
  std::string name;
  std::string content_hash;
  int64_t rank = 0;
  AdapterState state = AdapterState::kLoading;
  int64_t num_sequences = 0;
};

class AdapterSet {
 public:
  // Called once, when the adapter is ready or cannot be.
  using DoneFn = std::function<void(absl::Status)>;

  explicit AdapterSet(int64_t max_adapters) : indices_(max_adapters, false) {}

  // A new adapter: the placement that every replica is to take. nullopt: it is
  // there already, with the same contents; `done` is then called when it is
  // ready, or was, through TakeDone. RESOURCE_EXHAUSTED without a free index,
  // ALREADY_EXISTS with other contents, UNAVAILABLE while it drains.
  absl::StatusOr<std::optional<AdapterPlacement>> Begin(
      const std::string& name, const std::string& directory,
      const std::string& content_hash, int64_t rank, DoneFn done);

  // What replicas say. Placements without a directory are to be taken by every
  // replica: those of adapters that could not be loaded.
  std::vector<AdapterPlacement> OnSnapshots(
      const std::vector<std::shared_ptr<const ReplicaSnapshot>>& snapshots);

  // No more sequences; the placement that every replica is to take, or nullopt
  // while sequences use it. NOT_FOUND.
  absl::StatusOr<std::optional<AdapterPlacement>> End(const std::string& name);

  // For a sequence that begins: counted until Release. NOT_FOUND, or
  // UNAVAILABLE while it loads or drains.
  absl::StatusOr<AdapterRef> Acquire(const std::string& name);
  // The placement that every replica is to take, after the last sequence of an
  // adapter that drains.
  std::optional<AdapterPlacement> Release(const std::string& name);

  // By name.
  std::vector<AdapterInfo> List() const;

  // Calls that are due since the last time, to be made outside of any lock.
  std::vector<std::function<void()>> TakeDone();

 private:
  struct Entry {
    AdapterRef ref;
    int64_t rank = 0;
    AdapterState state = AdapterState::kLoading;
    int64_t num_sequences = 0;
    std::vector<DoneFn> waiting;
  };
  using Entries = std::map<std::string, Entry>;

  void Finish(Entry& entry, const absl::Status& status);
  // Frees the index; what every replica is to take.
  AdapterPlacement Remove(Entries::iterator it);

  std::vector<bool> indices_;  // in use
  uint64_t next_load_number_ = 1;
  Entries entries_;
  std::vector<std::function<void()>> done_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_ADAPTER_SET_H_
