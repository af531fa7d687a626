#include "coordinator/cluster/membership.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "base/limits.h"
#include "base/status.h"

namespace witan {

std::string WorkerInfo::Name() const {
  const std::string rank_text =
      state == WorkerState::kAssigned ? fmt::format("rank {}, ", rank) : "";
  return fmt::format("worker {} ({}pid {} on host {})", id, rank_text,
                     registration.process_id, registration.host_name);
}

Membership::Membership(MembershipOptions options)
    : options_(std::move(options)) {}

void Membership::OnConnected(WorkerId id, Micros now) {
  connected_at_.emplace(id, now);
}

absl::Status Membership::Register(WorkerId id,
                                  const RegisterWorker& registration,
                                  Micros now) {
  connected_at_.erase(id);
  if (registration.build_id != options_.build_id) {
    return FailedPrecondition(
        "the worker's build id is {}, the coordinator's is {}; start both from "
        "the same build",
        registration.build_id, options_.build_id);
  }
  if (registration.protocol_version != kWorkerProtocolVersion) {
    return FailedPrecondition(
        "the worker speaks protocol version {}, the coordinator {}; start both "
        "from the same build",
        registration.protocol_version, kWorkerProtocolVersion);
  }
  if (!registration.model_directory.empty() &&
      registration.model_directory != options_.model_directory) {
    return FailedPrecondition(
        "the worker was told to serve the model in {}, the coordinator serves "
        "the one in {}; start both with the same model directory",
        registration.model_directory, options_.model_directory);
  }
  if (members_.size() >= static_cast<size_t>(kMaxWorkers)) {
    return ResourceExhausted("{} workers are registered, the most there may be",
                             members_.size());
  }
  WorkerInfo info;
  info.id = id;
  info.registration = registration;
  info.registered_at = now;
  info.last_heard_at = now;
  if (!members_.emplace(id, std::move(info)).second) {
    return AlreadyExists("worker {} registered twice on one connection", id);
  }
  return absl::OkStatus();
}

bool Membership::OnHeard(WorkerId id, Micros now) {
  const auto it = members_.find(id);
  if (it == members_.end()) return false;
  it->second.last_heard_at = std::max(it->second.last_heard_at, now);
  return true;
}

bool Membership::OnLost(WorkerId id, const std::string& cause) {
  connected_at_.erase(id);
  const auto it = members_.find(id);
  if (it == members_.end()) return false;
  it->second.state = WorkerState::kLost;
  it->second.lost_cause = cause;
  lost_.push_back(std::move(it->second));
  members_.erase(it);
  if (lost_.size() > kMaxLostWorkersRemembered) lost_.pop_front();
  return true;
}

std::vector<WorkerId> Membership::Expired(Micros now) const {
  std::vector<WorkerId> expired;
  for (const auto& [id, info] : members_) {
    if (now - info.last_heard_at >= kWorkerTimeoutMs * kMicrosPerMilli) {
      expired.push_back(id);
    }
  }
  return expired;
}

std::vector<WorkerId> Membership::Unregistered(Micros now) const {
  std::vector<WorkerId> late;
  for (const auto& [id, connected_at] : connected_at_) {
    if (now - connected_at >= kRegistrationTimeoutMs * kMicrosPerMilli) {
      late.push_back(id);
    }
  }
  return late;
}

Micros Membership::NextExpiry() const {
  Micros next = std::numeric_limits<Micros>::max();
  for (const auto& [id, connected_at] : connected_at_) {
    next =
        std::min(next, connected_at + kRegistrationTimeoutMs * kMicrosPerMilli);
  }
  for (const auto& [id, info] : members_) {
    next =
        std::min(next, info.last_heard_at + kWorkerTimeoutMs * kMicrosPerMilli);
  }
  return next;
}

void Membership::Assign(WorkerId id, Epoch epoch, int32_t rank) {
  const auto it = members_.find(id);
  WITAN_CHECK(it != members_.end(), "worker {} is no member", id);
  it->second.state = WorkerState::kAssigned;
  it->second.epoch = epoch;
  it->second.rank = rank;
}

void Membership::ReleaseAll() {
  for (auto& [id, info] : members_) {
    info.state = WorkerState::kIdle;
    info.epoch = 0;
    info.rank = -1;
  }
}

void Membership::OnFailedStart(WorkerId id) {
  const auto it = members_.find(id);
  if (it != members_.end()) ++it->second.num_failed_starts;
}

void Membership::OnServing(WorkerId id) {
  const auto it = members_.find(id);
  if (it != members_.end()) it->second.num_failed_starts = 0;
}

const WorkerInfo* Membership::Find(WorkerId id) const {
  const auto it = members_.find(id);
  return it == members_.end() ? nullptr : &it->second;
}

std::vector<WorkerInfo> Membership::Idle() const {
  std::vector<WorkerInfo> idle;
  for (const auto& [id, info] : members_) {
    if (info.state == WorkerState::kIdle) idle.push_back(info);
  }
  return idle;
}

std::vector<WorkerInfo> Membership::Members() const {
  std::vector<WorkerInfo> members;
  for (const auto& [id, info] : members_) members.push_back(info);
  return members;
}

}  // namespace witan
