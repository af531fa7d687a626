// A port that is taken between the check of the address and the server's start.

#include <gmock/gmock.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "base/status.h"
#include "net/rpc_server.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A port that nobody listens on until Listen.
class ReservedPort {
 public:
  ReservedPort() : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    const int on = 1;
    setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size),
              0);
    port_ = ntohs(address.sin_port);
  }
  ~ReservedPort() { close(fd_); }
  ReservedPort(const ReservedPort&) = delete;
  ReservedPort& operator=(const ReservedPort&) = delete;

  void Listen() const { EXPECT_EQ(listen(fd_, 1), 0); }
  int port() const { return port_; }

 private:
  const int fd_;
  int port_ = 0;
};

const ReservedPort* rival = nullptr;

// gRPC calls this when it begins to build a server.
class RivalListens final : public grpc::ServerBuilderPlugin {
 public:
  std::string name() override { return "rival"; }
  void UpdateServerBuilder(grpc::ServerBuilder*) override { rival->Listen(); }
  void InitServer(grpc::ServerInitializer*) override {}
  void Finish(grpc::ServerInitializer*) override {}
  void ChangeArguments(const std::string&, void*) override {}
};

TEST(BindRaceTest, APortThatIsTakenAfterTheCheckIsAClearError) {
  const ReservedPort reserved;
  rival = &reserved;
  grpc::ServerBuilder::InternalAddPluginFactory(
      []() -> std::unique_ptr<grpc::ServerBuilderPlugin> {
        return std::make_unique<RivalListens>();
      });
  RpcServerOptions options;
  options.address.port = reserved.port();
  options.max_receive_bytes = 1024;
  const auto server = RpcServer::Start(options, {});
  EXPECT_EQ(server.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(MessageOf(server.status())),
              AllOf(HasSubstr("cannot listen on"),
                    HasSubstr(std::to_string(reserved.port()))));
}

}  // namespace
}  // namespace witan
