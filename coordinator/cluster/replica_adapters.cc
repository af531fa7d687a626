// The adapters that a replica's ranks hold.

#include <iterator>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/cluster/replica.h"

namespace witan {

void Replica::SetAdapter(AdapterPlacement adapter) {
  const int32_t index = adapter.ref.index;
  AdapterState& state = adapters_[index];
  state.placement = std::move(adapter);
  if (state_ != ReplicaState::kServing) {
    if (state.placement.directory.empty()) adapters_.erase(index);
  } else if (state.num_awaited > 0) {
    state.is_outdated = true;
  } else {
    SendAdapter(state);
  }
}

void Replica::SendAdapters() {
  for (auto it = adapters_.begin(); it != adapters_.end();) {
    const auto current = it++;
    if (current->second.placement.directory.empty()) {
      adapters_.erase(current);
    } else {
      SendAdapter(current->second);
    }
  }
}

void Replica::SendAdapter(AdapterState& adapter) {
  adapter.num_awaited = static_cast<int>(ranks_.size());
  adapter.is_awaited.assign(ranks_.size(), true);
  adapter.sent_load_number = adapter.placement.ref.load_number;
  adapter.is_outdated = false;
  adapter.status = absl::OkStatus();
  SendToRanks(LoadAdapter{.epoch = epoch_,
                          .index = adapter.placement.ref.index,
                          .load_number = adapter.sent_load_number,
                          .directory = adapter.placement.directory});
}

void Replica::Handle(WorkerId worker, AdapterLoaded message, Micros now) {
  const std::optional<int> rank = RankOf(worker, message.epoch);
  if (!rank) return;
  const auto it = adapters_.find(message.index);
  if (it == adapters_.end()) return;
  AdapterState& adapter = it->second;
  if (adapter.sent_load_number != message.load_number ||
      adapter.num_awaited == 0 || !adapter.is_awaited[*rank]) {
    return;
  }
  adapter.is_awaited[*rank] = false;
  --adapter.num_awaited;
  // Steps wait behind it: the rank is at work.
  state_deadline_ = now + kStepTimeoutMs * kMicrosPerMilli;
  NoteAnswer(*rank, message, adapter);
  if (adapter.num_awaited > 0) return;
  if (adapter.is_outdated) {
    SendAdapter(adapter);
  } else if (adapter.placement.directory.empty()) {
    adapters_.erase(it);
  }
}

void Replica::NoteAnswer(int rank, const AdapterLoaded& message,
                         AdapterState& adapter) {
  if (adapter.is_outdated || adapter.placement.directory.empty()) return;
  absl::Status status = message.status;
  const std::string& expected = adapter.placement.ref.content_hash;
  if (status.ok() && message.content_hash != expected) {
    status = FailedPrecondition(
        "{} holds other weights of the adapter {} than the coordinator read: "
        "{} and {}; put the same files on every host",
        RankName(rank), adapter.placement.directory, message.content_hash,
        expected);
  } else if (absl::IsUnavailable(status)) {
    // That code says here that a rank has yet to answer.
    status = FailedPrecondition("{}", MessageOf(status));
  }
  if (adapter.status.ok() && !status.ok()) {
    adapter.status = Annotate(status, RankName(rank));
  }
}

absl::Status Replica::CheckAdapter(const AdapterRef& ref) const {
  if (ref.index == kNoAdapter) return absl::OkStatus();
  const auto it = adapters_.find(ref.index);
  if (it == adapters_.end() || it->second.placement.ref != ref) {
    return Unavailable("the adapter is not loaded any more; load it again");
  }
  const AdapterState& adapter = it->second;
  RETURN_IF_ERROR(adapter.status);
  if (state_ != ReplicaState::kServing || adapter.num_awaited > 0) {
    return Unavailable("the adapter is being loaded; try again");
  }
  return absl::OkStatus();
}

}  // namespace witan
