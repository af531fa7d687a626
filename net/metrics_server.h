#ifndef WITAN_NET_METRICS_SERVER_H_
#define WITAN_NET_METRICS_SERVER_H_

#include <absl/status/statusor.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

#include <memory>
#include <string>

#include "net/address.h"

namespace witan {

// Serves /metrics in Prometheus' text format over HTTP.
class MetricsServer {
 public:
  // Errors as CheckCanListen.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(
      const ListenAddress& address, bool insecure_listen);

  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  // Included in every scrape while it lives.
  void Add(const std::weak_ptr<prometheus::Collectable>& collectable);
  int port() const { return port_; }
  std::string address() const { return HostPort(host_, port_); }

 private:
  MetricsServer() = default;

  std::string host_;
  int port_ = 0;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace witan

#endif  // WITAN_NET_METRICS_SERVER_H_
