#ifndef WITAN_COORDINATOR_API_CLUSTER_SERVICE_H_
#define WITAN_COORDINATOR_API_CLUSTER_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <string>

#include "base/clock.h"
#include "base/mutex.h"
#include "coordinator/api/adapter_loader.h"
#include "coordinator/api/api_metrics.h"
#include "coordinator/api/served_model.h"
#include "coordinator/cluster/engine.h"
#include "proto/cluster.grpc.pb.h"

namespace witan {

// witan.v1.Cluster. Thread-safe.
class ClusterService final : public v1::Cluster::CallbackService {
 public:
  // The arguments outlive the service.
  ClusterService(const ServedModel& model, Engine& engine,
                 const ApiMetrics& metrics, const Clock& clock);

  // Where this process listens, known once it does.
  void SetAddresses(const std::string& grpc_address,
                    const std::string& metrics_address);

  // Once no RPC is open: nothing calls the engine after it has returned.
  void Shutdown() { adapter_loader_.Stop(); }

  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* rpc,
                                   const v1::StatusRequest* request,
                                   v1::StatusResponse* response) override;
  grpc::ServerUnaryReactor* LoadAdapter(
      grpc::CallbackServerContext* rpc, const v1::LoadAdapterRequest* request,
      v1::LoadAdapterResponse* response) override;
  grpc::ServerUnaryReactor* UnloadAdapter(
      grpc::CallbackServerContext* rpc, const v1::UnloadAdapterRequest* request,
      v1::UnloadAdapterResponse* response) override;

 private:
  const ServedModel& model_;
  Engine& engine_;
  AdapterLoader adapter_loader_;
  const ApiMetrics& metrics_;
  const Clock& clock_;
  const Micros started_at_;
  Mutex mutex_;
  std::string grpc_address_ WITAN_GUARDED_BY(mutex_);
  std::string metrics_address_ WITAN_GUARDED_BY(mutex_);
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_CLUSTER_SERVICE_H_
