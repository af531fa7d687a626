#include "net/rpc_server.h"

#include <google/protobuf/stubs/logging.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <mutex>
#include <utility>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

// All are global and have to be said before the first server.
void SetGlobals() {
  static std::once_flag once;
  std::call_once(once, [] {
    // Else any client could write to our terminal, with text that is not UTF-8.
    google::protobuf::SetLogHandler(nullptr);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(
    const RpcServerOptions& options,
    const std::vector<grpc::Service*>& services) {
  RETURN_IF_ERROR(CheckCanListen(options.address, options.insecure_listen));
  SetGlobals();
  grpc::ServerBuilder builder;
  // Without this two servers would share a port, each with half the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                             static_cast<int>(kKeepaliveTimeMs));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             static_cast<int>(kKeepaliveTimeoutMs));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // Clients may ping twice as often as our own do.
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      static_cast<int>(kKeepaliveTimeMs / 2));
  builder.SetMaxReceiveMessageSize(options.max_receive_bytes);
  builder.SetResourceQuota(
      grpc::ResourceQuota().Resize(options.max_receive_buffer_bytes));
  builder.SetMaxSendMessageSize(kMaxWorkerMessageBytes);
  int port = 0;
  builder.AddListeningPort(HostPort(options.address.host, options.address.port),
                           grpc::InsecureServerCredentials(), &port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::unique_ptr<grpc::Server> started = builder.BuildAndStart();
  // The port may have been taken since it was checked.
  if (started == nullptr || port == 0) {
    return ResourceExhausted(
        "cannot listen on {}; choose another port, or 0 for any free one",
        HostPort(options.address.host, options.address.port));
  }
  std::unique_ptr<RpcServer> server(
      new RpcServer(options.address.host, port, std::move(started)));
  server->SetServing("", false);
  for (const std::string& name : options.health_names) {
    server->SetServing(name, false);
  }
  return server;
}

RpcServer::RpcServer(std::string host, int port,
                     std::unique_ptr<grpc::Server> server)
    : host_(std::move(host)), port_(port), server_(std::move(server)) {}

RpcServer::~RpcServer() { Shutdown(0); }

void RpcServer::SetServing(const std::string& name, bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(name, serving);
}

void RpcServer::Shutdown(int64_t grace_ms) {
  server_->Shutdown(std::chrono::system_clock::now() +
                    std::chrono::milliseconds(grace_ms));
}

}  // namespace witan
