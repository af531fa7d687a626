#include "worker/worker_service.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>
#include <variant>

#include "base/limits.h"
#include "base/log.h"
#include "base/status.h"
#include "net/channel.h"
#include "proto/rpc_status.h"
#include "proto/wire.h"
#include "worker/worker.h"

namespace witan {

using worker::v1::FromCoordinator;
using worker::v1::FromWorker;

// One stream to the coordinator, from RegisterWorker to its end. Three threads:
// the caller's reads and reacts to AbortGroup at once, one runs the engine, one
// sends heartbeats.
class WorkerService::Session {
 public:
  Session(const RankEngine& engine, WorkerMetrics& metrics,
          worker::v1::WorkerLink::Stub& stub)
      : engine_(engine), metrics_(metrics) {
    // Otherwise Attach waits for a connection, beyond the reach of Cancel.
    context_.set_initial_metadata_corked(true);
    stream_ = stub.Attach(&context_);
  }

  // Returns why the stream ended.
  absl::Status Run(const RegisterWorker& registration) {
    Send(registration);
    std::thread engine_thread([this] { RunEngine(); });
    std::thread heartbeat_thread([this] { SendHeartbeats(); });
    const absl::Status read_status = ReadMessages();
    // While the stream lives, the threads below may wait in a write until the
    // coordinator reads.
    if (!read_status.ok()) context_.TryCancel();
    {
      MutexLock lock(mutex_);
      ended_ = true;
      queue_.clear();
      dead_epoch_ = newest_epoch_;
      stop_.request_stop();
    }
    changed_.NotifyAll();
    engine_.abort("the connection to the coordinator ended");
    engine_thread.join();
    heartbeat_thread.join();
    metrics_.OnConnected(false);
    const grpc::Status end = stream_->Finish();
    return read_status.ok() ? FromGrpcStatus(end) : read_status;
  }

  // Thread-safe.
  void Cancel() { context_.TryCancel(); }

  // Valid after Run: whether the coordinator took this worker.
  bool accepted() const { return accepted_; }

 private:
  using EngineMessage =
      std::variant<PrepareGroup, ConnectGroup, StepPlan, LoadAdapter>;

  // --- The reading thread
  // ------------------------------------------------------

  absl::Status ReadMessages() {
    FromCoordinator message;
    while (stream_->Read(&message)) {
      ASSIGN_OR_RETURN(CoordinatorMessage parsed, FromProto(message));
      RETURN_IF_ERROR(std::visit(
          [this](auto&& m) { return Receive(std::forward<decltype(m)>(m)); },
          std::move(parsed)));
    }
    return absl::OkStatus();
  }

  absl::Status Receive(WorkerAccepted message) {
    accepted_ = true;
    metrics_.OnConnected(true);
    LogInfo("registered with the coordinator",
            {{"worker_id", message.worker_id}});
    return absl::OkStatus();
  }

  absl::Status Receive(PrepareGroup message) {
    const Epoch epoch = message.epoch;
    // Ends an older group that still runs.
    KillEpochsBefore(epoch, "a newer group begins");
    metrics_.OnEpoch(epoch);
    LogInfo("joining a group", {{"epoch", epoch},
                                {"rank", message.rank},
                                {"tp", message.tp},
                                {"ep", message.ep}});
    return Enqueue(std::move(message), epoch);
  }

  absl::Status Receive(ConnectGroup message) {
    const Epoch epoch = message.epoch;
    return Enqueue(std::move(message), epoch);
  }

  absl::Status Receive(StepPlan message) {
    const Epoch epoch = message.epoch;
    return Enqueue(std::move(message), epoch);
  }

  absl::Status Receive(LoadAdapter message) {
    const Epoch epoch = message.epoch;
    return Enqueue(std::move(message), epoch);
  }

  absl::Status Receive(AbortGroup message) {
    LogWarning("the group was given up",
               {{"epoch", message.epoch}, {"reason", message.reason}});
    KillEpochsBefore(message.epoch + 1, message.reason);
    return absl::OkStatus();
  }

  // From here on nothing of an epoch below `epoch` is run or reported.
  void KillEpochsBefore(Epoch epoch, const std::string& reason) {
    {
      MutexLock lock(mutex_);
      if (epoch <= dead_epoch_ + 1) return;
      dead_epoch_ = epoch - 1;
      // What runs is of a dead epoch: a newer one has not been received.
      stop_.request_stop();
    }
    engine_.abort(reason);
  }

  absl::Status Enqueue(EngineMessage message, Epoch epoch) {
    {
      MutexLock lock(mutex_);
      if (epoch <= dead_epoch_) return absl::OkStatus();
      newest_epoch_ = std::max(newest_epoch_, epoch);
      if (queue_.size() >= kMaxWorkerPlanQueue) {
        return ResourceExhausted(
            "the coordinator sent {} messages ahead of the engine",
            queue_.size());
      }
      queue_.push_back({epoch, std::move(message)});
    }
    changed_.NotifyAll();
    return absl::OkStatus();
  }

  // --- The engine's thread
  // -----------------------------------------------------

  struct QueuedMessage {
    Epoch epoch = 0;
    EngineMessage message;
  };

  void RunEngine() {
    while (true) {
      std::optional<QueuedMessage> next;
      std::stop_token stop;
      {
        MutexLock lock(mutex_);
        while (queue_.empty() && !ended_) changed_.Wait(mutex_);
        if (ended_) return;
        next = std::move(queue_.front());
        queue_.pop_front();
        if (next->epoch <= dead_epoch_) continue;
        stop_ = std::stop_source();
        stop = stop_.get_token();
      }
      const absl::Status status = std::visit(
          [&](const auto& m) { return Execute(m, stop); }, next->message);
      if (!status.ok()) ReportFailure(next->epoch, status);
    }
  }

  // An abort reaches an engine that is at work; `stop` also the one that is
  // about to begin.
  absl::Status Execute(const PrepareGroup& request,
                       const std::stop_token& stop) {
    int64_t reported_percent = -1;
    const auto progress = [&](int64_t done, int64_t total) {
      metrics_.OnLoadProgress(done, total);
      const int64_t percent = total > 0 ? done * 100 / total : 100;
      if (percent == reported_percent) return;
      reported_percent = percent;
      Send(LoadProgress{.epoch = request.epoch,
                        .bytes_done = std::min(done, total),
                        .bytes_total = total});
    };
    ASSIGN_OR_RETURN(GroupPrepared prepared,
                     engine_.prepare(request, progress, stop));
    Send(std::move(prepared));
    return absl::OkStatus();
  }

  absl::Status Execute(const ConnectGroup& request, const std::stop_token&) {
    RETURN_IF_ERROR(engine_.connect(request));
    Send(GroupConnected{.epoch = request.epoch});
    return absl::OkStatus();
  }

  absl::Status Execute(const StepPlan& plan, const std::stop_token&) {
    ASSIGN_OR_RETURN(StepResult result, engine_.run_step(plan));
    metrics_.OnStep(result.timings);
    Send(std::move(result));
    return absl::OkStatus();
  }

  absl::Status Execute(const LoadAdapter& request, const std::stop_token&) {
    ASSIGN_OR_RETURN(AdapterLoaded answer, engine_.load_adapter(request));
    if (answer.status.ok()) {
      LogInfo("holding an adapter",
              {{"index", request.index}, {"directory", request.directory}});
    } else {
      LogWarning("an adapter was not loaded",
                 {{"index", request.index},
                  {"reason", std::string(MessageOf(answer.status))}});
    }
    Send(std::move(answer));
    return absl::OkStatus();
  }

  // The group is dead; silent if that is known already.
  void ReportFailure(Epoch epoch, const absl::Status& reason) {
    {
      MutexLock lock(mutex_);
      if (epoch <= dead_epoch_) return;
      dead_epoch_ = epoch;
    }
    LogError("the group failed on this rank",
             {{"epoch", epoch}, {"reason", reason.ToString()}});
    engine_.abort(std::string(MessageOf(reason)));
    Send(GroupFailed{.epoch = epoch, .reason = reason});
  }

  // --- Sending
  // -----------------------------------------------------------------

  void SendHeartbeats() {
    while (true) {
      const auto next = std::chrono::steady_clock::now() +
                        std::chrono::milliseconds(kHeartbeatIntervalMs);
      {
        MutexLock lock(mutex_);
        while (!ended_ && changed_.WaitUntil(mutex_, next)) {
        }
        if (ended_) return;
      }
      Send(Heartbeat{});
    }
  }

  // Any thread. A stream that is broken is noticed by the reader.
  void Send(WorkerMessage message) {
    const FromWorker proto = ToProto(message);
    MutexLock lock(write_mutex_);
    stream_->Write(proto);
  }

  const RankEngine& engine_;
  WorkerMetrics& metrics_;
  grpc::ClientContext context_;
  bool accepted_ = false;  // the reading thread's

  Mutex write_mutex_;
  std::unique_ptr<grpc::ClientReaderWriter<FromWorker, FromCoordinator>>
      stream_;  // writes are guarded by write_mutex_

  Mutex mutex_;
  CondVar changed_;
  std::deque<QueuedMessage> queue_ WITAN_GUARDED_BY(mutex_);
  Epoch newest_epoch_ WITAN_GUARDED_BY(mutex_) = 0;
  Epoch dead_epoch_ WITAN_GUARDED_BY(mutex_) = 0;  // and all before it
  bool ended_ WITAN_GUARDED_BY(mutex_) = false;
  // Of the message that the engine works on.
  std::stop_source stop_ WITAN_GUARDED_BY(mutex_);
};

RankEngine EngineOf(Worker& worker) {
  return {
      .prepare =
          [&worker](const PrepareGroup& request,
                    const std::function<void(int64_t, int64_t)>& progress,
                    const std::stop_token& stop) {
            return worker.Prepare(request, progress, stop);
          },
      .connect = [&worker](const ConnectGroup& m) { return worker.Connect(m); },
      .run_step =
          [&worker](const StepPlan& plan) { return worker.RunStep(plan); },
      .load_adapter =
          [&worker](const LoadAdapter& m) { return worker.Load(m); },
      .abort = [&worker](const std::string& reason) { worker.Abort(reason); }};
}

WorkerService::WorkerService(RankEngine engine, WorkerServiceOptions options,
                             WorkerMetrics& metrics)
    : engine_(std::move(engine)),
      options_(std::move(options)),
      metrics_(metrics),
      stub_(worker::v1::WorkerLink::NewStub(MakeChannel(
          options_.coordinator,
          {.max_receive_bytes = kMaxWorkerMessageBytes,
           .max_reconnect_pause_ms = options_.max_reconnect_pause_ms}))) {}

WorkerService::~WorkerService() = default;

absl::Status WorkerService::Run() {
  int64_t pause_ms = options_.min_reconnect_pause_ms;
  while (true) {
    Session session(engine_, metrics_, *stub_);
    {
      MutexLock lock(mutex_);
      if (stopping_) session.Cancel();
      session_ = &session;
    }
    const absl::Status status = session.Run(options_.registration);
    {
      MutexLock lock(mutex_);
      session_ = nullptr;
      if (stopping_) return absl::OkStatus();
    }
    if (!session.accepted() &&
        (status.code() == absl::StatusCode::kInvalidArgument ||
         status.code() == absl::StatusCode::kFailedPrecondition ||
         status.code() == absl::StatusCode::kUnimplemented)) {
      return FailedPrecondition("the coordinator at {} refused this worker: {}",
                                options_.coordinator, MessageOf(status));
    }
    if (session.accepted()) pause_ms = options_.min_reconnect_pause_ms;
    LogWarning("no connection to the coordinator; trying again",
               {{"coordinator", options_.coordinator},
                {"reason", status.ok() ? std::string("connection closed")
                                       : status.ToString()},
                {"pause_ms", pause_ms}});
    if (!Pause(pause_ms)) return absl::OkStatus();
    pause_ms = std::min(pause_ms * 2, options_.max_reconnect_pause_ms);
  }
}

bool WorkerService::Pause(int64_t pause_ms) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(pause_ms);
  MutexLock lock(mutex_);
  while (!stopping_ && stop_changed_.WaitUntil(mutex_, end)) {
  }
  return !stopping_;
}

void WorkerService::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    if (session_ != nullptr) session_->Cancel();
  }
  stop_changed_.NotifyAll();
}

}  // namespace witan
