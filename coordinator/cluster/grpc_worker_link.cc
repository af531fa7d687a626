#include "coordinator/cluster/grpc_worker_link.h"

#include <deque>
#include <optional>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "base/status.h"
#include "coordinator/cluster/replica_loop.h"
#include "proto/rpc_status.h"
#include "proto/wire.h"

namespace witan {

using worker::v1::FromCoordinator;
using worker::v1::FromWorker;

// One worker's stream. gRPC's reactions come one at a time per kind, Send and
// Close from the replica's thread; at most one write is in flight. Lives in
// links_ until OnDone, and longer while Send holds it.
class WorkerLinkService::Link
    : public grpc::ServerBidiReactor<FromWorker, FromCoordinator> {
 public:
  Link(WorkerLinkService& service, WorkerId id, std::string peer)
      : service_(service), id_(id), peer_(std::move(peer)) {}

  void Start() { StartRead(&incoming_); }

  void Send(std::shared_ptr<const FromCoordinator> message) {
    {
      MutexLock lock(mutex_);
      if (end_.has_value()) return;
      if (queue_.size() >= kMaxWorkerLinkQueue) {
        end_ = ResourceExhausted(
            "worker does not take its messages; {} are waiting", queue_.size());
        queue_.clear();
      } else {
        queue_.push_back(std::move(message));
      }
    }
    Advance();
  }

  // Ends the stream once what was sent before is out.
  void Close(absl::Status reason) {
    {
      MutexLock lock(mutex_);
      if (!end_.has_value()) end_ = std::move(reason);
    }
    Advance();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      OnGone("connection closed");
      return;
    }
    absl::StatusOr<WorkerMessage> message =
        FromProto(incoming_, service_.vocab_size_);
    absl::Status status = message.status();
    if (status.ok()) status = service_.loop_->Post(id_, *std::move(message));
    if (!status.ok()) {
      LogWarning(
          "worker cut off",
          {{"worker_id", id_}, {"peer", peer_}, {"reason", MessageOf(status)}});
      service_.loop_->PostClosed(id_, std::string(MessageOf(status)));
      posted_closed_ = true;
      Close(std::move(status));
      return;
    }
    StartRead(&incoming_);
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mutex_);
      write_in_flight_ = false;
      writing_ = nullptr;
      if (!ok && !end_.has_value()) end_ = Unavailable("connection lost");
      if (!ok) queue_.clear();
    }
    Advance();
  }

  void OnDone() override {
    if (!posted_closed_) service_.loop_->PostClosed(id_, "connection closed");
    service_.Remove(id_);  // the last reference may go here
  }

 private:
  void OnGone(const char* cause) {
    service_.loop_->PostClosed(id_, cause);
    posted_closed_ = true;
    Close(absl::OkStatus());
  }

  // Starts the next write, or finishes.
  void Advance() {
    std::optional<absl::Status> finish;
    {
      MutexLock lock(mutex_);
      if (write_in_flight_ || finished_) return;
      if (!queue_.empty()) {
        write_in_flight_ = true;
        writing_ = std::move(queue_.front());
        queue_.pop_front();
      } else if (end_.has_value()) {
        finished_ = true;
        finish = *end_;
      } else {
        return;
      }
    }
    if (finish.has_value()) {
      Finish(ToGrpcStatus(*finish));
    } else {
      StartWrite(writing_.get());
    }
  }

  WorkerLinkService& service_;
  const WorkerId id_;
  const std::string peer_;
  FromWorker incoming_;         // by the read in flight
  bool posted_closed_ = false;  // in reactions to reads, then OnDone

  Mutex mutex_;
  std::deque<std::shared_ptr<const FromCoordinator>> queue_
      WITAN_GUARDED_BY(mutex_);
  bool write_in_flight_ WITAN_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ WITAN_GUARDED_BY(mutex_);
  bool finished_ WITAN_GUARDED_BY(mutex_) = false;
  // Of the write in flight; changed only while there is none.
  std::shared_ptr<const FromCoordinator> writing_;
};

namespace {

// Ends a call that never became a link.
class RefusedLink
    : public grpc::ServerBidiReactor<FromWorker, FromCoordinator> {
 public:
  explicit RefusedLink(const absl::Status& status) {
    Finish(ToGrpcStatus(status));
  }
  void OnDone() override { delete this; }
};

}  // namespace

WorkerLinkService::WorkerLinkService(int64_t vocab_size)
    : vocab_size_(vocab_size) {}

WorkerLinkService::~WorkerLinkService() = default;

grpc::ServerBidiReactor<FromWorker, FromCoordinator>* WorkerLinkService::Attach(
    grpc::CallbackServerContext* context) {
  const WorkerId id = loop_->NewWorker();
  auto link = std::make_shared<Link>(*this, id, context->peer());
  {
    MutexLock lock(mutex_);
    if (links_.size() >= static_cast<size_t>(2 * kMaxWorkers)) {
      return new RefusedLink(ResourceExhausted(
          "{} workers are connected, more than allowed", links_.size()));
    }
    links_.emplace(id, link);
  }
  link->Start();
  return link.get();
}

void WorkerLinkService::Send(ReplicaOutput output) {
  if (auto* close = std::get_if<CloseWorker>(&output)) {
    if (const std::shared_ptr<Link> link = Find(close->worker)) {
      link->Close(std::move(close->reason));
    }
    return;
  }
  const SendMessage& send = std::get<SendMessage>(output);
  const auto message =
      std::make_shared<const FromCoordinator>(ToProto(send.message));
  for (const WorkerId id : send.workers) {
    if (const std::shared_ptr<Link> link = Find(id)) link->Send(message);
  }
}

std::shared_ptr<WorkerLinkService::Link> WorkerLinkService::Find(WorkerId id) {
  MutexLock lock(mutex_);
  const auto found = links_.find(id);
  return found == links_.end() ? nullptr : found->second;
}

void WorkerLinkService::Remove(WorkerId id) {
  std::shared_ptr<Link> link;  // destroyed outside the lock
  MutexLock lock(mutex_);
  const auto found = links_.find(id);
  if (found == links_.end()) return;
  link = std::move(found->second);
  links_.erase(found);
}

}  // namespace witan
