#include "coordinator/api/cluster_service.h"

#include <memory>
#include <utility>

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
    case ReplicaState::kRefused:
      return v1::GROUP_STATE_REFUSED;
    case ReplicaState::kServing:
      return v1::GROUP_STATE_SERVING;
  }
  return v1::GROUP_STATE_UNSPECIFIED;
}

v1::AdapterState ToProto(AdapterState state) {
  switch (state) {
    case AdapterState::kLoading:
      return v1::ADAPTER_STATE_LOADING;
    case AdapterState::kReady:
      return v1::ADAPTER_STATE_READY;
    case AdapterState::kDraining:
      return v1::ADAPTER_STATE_DRAINING;
  }
  return v1::ADAPTER_STATE_UNSPECIFIED;
}

// A call that is answered when an adapter is loaded, or ends when its client
// goes. Deletes itself.
class LoadAdapterCall final : public grpc::ServerUnaryReactor {
 public:
  // What the loader calls, perhaps after the call has ended.
  AdapterSet::DoneFn done() {
    return [end = end_](const absl::Status& status) { Finish(*end, status); };
  }

 private:
  // The call until it is finished.
  struct End {
    Mutex mutex;
    LoadAdapterCall* call WITAN_GUARDED_BY(mutex);
    explicit End(LoadAdapterCall* of) : call(of) {}
  };

  static void Finish(End& end, const absl::Status& status) {
    LoadAdapterCall* call;
    {
      MutexLock lock(end.mutex);
      call = std::exchange(end.call, nullptr);
    }
    if (call == nullptr) return;
    call->grpc::ServerUnaryReactor::Finish(status.ok() ? grpc::Status::OK
                                                       : ToGrpcStatus(status));
  }

  void OnCancel() override {
    Finish(*end_, absl::CancelledError("the client went away"));
  }
  void OnDone() override { delete this; }

  const std::shared_ptr<End> end_ = std::make_shared<End>(this);
};

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

void AddScheduler(const ReplicaSnapshot& snapshot, v1::SchedulerStatus& out) {
  const SchedulerStats& stats = snapshot.scheduler;
  const auto add = [&out](auto get, auto set, int64_t value) {
    (out.*set)((out.*get)() + value);
  };
  using Status = v1::SchedulerStatus;
  add(&Status::running_sequences, &Status::set_running_sequences,
      stats.num_running);
  add(&Status::waiting_sequences, &Status::set_waiting_sequences,
      stats.num_waiting);
  add(&Status::paused_sequences, &Status::set_paused_sequences,
      stats.num_paused);
  add(&Status::max_sequences, &Status::set_max_sequences,
      snapshot.limits.max_sequences);
  add(&Status::used_blocks, &Status::set_used_blocks,
      stats.num_blocks - stats.num_free_blocks);
  add(&Status::total_blocks, &Status::set_total_blocks, stats.num_blocks);
  add(&Status::preemptions, &Status::set_preemptions, stats.num_preemptions);
  add(&Status::steps, &Status::set_steps, stats.num_steps);
  add(&Status::prefix_lookup_tokens, &Status::set_prefix_lookup_tokens,
      stats.num_prefix_lookup_tokens);
  add(&Status::prefix_hit_tokens, &Status::set_prefix_hit_tokens,
      stats.num_prefix_hit_tokens);
  out.set_block_tokens(kBlockTokens);
}

std::string StateReason(const ReplicaSnapshot& snapshot) {
  std::string reason = snapshot.not_serving_reason;
  if (snapshot.state != ReplicaState::kServing &&
      !snapshot.last_error.empty() && reason != snapshot.last_error) {
    reason += reason.empty() ? "" : "; ";
    reason += "last failure: " + snapshot.last_error;
  }
  return ReplaceInvalidUtf8(reason);
}

const char* TransportName(const ReplicaSnapshot& snapshot) {
  return snapshot.transport == Transport::kTcp ? "tcp" : "shm";
}

void FillReplica(const ReplicaSnapshot& snapshot, v1::ReplicaStatus& out) {
  out.set_state(ToProto(snapshot.state));
  out.set_state_reason(StateReason(snapshot));
  out.set_epoch(snapshot.epoch);
  out.set_transport(TransportName(snapshot));
  AddScheduler(snapshot, *out.mutable_scheduler());
}

void AddWorkers(const ReplicaSnapshot& snapshot, int replica, Micros now,
                v1::StatusResponse& out) {
  for (size_t rank = 0; rank < snapshot.ranks.size(); ++rank) {
    v1::WorkerStatus& status = *out.add_workers();
    FillRank(snapshot.ranks[rank], static_cast<int>(rank), snapshot.state, now,
             status);
    status.set_replica(replica);
  }
  for (const WorkerInfo& worker : snapshot.idle_workers) {
    v1::WorkerStatus& status = *out.add_workers();
    FillWorker(worker, now, status);
    status.set_state(v1::WORKER_STATE_SPARE);
    status.set_replica(replica);
  }
  for (const WorkerInfo& worker : snapshot.lost_workers) {
    v1::LostWorker& lost = *out.add_lost_workers();
    lost.set_worker_id(worker.id);
    lost.set_host_name(ReplaceInvalidUtf8(worker.registration.host_name));
    lost.set_process_id(worker.registration.process_id);
    lost.set_cause(ReplaceInvalidUtf8(worker.lost_cause));
  }
}

}  // namespace

ClusterService::ClusterService(const ServedModel& model, Engine& engine,
                               const ApiMetrics& metrics, const Clock& clock)
    : model_(model),
      engine_(engine),
      adapter_loader_(model.adapters_directory, model.facts.config, engine),
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
  const auto snapshots = engine_.Snapshots();
  const ReplicaSnapshot* furthest = snapshots.front().get();
  for (const auto& snapshot : snapshots) {
    if (snapshot->state > furthest->state) furthest = snapshot.get();
  }
  const Micros now = clock_.Now();
  v1::StatusResponse& out = *response;
  out.set_model(model_.facts.name);
  out.set_model_directory(ReplaceInvalidUtf8(model_.directory));
  out.set_state(ToProto(furthest->state));
  out.set_state_reason(StateReason(*furthest));
  out.set_epoch(furthest->epoch);
  out.set_tp(furthest->layout.tp);
  out.set_ep(furthest->layout.ep);
  out.set_num_ranks(furthest->layout.num_ranks());
  out.set_transport(TransportName(*furthest));
  out.set_max_context_tokens(model_.facts.max_context_tokens);
  out.set_max_step_tokens(furthest->limits.max_step_tokens);
  for (size_t replica = 0; replica < snapshots.size(); ++replica) {
    const ReplicaSnapshot& snapshot = *snapshots[replica];
    FillReplica(snapshot, *out.add_replicas());
    AddWorkers(snapshot, static_cast<int>(replica), now, out);
    AddScheduler(snapshot, *out.mutable_scheduler());
  }
  for (const AdapterInfo& adapter : engine_.Adapters()) {
    v1::AdapterStatus& to = *out.add_adapters();
    to.set_name(adapter.name);
    to.set_state(ToProto(adapter.state));
    to.set_rank(adapter.rank);
    to.set_running_sequences(adapter.num_sequences);
    to.set_content_hash(adapter.content_hash);
  }
  out.set_max_adapters(model_.max_adapters);
  out.mutable_scheduler()->set_prompt_tokens(metrics_.num_prompt_tokens());
  out.mutable_scheduler()->set_generated_tokens(
      metrics_.num_generated_tokens());
  out.set_weights_id(furthest->weights_id);
  out.set_numerics_id(ReplaceInvalidUtf8(furthest->numerics_id));
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

grpc::ServerUnaryReactor* ClusterService::LoadAdapter(
    grpc::CallbackServerContext*, const v1::LoadAdapterRequest* request,
    v1::LoadAdapterResponse*) {
  auto* const call = new LoadAdapterCall;
  const AdapterSet::DoneFn done = call->done();
  absl::Status status = CheckRequestSize(request->ByteSizeLong());
  if (status.ok() && request->name() == model_.facts.name) {
    status = FieldViolation(
        "name", fmt::format("is {}, which is the model's own name; give the "
                            "adapter's folder another",
                            request->name()));
  }
  if (status.ok()) {
    adapter_loader_.Load(request->name(), done);
  } else {
    done(status);
  }
  return call;
}

grpc::ServerUnaryReactor* ClusterService::UnloadAdapter(
    grpc::CallbackServerContext* rpc, const v1::UnloadAdapterRequest* request,
    v1::UnloadAdapterResponse*) {
  grpc::ServerUnaryReactor* const reactor = rpc->DefaultReactor();
  absl::Status status = CheckRequestSize(request->ByteSizeLong());
  if (status.ok()) status = CheckAdapterName(request->name());
  if (status.ok()) status = engine_.UnloadAdapter(request->name());
  reactor->Finish(status.ok() ? grpc::Status::OK : ToGrpcStatus(status));
  return reactor;
}

}  // namespace witan
