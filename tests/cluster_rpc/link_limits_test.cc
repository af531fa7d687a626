// Workers at the limits of their connection to the coordinator.

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "base/limits.h"
#include "base/mutex.h"
#include "coordinator/cluster/grpc_worker_link.h"
#include "coordinator/cluster/replica_set.h"
#include "net/channel.h"
#include "net/rpc_server.h"
#include "proto/wire.h"
#include "tests/cluster/replica_fixture.h"

namespace witan {
namespace {

using ::testing::HasSubstr;
using worker::v1::FromCoordinator;

class LinkLimitsTest : public ::testing::Test {
 protected:
  LinkLimitsTest() {
    link_.SetReplicas(&replicas_);
    RpcServerOptions options;
    options.max_receive_bytes = kMaxWorkerMessageBytes;
    server_ = RpcServer::Start(options, {&link_}).value();
    stub_ = worker::v1::WorkerLink::NewStub(MakeChannel(
        server_->address(), {.max_receive_bytes = kMaxWorkerMessageBytes}));
  }
  ~LinkLimitsTest() override {
    replicas_.Stop("the test is over");
    server_->Shutdown(0);
  }

  ReplicaSnapshot WaitFor(
      const std::function<bool(const ReplicaSnapshot&)>& condition) {
    MutexLock lock(mutex_);
    while (!condition(snapshot_)) changed_.Wait(mutex_);
    return snapshot_;
  }

  Mutex mutex_;
  CondVar changed_;
  ReplicaSnapshot snapshot_ WITAN_GUARDED_BY(mutex_);
  WorkerLinkService link_{TinyModelConfig().vocab_size, MonotonicClock()};
  ReplicaSet replicas_{
      ReplicaSetOptions{.replica = FakeReplicaOptions(2)}, MonotonicClock(),
      [this](ReplicaOutput output) { link_.Send(std::move(output)); },
      [this](int, const ReplicaSnapshot& snapshot) {
        MutexLock lock(mutex_);
        snapshot_ = snapshot;
        changed_.NotifyAll();
      }};
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<worker::v1::WorkerLink::Stub> stub_;
};

TEST_F(LinkLimitsTest, AWorkerThatTakesNoMessagesIsCutOff) {
  grpc::ClientContext context;
  const auto stream = stub_->Attach(&context);
  ASSERT_TRUE(
      stream->Write(ToProto(WorkerMessage(FakeTinyWorker(2).registration))));
  const ReplicaSnapshot joined = WaitFor([](const ReplicaSnapshot& snapshot) {
    return snapshot.idle_workers.size() == 1;
  });
  // It reads nothing: this fills the connection first, and then the queue.
  const AbortGroup abort{1, std::string(kMaxReasonBytes, 'x')};
  for (size_t i = 0; i < 3 * kMaxWorkerLinkQueue; ++i) {
    link_.Send(SendMessage{{joined.idle_workers[0].id}, abort});
  }
  const ReplicaSnapshot left = WaitFor([](const ReplicaSnapshot& snapshot) {
    return snapshot.idle_workers.empty() && !snapshot.lost_workers.empty();
  });
  EXPECT_THAT(left.lost_workers[0].lost_cause,
              HasSubstr("does not take its messages"));
  FromCoordinator message;
  size_t num_read = 0;
  while (stream->Read(&message)) ++num_read;
  EXPECT_LT(num_read, 3 * kMaxWorkerLinkQueue);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

}  // namespace
}  // namespace witan
