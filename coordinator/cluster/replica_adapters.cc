// The adapters that a replica's ranks hold.

#include <utility>

#include "base/status.h"
#include "coordinator/cluster/replica.h"

namespace witan {

void Replica::SetAdapter(AdapterPlacement adapter) {
  const int32_t index = adapter.ref.index;
  AdapterState state{.placement = std::move(adapter)};
  if (state_ == ReplicaState::kServing) SendAdapter(state);
  if (state.placement.directory.empty()) {
    adapters_.erase(index);
  } else {
    adapters_[index] = std::move(state);
  }
}

void Replica::SendAdapter(AdapterState& adapter) {
  adapter.num_answers = 0;
  adapter.status = absl::OkStatus();
  SendToRanks(LoadAdapter{.epoch = epoch_,
                          .index = adapter.placement.ref.index,
                          .load_number = adapter.placement.ref.load_number,
                          .directory = adapter.placement.directory});
}

void Replica::Handle(WorkerId worker, AdapterLoaded message, Micros) {
  const std::optional<int> rank = RankOf(worker, message.epoch);
  if (!rank) return;
  const auto it = adapters_.find(message.index);
  // Of an adapter that is to go, or of the one before it.
  if (it == adapters_.end() ||
      it->second.placement.ref.load_number != message.load_number) {
    return;
  }
  AdapterState& adapter = it->second;
  ++adapter.num_answers;
  absl::Status status = std::move(message.status);
  const std::string& expected = adapter.placement.ref.content_hash;
  if (status.ok() && message.content_hash != expected) {
    status = FailedPrecondition(
        "{} holds other weights of the adapter {} than the coordinator read: "
        "{} and {}; put the same files on every host",
        RankName(*rank), adapter.placement.directory, message.content_hash,
        expected);
  }
  if (adapter.status.ok() && !status.ok()) {
    adapter.status = Annotate(status, RankName(*rank));
  }
}

absl::Status Replica::CheckAdapter(const AdapterRef& ref) const {
  if (ref.index == kNoAdapter) return absl::OkStatus();
  const auto it = adapters_.find(ref.index);
  if (it == adapters_.end() || it->second.placement.ref != ref) {
    return Unavailable("the adapter is not loaded any more; load it again");
  }
  RETURN_IF_ERROR(it->second.status);
  if (state_ != ReplicaState::kServing ||
      it->second.num_answers < static_cast<int>(ranks_.size())) {
    return Unavailable("the adapter is being loaded; try again");
  }
  return absl::OkStatus();
}

}  // namespace witan
