#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "base/limits.h"
#include "base/mutex.h"
#include "base/status.h"
#include "coordinator/cluster/grpc_worker_link.h"
#include "coordinator/cluster/replica_set.h"
#include "net/channel.h"
#include "net/rpc_server.h"
#include "proto/rpc_status.h"
#include "proto/wire.h"
#include "tests/cluster/replica_fixture.h"
#include "tests/cluster_rpc/rpc_cluster.h"
#include "worker/worker_service.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using worker::v1::FromCoordinator;
using worker::v1::FromWorker;

TEST(WorkerLinkTest, AGroupFormsAndServesOverSockets) {
  Coordinator coordinator;
  WorkerProcess first(coordinator.address());
  WorkerProcess second(coordinator.address());
  coordinator.WaitUntilServing();
  std::vector<std::pair<std::shared_ptr<Stream>, std::future<void>>> streams;
  for (int i = 0; i < 12; ++i) {
    streams.push_back(coordinator.Submit(5 + 7 * i, 20 + i));
  }
  for (auto& [stream, ended] : streams) {
    ended.get();
    ASSERT_TRUE(stream->end.ok()) << stream->end.status();
    EXPECT_TRUE(stream->IsExact());
    EXPECT_EQ(static_cast<int64_t>(stream->tokens.size()),
              stream->spec.stop.max_tokens);
  }
}

TEST(WorkerLinkTest, AnotherBuildIsRefusedForGoodWithBothNames) {
  Coordinator coordinator;
  FakeWorkerOptions options = FakeTinyWorker(2);
  options.registration.build_id = "build-b";
  WorkerProcess stranger(coordinator.address(), options);
  const absl::Status status = stranger.Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(MessageOf(status)),
              AllOf(HasSubstr("build-a"), HasSubstr("build-b")));
}

TEST(WorkerLinkTest, AnotherModelIsRefusedForGood) {
  Coordinator coordinator;
  FakeWorkerOptions options = FakeTinyWorker(2);
  options.registration.model_directory = "/models/other";
  WorkerProcess stranger(coordinator.address(), options);
  const absl::Status status = stranger.Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(MessageOf(status)), HasSubstr("/models/other"));
}

TEST(WorkerLinkTest, ALostWorkerEndsStreamsAndItsSuccessorServes) {
  Coordinator coordinator;
  WorkerProcess survivor(coordinator.address());
  auto victim = std::make_unique<WorkerProcess>(coordinator.address());
  coordinator.WaitUntilServing();
  // The survivor hangs in a step, so only Abort can get it out.
  survivor.HangSteps();
  auto [stream, ended] = coordinator.Submit(10, 100);
  survivor.WaitUntilHanging();
  victim.reset();
  ended.get();
  EXPECT_EQ(stream->end.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(stream->IsExact()) << "what came before the end was right";
  WorkerProcess successor(coordinator.address());
  coordinator.WaitUntilServing(/*epoch=*/2);
  auto [again, again_ended] = coordinator.Submit(10, 30);
  again_ended.get();
  ASSERT_TRUE(again->end.ok()) << again->end.status();
  EXPECT_TRUE(again->IsExact());
}

TEST(WorkerLinkTest, LoadingStopsWhenItsGroupIsGivenUp) {
  Coordinator coordinator;
  WorkerProcess survivor(coordinator.address());
  survivor.HangLoading();
  auto victim = std::make_unique<WorkerProcess>(coordinator.address());
  survivor.WaitUntilLoading();
  victim.reset();
  WorkerProcess successor(coordinator.address());
  coordinator.WaitUntilServing(/*epoch=*/2);
}

TEST(WorkerLinkTest, LoadingStopsWhenTheCoordinatorGoesAway) {
  auto coordinator = std::make_unique<Coordinator>();
  const int port = coordinator->port();
  WorkerProcess first(coordinator->address());
  first.HangLoading();
  WorkerProcess second(coordinator->address());
  first.WaitUntilLoading();
  coordinator.reset();
  coordinator = std::make_unique<Coordinator>(port);
  coordinator->WaitUntilServing();
}

TEST(WorkerServiceTest, StopsWhileItLoads) {
  Coordinator coordinator;
  WorkerProcess first(coordinator.address());
  first.HangLoading();
  WorkerProcess second(coordinator.address());
  first.WaitUntilLoading();
  first.Stop();
  EXPECT_TRUE(first.Join().ok());
}

TEST(WorkerLinkTest, WorkersComeBackToARestartedCoordinator) {
  auto coordinator = std::make_unique<Coordinator>();
  const int port = coordinator->port();
  WorkerProcess first(coordinator->address());
  WorkerProcess second(coordinator->address());
  coordinator->WaitUntilServing();
  coordinator.reset();
  coordinator = std::make_unique<Coordinator>(port);
  coordinator->WaitUntilServing();
  auto [stream, ended] = coordinator->Submit(3, 9);
  ended.get();
  EXPECT_TRUE(stream->IsExact());
  coordinator.reset();
}

// Dials without a worker service and says `messages`; returns how it ended.
grpc::Status Say(const std::string& address,
                 const std::vector<FromWorker>& messages) {
  const auto stub = worker::v1::WorkerLink::NewStub(
      MakeChannel(address, {.max_receive_bytes = 1 << 20}));
  grpc::ClientContext context;
  const auto stream = stub->Attach(&context);
  for (const FromWorker& message : messages) stream->Write(message);
  FromCoordinator answer;
  while (stream->Read(&answer)) {
  }
  return stream->Finish();
}

TEST(WorkerLinkTest, StrangersAreCutOffAndHurtNobody) {
  Coordinator coordinator;
  WorkerProcess first(coordinator.address());
  WorkerProcess second(coordinator.address());
  coordinator.WaitUntilServing();
  auto [stream, ended] = coordinator.Submit(5, 50);
  // Nothing at all.
  EXPECT_EQ(Say(coordinator.address(), {FromWorker()}).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  // A token beyond the vocabulary.
  StepResult result{.epoch = 1, .step = 1};
  result.tokens = {{.token_id = 320, .logprob = 0, .top_logprobs = {}}};
  const grpc::Status wrong =
      Say(coordinator.address(), {ToProto(WorkerMessage(result))});
  EXPECT_EQ(wrong.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(wrong.error_message(), HasSubstr("token_id"));
  // Results without a registration.
  result.tokens[0].token_id = 1;
  EXPECT_FALSE(
      Say(coordinator.address(), {ToProto(WorkerMessage(result))}).ok());
  // Two registrations on one connection.
  const FromWorker hello =
      ToProto(WorkerMessage(FakeTinyWorker(2).registration));
  EXPECT_FALSE(Say(coordinator.address(), {hello, hello}).ok());
  ended.get();
  ASSERT_TRUE(stream->end.ok()) << stream->end.status();
  EXPECT_TRUE(stream->IsExact());
}

TEST(WorkerServiceTest, StopsWhileNobodyAnswers) {
  WorkerProcess lonely("127.0.0.1:1");
  lonely.Stop();
  EXPECT_TRUE(lonely.Join().ok());
}

TEST(WorkerServiceTest, APortOfAnotherServiceIsRefusedForGood) {
  RpcServerOptions options;
  options.max_receive_bytes = 1 << 20;
  const auto server = RpcServer::Start(options, {});
  ASSERT_TRUE(server.ok());
  WorkerProcess lost((*server)->address());
  EXPECT_EQ(lost.Join().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace witan
