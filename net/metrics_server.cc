#include "net/metrics_server.h"

#include <exception>

#include "base/status.h"

namespace witan {

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const ListenAddress& address, bool insecure_listen) {
  RETURN_IF_ERROR(CheckCanListen(address, insecure_listen));
  auto server = std::unique_ptr<MetricsServer>(new MetricsServer());
  try {
    server->exposer_ = std::make_unique<prometheus::Exposer>(
        HostPort(address.host, address.port), /*num_threads=*/1);
  } catch (const std::exception& error) {
    return ResourceExhausted("cannot serve metrics on {}: {}",
                             HostPort(address.host, address.port),
                             error.what());
  }
  server->host_ = address.host;
  server->port_ = server->exposer_->GetListeningPorts().front();
  return server;
}

void MetricsServer::Add(
    const std::weak_ptr<prometheus::Collectable>& collectable) {
  exposer_->RegisterCollectable(collectable);
}

}  // namespace witan
