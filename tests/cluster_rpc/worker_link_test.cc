// A real coordinator loop and real worker services over real sockets; only the
// ranks' engines are fake.

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
#include "coordinator/cluster/replica_loop.h"
#include "net/channel.h"
#include "net/rpc_server.h"
#include "proto/rpc_status.h"
#include "proto/wire.h"
#include "tests/cluster/replica_fixture.h"
#include "worker/worker_service.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using worker::v1::FromCoordinator;
using worker::v1::FromWorker;

// A coordinator for two fake ranks.
class Coordinator {
 public:
  explicit Coordinator(int port = 0) : link_(TinyModelConfig().vocab_size) {
    loop_ = std::make_unique<ReplicaLoop>(
        FakeReplicaOptions(2), MonotonicClock(),
        [this](ReplicaOutput output) { link_.Send(std::move(output)); },
        [this](const ReplicaSnapshot& snapshot) {
          MutexLock lock(mutex_);
          serving_epoch_ =
              snapshot.state == ReplicaState::kServing ? snapshot.epoch : 0;
          changed_.NotifyAll();
        });
    link_.SetLoop(loop_.get());
    RpcServerOptions options;
    options.address.port = port;
    options.max_receive_bytes = kMaxWorkerMessageBytes;
    auto server = RpcServer::Start(options, {&link_});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  ~Coordinator() {
    loop_->Stop("the test is over");
    server_->Shutdown(0);
  }

  // Waits until a group of `epoch` or a later one serves.
  void WaitUntilServing(Epoch epoch = 1) {
    MutexLock lock(mutex_);
    while (serving_epoch_ < epoch) changed_.Wait(mutex_);
  }

  std::pair<std::shared_ptr<Stream>, std::future<void>> Submit(
      int64_t num_prompt, int64_t max_tokens) {
    auto stream = MakeStream(loop_->NewSequenceId(), num_prompt, max_tokens);
    auto sink = std::make_unique<PromisingSink>(stream);
    std::future<void> ended = sink->Ended();
    EXPECT_TRUE(loop_->Submit(stream->spec, std::move(sink)).ok());
    return {stream, std::move(ended)};
  }

  std::string address() const { return server_->address(); }
  int port() const { return server_->port(); }

 private:
  WorkerLinkService link_;
  Mutex mutex_;
  CondVar changed_;
  Epoch serving_epoch_ WITAN_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<ReplicaLoop> loop_;
  std::unique_ptr<RpcServer> server_;
};

// A worker process without its process: a service around a fake rank.
class WorkerProcess {
 public:
  explicit WorkerProcess(const std::string& coordinator,
                         FakeWorkerOptions options = FakeTinyWorker(2))
      : rank_(options),
        service_(Engine(),
                 {.coordinator = coordinator,
                  .registration = options.registration,
                  .min_reconnect_pause_ms = 10,
                  .max_reconnect_pause_ms = 50},
                 metrics_),
        thread_([this] { status_ = service_.Run(); }) {}
  ~WorkerProcess() { Stop(); }

  void Stop() {
    ReleaseSteps();
    service_.Stop();
    if (thread_.joinable()) thread_.join();
  }
  // Until Run returns by itself.
  absl::Status Join() {
    if (thread_.joinable()) thread_.join();
    return status_;
  }

  // From here on steps hang, as a collective does whose peer is gone, until
  // the group is aborted.
  void HangSteps() {
    MutexLock lock(mutex_);
    hang_ = true;
  }
  void WaitUntilHanging() {
    MutexLock lock(mutex_);
    while (!hanging_) changed_.Wait(mutex_);
  }

  // The next group's loading takes until it is told to stop.
  void HangLoading() {
    MutexLock lock(mutex_);
    hang_loading_ = true;
  }
  void WaitUntilLoading() {
    MutexLock lock(mutex_);
    while (!loading_) changed_.Wait(mutex_);
  }

 private:
  RankEngine Engine() {
    return {
        .prepare = [this](const PrepareGroup& request,
                          const std::function<void(int64_t, int64_t)>& progress,
                          const std::stop_token& stop)
            -> absl::StatusOr<GroupPrepared> {
          progress(1, 2);
          if (LoadUntilStopped(stop)) return Cancelled("stopped");
          return Answer<GroupPrepared>(request);
        },
        .connect =
            [this](const ConnectGroup& request) {
              return Answer<GroupConnected>(request).status();
            },
        .run_step = [this](const StepPlan& plan) -> absl::StatusOr<StepResult> {
          {
            MutexLock lock(mutex_);
            while (hang_) {
              hanging_ = true;
              changed_.NotifyAll();
              changed_.Wait(mutex_);
            }
            if (std::exchange(hanging_, false)) return Cancelled("aborted");
          }
          return Answer<StepResult>(plan);
        },
        .abort = [this](const std::string&) { ReleaseSteps(); }};
  }

  // False: not asked for.
  bool LoadUntilStopped(const std::stop_token& stop) {
    const std::stop_callback wake(stop, [this] {
      MutexLock lock(mutex_);
      changed_.NotifyAll();
    });
    MutexLock lock(mutex_);
    if (!std::exchange(hang_loading_, false)) return false;
    loading_ = true;
    changed_.NotifyAll();
    while (!stop.stop_requested()) changed_.Wait(mutex_);
    loading_ = false;
    return true;
  }

  void ReleaseSteps() {
    MutexLock lock(mutex_);
    hang_ = false;
    changed_.NotifyAll();
  }

  template <typename T>
  absl::StatusOr<T> Answer(const CoordinatorMessage& message) {
    for (WorkerMessage& answer : rank_.OnMessage(message)) {
      if (auto* wanted = std::get_if<T>(&answer)) return std::move(*wanted);
      if (const auto* failed = std::get_if<GroupFailed>(&answer)) {
        return failed->reason;
      }
    }
    return Internal("the fake worker said nothing");
  }

  Mutex mutex_;
  CondVar changed_;
  bool hang_ WITAN_GUARDED_BY(mutex_) = false;
  bool hanging_ WITAN_GUARDED_BY(mutex_) = false;
  bool hang_loading_ WITAN_GUARDED_BY(mutex_) = false;
  bool loading_ WITAN_GUARDED_BY(mutex_) = false;
  FakeWorker rank_;
  WorkerMetrics metrics_;
  WorkerService service_;
  absl::Status status_;
  std::thread thread_;
};

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
