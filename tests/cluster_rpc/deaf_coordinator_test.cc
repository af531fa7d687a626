// A worker service whose coordinator does not read what it is told: writes
// wait for it, and must not keep the worker from giving the connection up.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>

#include "base/limits.h"
#include "base/mutex.h"
#include "base/status.h"
#include "net/rpc_server.h"
#include "proto/rpc_status.h"
#include "proto/wire.h"
#include "worker/worker_service.h"

namespace witan {
namespace {

using worker::v1::FromCoordinator;
using worker::v1::FromWorker;
using Stream = grpc::ServerReaderWriter<FromCoordinator, FromWorker>;

// Reads the registration of its first caller, then nothing more; says
// `messages` once the caller's engine is at work. Refuses the second caller.
class DeafCoordinator final : public worker::v1::WorkerLink::Service {
 public:
  explicit DeafCoordinator(std::vector<FromCoordinator> messages)
      : messages_(std::move(messages)) {}

  grpc::Status Attach(grpc::ServerContext*, Stream* stream) override {
    {
      MutexLock lock(mutex_);
      ++num_calls_;
      changed_.NotifyAll();
      if (num_calls_ > 1) {
        return ToGrpcStatus(FailedPrecondition("once is enough"));
      }
    }
    FromWorker registration;
    EXPECT_TRUE(stream->Read(&registration));
    stream->Write(ToProto(CoordinatorMessage(WorkerAccepted{.worker_id = 1})));
    PrepareGroup prepare{.epoch = 1, .max_context_tokens = 1};
    prepare.max_step_tokens = prepare.max_sequences = 1;
    prepare.num_blocks = 2;
    stream->Write(ToProto(CoordinatorMessage(prepare)));
    MutexLock lock(mutex_);
    while (!engine_has_answered_) changed_.Wait(mutex_);
    for (const FromCoordinator& message : messages_) stream->Write(message);
    while (num_calls_ == 1) changed_.Wait(mutex_);
    return grpc::Status::OK;
  }

  void OnEngineAnswered() {
    MutexLock lock(mutex_);
    engine_has_answered_ = true;
    changed_.NotifyAll();
  }

 private:
  const std::vector<FromCoordinator> messages_;
  Mutex mutex_;
  CondVar changed_;
  bool engine_has_answered_ WITAN_GUARDED_BY(mutex_) = false;
  int num_calls_ WITAN_GUARDED_BY(mutex_) = 0;
};

// Far more than a connection takes that nobody reads.
GroupPrepared ALongAnswer() {
  GroupPrepared prepared{.epoch = 1};
  for (int i = 0; i < 40'000; ++i) {
    prepared.piece_hashes.emplace(std::to_string(i), std::string(1000, 'a'));
  }
  return prepared;
}

// The second connection shows that the first one ended.
void ExpectComesBackAfter(std::vector<FromCoordinator> messages) {
  DeafCoordinator coordinator(std::move(messages));
  RpcServerOptions options;
  options.max_receive_bytes = kMaxWorkerMessageBytes;
  const auto server = RpcServer::Start(options, {&coordinator});
  ASSERT_TRUE(server.ok()) << server.status();
  const RankEngine engine = {
      .prepare = [&](const PrepareGroup&,
                     const std::function<void(int64_t, int64_t)>&,
                     const std::stop_token&) -> absl::StatusOr<GroupPrepared> {
        coordinator.OnEngineAnswered();
        return ALongAnswer();
      },
      .connect = [](const ConnectGroup&) { return absl::OkStatus(); },
      .run_step = [](const StepPlan&) -> absl::StatusOr<StepResult> {
        return StepResult();
      },
      .abort = [](const std::string&) {}};
  WorkerMetrics metrics;
  WorkerService service(engine,
                        {.coordinator = (*server)->address(),
                         .registration = {.build_id = "b"},
                         .min_reconnect_pause_ms = 1},
                        metrics);
  EXPECT_EQ(service.Run().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(DeafCoordinatorTest, ADamagedMessageEndsTheConnectionAllTheSame) {
  ExpectComesBackAfter({FromCoordinator()});
}

TEST(DeafCoordinatorTest, TooManyMessagesEndTheConnectionAllTheSame) {
  ExpectComesBackAfter(std::vector<FromCoordinator>(
      kMaxWorkerPlanQueue + 2, ToProto(CoordinatorMessage(ConnectGroup{
                                   .epoch = 1, .endpoints = {{}}}))));
}

}  // namespace
}  // namespace witan
