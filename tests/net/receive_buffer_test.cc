// What large messages may cost a server.

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/limits.h"
#include "net/channel.h"
#include "net/rpc_server.h"
#include "proto/inference.grpc.pb.h"

namespace witan {
namespace {

using ::testing::AnyOf;

constexpr size_t kMiB = size_t{1} << 20;

grpc::StatusCode Tokenize(const RpcServer& server, size_t num_bytes) {
  const auto stub = v1::Inference::NewStub(
      MakeChannel(server.address(), {.max_receive_bytes = 1 << 20}));
  v1::TokenizeRequest request;
  request.set_text(std::string(num_bytes, 'x'));
  v1::TokenizeResponse response;
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  return stub->Tokenize(&context, request, &response).error_code();
}

TEST(ReceiveBufferTest, MessagesBeyondTheServersMemoryAreCancelledNotBuffered) {
  v1::Inference::Service service;  // implements nothing
  RpcServerOptions options;
  options.max_receive_bytes = kMaxWorkerMessageBytes;
  options.max_receive_buffer_bytes = 48 * kMiB;
  const auto server = RpcServer::Start(options, {&service});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(Tokenize(**server, kMiB), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(Tokenize(**server, 192 * kMiB),
              AnyOf(grpc::StatusCode::RESOURCE_EXHAUSTED,
                    grpc::StatusCode::UNAVAILABLE));
  EXPECT_EQ(Tokenize(**server, kMiB), grpc::StatusCode::UNIMPLEMENTED);
}

}  // namespace
}  // namespace witan
