#include "coordinator/cluster/adapter_set.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

// OK: every replica that serves holds it, and one does. UNAVAILABLE: not yet.
absl::Status StatusOf(
    const AdapterRef& ref,
    const std::vector<std::shared_ptr<const ReplicaSnapshot>>& snapshots) {
  absl::Status status = absl::UnavailableError("no replica serves");
  bool is_first = true;
  for (const auto& snapshot : snapshots) {
    if (snapshot->state != ReplicaState::kServing) continue;
    const auto& adapters = snapshot->adapters;
    const auto it =
        std::find_if(adapters.begin(), adapters.end(),
                     [&ref](const AdapterSnapshot& a) { return a.ref == ref; });
    const absl::Status of_replica =
        it == adapters.end() ? absl::UnavailableError("not yet") : it->status;
    // An error is worse than not yet, and that is worse than OK.
    if (is_first || status.ok() ||
        (absl::IsUnavailable(status) && !of_replica.ok())) {
      status = of_replica;
    }
    is_first = false;
  }
  return status;
}

}  // namespace

absl::StatusOr<std::optional<AdapterPlacement>> AdapterSet::Begin(
    const std::string& name, const std::string& directory,
    const std::string& content_hash, int64_t rank, DoneFn done) {
  if (const auto it = entries_.find(name); it != entries_.end()) {
    Entry& entry = it->second;
    if (entry.state == AdapterState::kDraining) {
      return Unavailable(
          "adapter {} is being unloaded, {} sequences use it; try again", name,
          entry.num_sequences);
    }
    if (entry.ref.content_hash != content_hash) {
      return absl::AlreadyExistsError(fmt::format(
          "adapter {} is loaded with other contents; unload it first", name));
    }
    if (entry.waiting.size() >= kMaxAdapterLoads) {
      return ResourceExhausted("{} calls wait for adapter {} already",
                               entry.waiting.size(), name);
    }
    entry.waiting.push_back(std::move(done));
    if (entry.state == AdapterState::kReady) Finish(entry, absl::OkStatus());
    return std::optional<AdapterPlacement>();
  }
  const auto free = std::find(indices_.begin(), indices_.end(), false);
  if (free == indices_.end()) {
    return ResourceExhausted(
        "{} adapters are loaded, the most there may be (--max-adapters); "
        "unload "
        "one first",
        indices_.size());
  }
  *free = true;
  Entry& entry = entries_[name];
  entry.ref = {.index = static_cast<int32_t>(free - indices_.begin()),
               .load_number = next_load_number_++,
               .content_hash = content_hash};
  entry.rank = rank;
  entry.waiting.push_back(std::move(done));
  return AdapterPlacement{entry.ref, directory};
}

std::vector<AdapterPlacement> AdapterSet::OnSnapshots(
    const std::vector<std::shared_ptr<const ReplicaSnapshot>>& snapshots) {
  std::vector<AdapterPlacement> removed;
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto current = it++;
    Entry& entry = current->second;
    if (entry.state != AdapterState::kLoading) continue;
    const absl::Status status = StatusOf(entry.ref, snapshots);
    if (absl::IsUnavailable(status)) continue;
    if (status.ok()) entry.state = AdapterState::kReady;
    Finish(entry, status);
    if (!status.ok()) removed.push_back(Remove(current));
  }
  return removed;
}

absl::StatusOr<std::optional<AdapterPlacement>> AdapterSet::End(
    const std::string& name) {
  const auto it = entries_.find(name);
  if (it == entries_.end()) {
    return NotFound("no adapter {} is loaded", name);
  }
  Entry& entry = it->second;
  Finish(entry, absl::CancelledError("the adapter was unloaded"));
  entry.state = AdapterState::kDraining;
  std::optional<AdapterPlacement> placement;
  if (entry.num_sequences == 0) placement = Remove(it);
  return placement;
}

absl::StatusOr<AdapterRef> AdapterSet::Acquire(const std::string& name) {
  const auto it = entries_.find(name);
  if (it == entries_.end()) {
    return NotFound("no adapter {} is loaded", name);
  }
  Entry& entry = it->second;
  if (entry.state != AdapterState::kReady) {
    return Unavailable(
        "adapter {} is being {}; try again", name,
        entry.state == AdapterState::kLoading ? "loaded" : "unloaded");
  }
  ++entry.num_sequences;
  return entry.ref;
}

std::optional<AdapterPlacement> AdapterSet::Release(const std::string& name) {
  const auto it = entries_.find(name);
  --it->second.num_sequences;
  std::optional<AdapterPlacement> placement;
  if (it->second.state == AdapterState::kDraining &&
      it->second.num_sequences == 0) {
    placement = Remove(it);
  }
  return placement;
}

std::vector<AdapterInfo> AdapterSet::List() const {
  std::vector<AdapterInfo> list;
  for (const auto& [name, entry] : entries_) {
    list.push_back({.name = name,
                    .content_hash = entry.ref.content_hash,
                    .rank = entry.rank,
                    .state = entry.state,
                    .num_sequences = entry.num_sequences});
  }
  return list;
}

std::vector<std::function<void()>> AdapterSet::TakeDone() {
  return std::exchange(done_, {});
}

void AdapterSet::Finish(Entry& entry, const absl::Status& status) {
  for (DoneFn& done : std::exchange(entry.waiting, {})) {
    done_.push_back([done = std::move(done), status] { done(status); });
  }
}

AdapterPlacement AdapterSet::Remove(Entries::iterator it) {
  AdapterPlacement placement{.ref = {.index = it->second.ref.index}};
  indices_[static_cast<size_t>(placement.ref.index)] = false;
  entries_.erase(it);
  return placement;
}

}  // namespace witan
