#ifndef WITAN_TESTS_CLUSTER_RPC_RPC_CLUSTER_H_
#define WITAN_TESTS_CLUSTER_RPC_RPC_CLUSTER_H_

// A real coordinator and real worker services over real sockets; only the
// ranks' engines are fake.

#include <gtest/gtest.h>

#include <functional>
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
#include "net/rpc_server.h"
#include "tests/cluster/replica_fixture.h"
#include "worker/worker_service.h"

namespace witan {

// A coordinator for replicas of two fake ranks.
class Coordinator {
 public:
  explicit Coordinator(int port = 0, int num_replicas = 1)
      : link_(TinyModelConfig().vocab_size, MonotonicClock()),
        serving_epochs_(num_replicas) {
    replicas_ = std::make_unique<ReplicaSet>(
        ReplicaSetOptions{.replica = FakeReplicaOptions(2),
                          .num_replicas = num_replicas,
                          .routing = RoutingPolicy::kRoundRobin},
        MonotonicClock(),
        [this](ReplicaOutput output) { link_.Send(std::move(output)); },
        [this](int replica, const ReplicaSnapshot& snapshot) {
          link_.MoveSpare();
          MutexLock lock(mutex_);
          serving_epochs_[replica] =
              snapshot.state == ReplicaState::kServing ? snapshot.epoch : 0;
          changed_.NotifyAll();
        });
    link_.SetReplicas(replicas_.get());
    RpcServerOptions options;
    options.address.port = port;
    options.max_receive_bytes = kMaxWorkerMessageBytes;
    auto server = RpcServer::Start(options, {&link_});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  ~Coordinator() {
    replicas_->Stop("the test is over");
    server_->Shutdown(0);
  }

  // Waits until a group of `epoch` or a later one serves.
  void WaitUntilServing(Epoch epoch = 1, int replica = 0) {
    MutexLock lock(mutex_);
    while (serving_epochs_[replica] < epoch) changed_.Wait(mutex_);
  }

  using Snapshots = std::vector<std::shared_ptr<const ReplicaSnapshot>>;
  // Waits until the published snapshots fulfil `condition`.
  Snapshots WaitFor(const std::function<bool(const Snapshots&)>& condition) {
    MutexLock lock(mutex_);
    while (true) {
      Snapshots snapshots = replicas_->Snapshots();
      if (condition(snapshots)) return snapshots;
      changed_.Wait(mutex_);
    }
  }

  std::pair<std::shared_ptr<Stream>, std::future<void>> Submit(
      int64_t num_prompt, int64_t max_tokens) {
    auto stream = MakeStream(1, num_prompt, max_tokens);
    auto sink = std::make_unique<PromisingSink>(stream);
    std::future<void> ended = sink->Ended();
    EXPECT_TRUE(replicas_->Submit(stream->spec, std::move(sink)).ok());
    return {stream, std::move(ended)};
  }

  ReplicaSet& replicas() { return *replicas_; }
  std::string address() const { return server_->address(); }
  int port() const { return server_->port(); }

 private:
  WorkerLinkService link_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<Epoch> serving_epochs_ WITAN_GUARDED_BY(mutex_);
  std::unique_ptr<ReplicaSet> replicas_;
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

}  // namespace witan

#endif  // WITAN_TESTS_CLUSTER_RPC_RPC_CLUSTER_H_
