#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/status.h"
#include "net/address.h"
#include "net/metrics_server.h"
#include "net/rpc_server.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Text(const absl::Status& status) {
  return std::string(MessageOf(status));
}

absl::StatusOr<std::unique_ptr<RpcServer>> StartRpc(int port) {
  RpcServerOptions options;
  options.address.port = port;
  options.max_receive_bytes = 1024;
  return RpcServer::Start(options, {});
}

TEST(ListenTest, LoopbackIsAllowedAndEverythingElseNeedsToBeSaid) {
  EXPECT_TRUE(CheckCanListen({.host = "127.0.0.1"}, false).ok());
  EXPECT_TRUE(CheckCanListen({.host = "127.9.9.9"}, false).ok());
  for (const char* host : {"0.0.0.0", "::"}) {
    const absl::Status status = CheckCanListen({.host = host}, false);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << host;
    EXPECT_THAT(Text(status),
                AllOf(HasSubstr(host), HasSubstr("--insecure-listen")));
  }
  EXPECT_TRUE(CheckCanListen({.host = "0.0.0.0"}, true).ok());
}

TEST(ListenTest, WhatIsNoAddressIsInvalid) {
  EXPECT_EQ(CheckCanListen({.host = "localhost"}, false).code(),
            absl::StatusCode::kInvalidArgument)
      << "a name could mean another address tomorrow";
  EXPECT_EQ(CheckCanListen({.host = ""}, true).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CheckCanListen({.host = "203.0.113.1"}, true).code(),
            absl::StatusCode::kInvalidArgument)
      << "not an address of this host";
  EXPECT_EQ(CheckCanListen({.port = 65536}, false).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CheckCanListen({.port = -1}, false).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ListenTest, APortInUseIsNamedByBothServers) {
  const auto first = StartRpc(0);
  ASSERT_TRUE(first.ok()) << first.status();
  const int port = (*first)->port();
  EXPECT_NE(port, 0);
  const auto second = StartRpc(port);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Text(second.status()),
              AllOf(HasSubstr(std::to_string(port)), HasSubstr("in use")));
  const auto metrics = MetricsServer::Start({.port = port}, false);
  EXPECT_EQ(metrics.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Text(metrics.status()), HasSubstr(std::to_string(port)));
}

TEST(ListenTest, AFreedPortCanBeTakenAgainAtOnce) {
  int port = 0;
  {
    const auto first = StartRpc(0);
    ASSERT_TRUE(first.ok());
    port = (*first)->port();
  }
  EXPECT_TRUE(StartRpc(port).ok());
}

TEST(ListenTest, BracketsKeepIpv6PortsApart) {
  EXPECT_EQ(HostPort("127.0.0.1", 80), "127.0.0.1:80");
  EXPECT_EQ(HostPort("::1", 80), "[::1]:80");
}

TEST(HostPortTest, NeedsAHostAndAPort) {
  for (const char* good : {"127.0.0.1:50051", "localhost:1", "a.b:65535",
                           "[::1]:50051", "worker-0.pods:50051"}) {
    EXPECT_EQ(CheckHostPort(good), "") << good;
  }
  for (const char* bad :
       {"", ":", "localhost", "localhost:", ":50051", "localhost:1x",
        "localhost:0", "localhost:65536", "localhost:-1", "::1", "::1:50051",
        "localhost: 1", "localhost:99999999999999999999"}) {
    EXPECT_THAT(CheckHostPort(bad), HasSubstr("is no HOST:PORT")) << bad;
  }
}

}  // namespace
}  // namespace witan
