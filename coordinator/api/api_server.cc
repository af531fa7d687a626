#include "coordinator/api/api_server.h"

#include <utility>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

std::vector<std::string> ReadinessNames() {
  return {"", kHealthReadiness, v1::Inference::service_full_name(),
          v1::Cluster::service_full_name()};
}

}  // namespace

ApiServer::ApiServer(const ApiServerOptions& options, const ServedModel& model,
                     Engine& engine, const Clock& clock)
    : cluster_metrics_(std::make_shared<ClusterMetrics>(engine)),
      inference_(options.inference, model, engine, metrics_, clock),
      cluster_(model, engine, metrics_, clock) {}

absl::StatusOr<std::unique_ptr<ApiServer>> ApiServer::Start(
    const ApiServerOptions& options, const ServedModel& model, Engine& engine,
    const std::vector<grpc::Service*>& more_services, const Clock& clock) {
  auto server =
      std::unique_ptr<ApiServer>(new ApiServer(options, model, engine, clock));
  if (options.has_metrics) {
    auto metrics =
        MetricsServer::Start(options.metrics, options.insecure_listen);
    if (!metrics.ok()) return Annotate(metrics.status(), "--metrics-port");
    server->metrics_server_ = *std::move(metrics);
    server->metrics_server_->Add(server->metrics_.registry());
    server->metrics_server_->Add(server->cluster_metrics_);
  }
  RpcServerOptions rpc_options;
  rpc_options.address = options.grpc;
  rpc_options.insecure_listen = options.insecure_listen;
  // The worker link shares the port; the API checks its own, smaller limits.
  rpc_options.max_receive_bytes = kMaxWorkerMessageBytes;
  rpc_options.health_names = ReadinessNames();
  rpc_options.health_names.push_back(kHealthStartup);
  rpc_options.health_names.push_back(kHealthLiveness);
  std::vector<grpc::Service*> services = {&server->inference_,
                                          &server->cluster_};
  services.insert(services.end(), more_services.begin(), more_services.end());
  auto rpc_server = RpcServer::Start(rpc_options, services);
  if (!rpc_server.ok()) return Annotate(rpc_server.status(), "--port");
  server->rpc_server_ = *std::move(rpc_server);
  server->rpc_server_->SetServing(kHealthLiveness, true);
  server->cluster_.SetAddresses(server->grpc_address(),
                                server->metrics_address());
  return server;
}

ApiServer::~ApiServer() { Shutdown(0); }

void ApiServer::OnState(ReplicaState state) {
  const bool serving = state == ReplicaState::kServing;
  for (const std::string& name : ReadinessNames()) {
    rpc_server_->SetServing(name, serving);
  }
  if (serving) rpc_server_->SetServing(kHealthStartup, true);
}

void ApiServer::Shutdown(int64_t grace_ms) {
  if (rpc_server_ == nullptr) return;
  for (const std::string& name : ReadinessNames()) {
    rpc_server_->SetServing(name, false);
  }
  rpc_server_->Shutdown(grace_ms);
  inference_.Shutdown();
  cluster_.Shutdown();
}

std::string ApiServer::metrics_address() const {
  return metrics_server_ == nullptr ? "" : metrics_server_->address();
}

}  // namespace witan
