#ifndef WITAN_WORKER_WORKER_SERVICE_H_
#define WITAN_WORKER_WORKER_SERVICE_H_

// A worker's RPC edge: dials the coordinator, registers, and runs what it is
// told against the rank's engine, for as long as the process lives.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "base/limits.h"
#include "base/mutex.h"
#include "base/worker_protocol.h"
#include "proto/worker.grpc.pb.h"
#include "worker/worker_metrics.h"

namespace witan {

class Worker;

// The engine of one rank, as worker/worker.h describes it. All but abort are
// called by one thread; abort by any, also while another runs.
struct RankEngine {
  std::function<absl::StatusOr<GroupPrepared>(
      const PrepareGroup&, const std::function<void(int64_t, int64_t)>&,
      const std::stop_token&)>
      prepare;
  std::function<absl::Status(const ConnectGroup&)> connect;
  std::function<absl::StatusOr<StepResult>(const StepPlan&)> run_step;
  std::function<absl::StatusOr<AdapterLoaded>(const LoadAdapter&)> load_adapter;
  std::function<void(const std::string& reason)> abort;
};

// `worker` outlives the result.
RankEngine EngineOf(Worker& worker);

struct WorkerServiceOptions {
  std::string coordinator;  // HOST:PORT
  RegisterWorker registration;
  // Pause before the second attempt to connect, doubled up to the maximum.
  int64_t min_reconnect_pause_ms = kMinReconnectPauseMs;
  int64_t max_reconnect_pause_ms = kMaxReconnectPauseMs;
};

class WorkerService {
 public:
  // `metrics` outlives the service.
  WorkerService(RankEngine engine, WorkerServiceOptions options,
                WorkerMetrics& metrics);
  ~WorkerService();

  // Serves until Stop (OK) or until the coordinator refuses this worker for
  // good: FAILED_PRECONDITION with its message. A coordinator that cannot be
  // reached, or that goes away, is dialled again with growing pauses.
  absl::Status Run();

  // Makes Run return soon. Thread-safe, sticky.
  void Stop();

 private:
  class Session;

  // Waits before the next attempt; false when stopped.
  bool Pause(int64_t pause_ms);

  const RankEngine engine_;
  const WorkerServiceOptions options_;
  WorkerMetrics& metrics_;
  std::unique_ptr<worker::v1::WorkerLink::Stub> stub_;

  Mutex mutex_;
  CondVar stop_changed_;
  bool stopping_ WITAN_GUARDED_BY(mutex_) = false;
  Session* session_ WITAN_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace witan

#endif  // WITAN_WORKER_WORKER_SERVICE_H_
