#include "coordinator/cluster/replica_snapshot.h"

#include <algorithm>

#include "base/status.h"
#include "coordinator/cluster/replica.h"

namespace witan {

const char* ReplicaStateName(ReplicaState state) {
  switch (state) {
    case ReplicaState::kWaitingForWorkers:
      return "waiting for workers";
    case ReplicaState::kPreparing:
      return "preparing";
    case ReplicaState::kConnecting:
      return "connecting";
    case ReplicaState::kKnownAnswer:
      return "known answer";
    case ReplicaState::kRefused:
      return "refused";
    case ReplicaState::kServing:
      return "serving";
  }
  return "";
}

std::string Replica::NotServingReason() const {
  switch (state_) {
    case ReplicaState::kWaitingForWorkers: {
      const absl::Status status =
          PlanGroup(options_.model, options_.layout, options_.planner,
                    membership_.Idle())
              .status();
      if (!status.ok()) return std::string(MessageOf(status));
      if (last_error_.empty()) return "the workers are about to get ranks";
      return fmt::format("the workers are about to try again after: {}",
                         last_error_);
    }
    case ReplicaState::kPreparing: {
      int64_t bytes_done = 0, bytes_total = 0;
      for (const Rank& rank : ranks_) {
        bytes_done += rank.progress.bytes_done;
        bytes_total += rank.progress.bytes_total;
      }
      const double fraction =
          static_cast<double>(bytes_done) /
          static_cast<double>(std::max<int64_t>(bytes_total, 1));
      return fmt::format("the workers are loading the model, {:.0f} % done",
                         100 * std::clamp(fraction, 0.0, 1.0));
    }
    case ReplicaState::kConnecting:
      return "the workers are connecting with each other";
    case ReplicaState::kKnownAnswer:
      return "the workers are computing the known answer";
    case ReplicaState::kRefused:
    case ReplicaState::kServing:
      return "";
  }
  return "";
}

ReplicaSnapshot Replica::Snapshot() const {
  ReplicaSnapshot snapshot;
  snapshot.state = state_;
  snapshot.epoch = epoch_;
  snapshot.layout = options_.layout;
  snapshot.transport = group_.transport;
  snapshot.limits = group_.limits;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    const Rank& from = ranks_[rank];
    RankSnapshot& to = snapshot.ranks.emplace_back();
    to.worker = *membership_.Find(group_.workers[rank]);
    to.num_threads = group_.num_threads[rank];
    to.load_bytes_done = from.progress.bytes_done;
    to.load_bytes_total = from.progress.bytes_total;
    to.last_step = from.timings;
    if (!from.prepared) continue;
    to.prepared = true;
    to.weights_bytes = from.prepared->weights_bytes;
    to.kv_bytes = from.prepared->kv_bytes;
  }
  for (const auto& [index, adapter] : adapters_) {
    if (adapter.placement.directory.empty()) continue;
    const AdapterRef& ref = adapter.placement.ref;
    snapshot.adapters.push_back({ref, CheckAdapter(ref)});
  }
  snapshot.idle_workers = membership_.Idle();
  snapshot.lost_workers.assign(membership_.lost().begin(),
                               membership_.lost().end());
  snapshot.weights_id = weights_id_;
  snapshot.numerics_id = numerics_id_;
  if (scheduler_ != nullptr) snapshot.scheduler = scheduler_->stats();
  snapshot.scheduler.AddCounters(past_counters_);
  snapshot.step_time = step_time_;
  snapshot.num_live_sequences = static_cast<int64_t>(live_.size());
  snapshot.num_group_failures = num_group_failures_;
  snapshot.last_error = last_error_;
  snapshot.not_serving_reason = NotServingReason();
  return snapshot;
}

}  // namespace witan
