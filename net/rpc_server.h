#ifndef WITAN_NET_RPC_SERVER_H_
#define WITAN_NET_RPC_SERVER_H_

#include <absl/status/statusor.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "base/limits.h"
#include "net/address.h"

namespace witan {

struct RpcServerOptions {
  ListenAddress address;
  bool insecure_listen = false;
  // Largest message that is received.
  int max_receive_bytes = 0;
  // Of messages that have arrived in part, all calls together. gRPC slows down
  // and then cancels calls that would exceed it.
  size_t max_receive_buffer_bytes = kMaxReceiveBufferBytes;
  // Names that grpc.health.v1 knows besides "".
  std::vector<std::string> health_names;
};

// A gRPC server with health checking (grpc.health.v1) and reflection. Health
// names start as NOT_SERVING, "" included. Thread-safe.
class RpcServer {
 public:
  // The services outlive the server. Errors as CheckCanListen.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const RpcServerOptions& options,
      const std::vector<grpc::Service*>& services);
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  int port() const { return port_; }
  std::string address() const { return HostPort(host_, port_); }
  // `name` is "" or one of health_names.
  void SetServing(const std::string& name, bool serving);
  // Calls in flight have until `grace_ms` to end, then they are cancelled.
  // Returns when all have; later calls do nothing.
  void Shutdown(int64_t grace_ms);

 private:
  RpcServer(std::string host, int port, std::unique_ptr<grpc::Server> server);

  const std::string host_;
  const int port_;
  const std::unique_ptr<grpc::Server> server_;
};

}  // namespace witan

#endif  // WITAN_NET_RPC_SERVER_H_
