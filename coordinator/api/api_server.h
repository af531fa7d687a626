#ifndef WITAN_COORDINATOR_API_API_SERVER_H_
#define WITAN_COORDINATOR_API_API_SERVER_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "coordinator/api/api_metrics.h"
#include "coordinator/api/cluster_service.h"
#include "coordinator/api/inference_service.h"
#include "coordinator/api/served_model.h"
#include "coordinator/cluster/engine.h"
#include "net/address.h"
#include "net/metrics_server.h"
#include "net/rpc_server.h"

namespace witan {

// Names of grpc.health.v1. "", "readiness" and the services serve while the
// worker group does; "startup" once it has served for the first time;
// "liveness" as long as the process runs.
constexpr char kHealthReadiness[] = "readiness";
constexpr char kHealthStartup[] = "startup";
constexpr char kHealthLiveness[] = "liveness";

struct ApiServerOptions {
  ListenAddress grpc;
  bool has_metrics = false;
  ListenAddress metrics;
  bool insecure_listen = false;
  InferenceServiceOptions inference;
};

// Everything of a coordinator that others can reach: the public services,
// health, reflection and metrics. Thread-safe.
class ApiServer {
 public:
  // `more_services` share the port. All arguments outlive the server; nothing
  // calls `engine` once Shutdown has returned.
  static absl::StatusOr<std::unique_ptr<ApiServer>> Start(
      const ApiServerOptions& options, const ServedModel& model, Engine& engine,
      const std::vector<grpc::Service*>& more_services, const Clock& clock);
  ~ApiServer();

  // To be called with every change; keeps health up to date.
  void OnState(ReplicaState state);

  // Nothing new is ready from here on. Streams have `grace_ms` to end. From one
  // thread only.
  void Shutdown(int64_t grace_ms);

  std::string grpc_address() const { return rpc_server_->address(); }
  // Empty without a metrics endpoint.
  std::string metrics_address() const;

 private:
  ApiServer(const ApiServerOptions& options, const ServedModel& model,
            Engine& engine, const Clock& clock);

  ApiMetrics metrics_;
  std::shared_ptr<ClusterMetrics> cluster_metrics_;
  InferenceService inference_;
  ClusterService cluster_;
  std::unique_ptr<MetricsServer> metrics_server_;
  std::unique_ptr<RpcServer> rpc_server_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_API_SERVER_H_
