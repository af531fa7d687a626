#include "coordinator/api/cluster_service.h"

#include "base/build_id.h"
#include "base/limits.h"
#include "base/utf8.h"
#include "coordinator/api/messages.h"
#include "proto/rpc_status.h"

namespace witan {
namespace {

v1::GroupState ToProto(ReplicaState state) {
  switch (state) {
    case ReplicaState::kWaitingForWorkers:
      return v1::GROUP_STATE_WAITING_FOR_WORKERS;
    case ReplicaState::kPreparing:
      return v1::GROUP_STATE_LOADING;
    case ReplicaState::kConnecting:
    case ReplicaState::kKnownAnswer:
      return v1::GROUP_STATE_CONNECTING;
    case ReplicaState::kServing:
      return v1::GROUP_STATE_SERVING;
  }
  return v1::GROUP_STATE_UNSPECIFIED;
}

void FillWorker(const WorkerInfo& worker, Micros now, v1::WorkerStatus& out) {
  out.set_worker_id(worker.id);
  out.set_host_name(ReplaceInvalidUtf8(worker.registration.host_name));
  out.set_process_id(worker.registration.process_id);
  out.set_device(ReplaceInvalidUtf8(worker.registration.device));
  out.set_cpu_path(ReplaceInvalidUtf8(worker.registration.cpu_path));
  out.set_num_cores(worker.registration.num_cores);
  out.set_memory_bytes(worker.registration.memory_bytes);
  out.set_metrics_address(
      ReplaceInvalidUtf8(worker.registration.metrics_address));
  out.set_last_heard_ms((now - worker.last_heard_at) / kMicrosPerMilli);
}

void FillRank(const RankSnapshot& rank, int index, ReplicaState state,
              Micros now, v1::WorkerStatus& out) {
  FillWorker(rank.worker, now, out);
  out.set_rank(index);
  out.set_state(state == ReplicaState::kServing ? v1::WORKER_STATE_SERVING
                : rank.prepared                 ? v1::WORKER_STATE_PREPARED
                                                : v1::WORKER_STATE_LOADING);
  out.set_load_done_bytes(rank.load_bytes_done);
  out.set_load_total_bytes(rank.load_bytes_total);
  out.set_weights_bytes(rank.weights_bytes);
  out.set_kv_bytes(rank.kv_bytes);
  out.mutable_last_step()->set_total_us(rank.last_step.total_us);
  out.mutable_last_step()->set_communication_us(
      rank.last_step.communication_us);
  out.mutable_last_step()->set_wait_us(rank.last_step.wait_us);
}

void FillScheduler(const ReplicaSnapshot& snapshot, v1::SchedulerStatus& out) {
  const SchedulerStats& stats = snapshot.scheduler;
  out.set_running_sequences(stats.num_running);
  out.set_waiting_sequences(stats.num_waiting);
  out.set_max_sequences(snapshot.limits.max_sequences);
  out.set_used_blocks(stats.num_blocks - stats.num_free_blocks);
  out.set_total_blocks(stats.num_blocks);
  out.set_block_tokens(kBlockTokens);
  out.set_preemptions(stats.num_preemptions);
  out.set_steps(stats.num_steps);
}

}  // namespace

ClusterService::ClusterService(const ServedModel& model, const Engine& engine,
                               const ApiMetrics& metrics, const Clock& clock)
    : model_(model),
      engine_(engine),
      metrics_(metrics),
      clock_(clock),
      started_at_(clock.Now()) {}

void ClusterService::SetAddresses(const std::string& grpc_address,
                                  const std::string& metrics_address) {
  MutexLock lock(mutex_);
  grpc_address_ = grpc_address;
  metrics_address_ = metrics_address;
}

grpc::ServerUnaryReactor* ClusterService::Status(
    grpc::CallbackServerContext* rpc, const v1::StatusRequest* request,
    v1::StatusResponse* response) {
  grpc::ServerUnaryReactor* const reactor = rpc->DefaultReactor();
  const absl::Status size_status = CheckRequestSize(request->ByteSizeLong());
  if (!size_status.ok()) {
    reactor->Finish(ToGrpcStatus(size_status));
    return reactor;
  }
  const std::shared_ptr<const ReplicaSnapshot> snapshot = engine_.Snapshot();
  const Micros now = clock_.Now();
  v1::StatusResponse& out = *response;
  out.set_model(model_.facts.name);
  out.set_model_directory(ReplaceInvalidUtf8(model_.directory));
  out.set_state(ToProto(snapshot->state));
  std::string reason = snapshot->not_serving_reason;
  if (snapshot->state != ReplicaState::kServing &&
      !snapshot->last_error.empty() && reason != snapshot->last_error) {
    reason += reason.empty() ? "" : "; ";
    reason += "last failure: " + snapshot->last_error;
  }
  out.set_state_reason(ReplaceInvalidUtf8(reason));
  out.set_epoch(snapshot->epoch);
  out.set_tp(snapshot->layout.tp);
  out.set_ep(snapshot->layout.ep);
  out.set_num_ranks(snapshot->layout.num_ranks());
  out.set_transport(snapshot->transport == Transport::kTcp ? "tcp" : "shm");
  out.set_max_context_tokens(model_.facts.max_context_tokens);
  out.set_max_step_tokens(snapshot->limits.max_step_tokens);
  for (size_t rank = 0; rank < snapshot->ranks.size(); ++rank) {
    FillRank(snapshot->ranks[rank], static_cast<int>(rank), snapshot->state,
             now, *out.add_workers());
  }
  for (const WorkerInfo& worker : snapshot->idle_workers) {
    v1::WorkerStatus& status = *out.add_workers();
    FillWorker(worker, now, status);
    status.set_state(v1::WORKER_STATE_SPARE);
  }
  for (const WorkerInfo& worker : snapshot->lost_workers) {
    v1::LostWorker& lost = *out.add_lost_workers();
    lost.set_worker_id(worker.id);
    lost.set_host_name(ReplaceInvalidUtf8(worker.registration.host_name));
    lost.set_process_id(worker.registration.process_id);
    lost.set_cause(ReplaceInvalidUtf8(worker.lost_cause));
  }
  FillScheduler(*snapshot, *out.mutable_scheduler());
  out.mutable_scheduler()->set_prompt_tokens(metrics_.num_prompt_tokens());
  out.mutable_scheduler()->set_generated_tokens(
      metrics_.num_generated_tokens());
  out.set_weights_id(snapshot->weights_id);
  out.set_numerics_id(ReplaceInvalidUtf8(snapshot->numerics_id));
  out.set_build_id(BuildId());
  out.set_uptime_seconds(static_cast<double>(now - started_at_) /
                         kMicrosPerSecond);
  {
    MutexLock lock(mutex_);
    out.set_grpc_address(grpc_address_);
    out.set_metrics_address(metrics_address_);
  }
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace witan
