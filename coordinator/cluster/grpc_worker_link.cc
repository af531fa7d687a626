#include "coordinator/cluster/grpc_worker_link.h"

#include <atomic>
#include <deque>
#include <optional>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "base/status.h"
#include "coordinator/cluster/replica_set.h"
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
  Link(WorkerLinkService& service, WorkerId id,
       grpc::CallbackServerContext& context)
      : service_(service), id_(id), context_(context), peer_(context.peer()) {}

  void Start() { StartRead(&incoming_); }

  void Send(std::shared_ptr<const FromCoordinator> message) {
    absl::Status overflow;
    {
      MutexLock lock(mutex_);
      if (end_.has_value()) return;
      if (queue_.size() < kMaxWorkerLinkQueue) {
        queue_.push_back(std::move(message));
      } else {
        overflow = ResourceExhausted(
            "the worker does not take its messages; {} are waiting",
            queue_.size());
        end_ = overflow;
        queue_.clear();
        cancelling_ = true;
      }
    }
    if (!overflow.ok()) Cancel(overflow);
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
      PostClosed("connection closed");
      Close(absl::OkStatus());
      return;
    }
    absl::StatusOr<WorkerMessage> message =
        FromProto(incoming_, service_.vocab_size_);
    absl::Status status = message.status();
    if (status.ok()) status = Post(*std::move(message));
    if (!status.ok()) {
      CutOff(status);
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
    PostClosed("connection closed");
    service_.Remove(id_);  // the last reference may go here
  }

 private:
  ReplicaLoop& loop() const {
    const WorkerId id = id_;
    return service_.replicas_->loop(service_.replicas_->ReplicaOf(id));
  }

  absl::Status Post(WorkerMessage message) {
    if (const auto* hello = std::get_if<RegisterWorker>(&message);
        hello != nullptr && !placed_) {
      placed_ = true;
      id_ = service_.Place(id_, hello->host_id);
    }
    return loop().Post(id_, std::move(message));
  }

  void CutOff(const absl::Status& reason) {
    LogWarning("worker cut off", {{"worker_id", id_.load()},
                                  {"peer", peer_},
                                  {"reason", MessageOf(reason)}});
    PostClosed(std::string(MessageOf(reason)));
  }

  // The write in flight ends in no other way. gRPC may react on this thread, so
  // no lock is held.
  void Cancel(const absl::Status& reason) {
    CutOff(reason);
    context_.TryCancel();
    MutexLock lock(mutex_);
    cancelling_ = false;
  }

  // The first cause counts.
  void PostClosed(const std::string& cause) {
    {
      MutexLock lock(mutex_);
      if (posted_closed_) return;
      posted_closed_ = true;
    }
    loop().PostClosed(id_, cause);
  }

  // Starts the next write, or finishes.
  void Advance() {
    std::optional<absl::Status> finish;
    {
      MutexLock lock(mutex_);
      if (write_in_flight_ || cancelling_ || finished_) return;
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
  // Another one once the worker has a replica.
  std::atomic<WorkerId> id_;
  bool placed_ = false;                   // the reads'
  grpc::CallbackServerContext& context_;  // until finished_
  const std::string peer_;
  FromWorker incoming_;  // by the read in flight

  Mutex mutex_;
  std::deque<std::shared_ptr<const FromCoordinator>> queue_
      WITAN_GUARDED_BY(mutex_);
  bool write_in_flight_ WITAN_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ WITAN_GUARDED_BY(mutex_);
  // The call may not be finished meanwhile, or gRPC would let go of it.
  bool cancelling_ WITAN_GUARDED_BY(mutex_) = false;
  bool finished_ WITAN_GUARDED_BY(mutex_) = false;
  bool posted_closed_ WITAN_GUARDED_BY(mutex_) = false;
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

WorkerLinkService::WorkerLinkService(int64_t vocab_size, const Clock& clock)
    : vocab_size_(vocab_size), clock_(clock) {}

WorkerLinkService::~WorkerLinkService() = default;

grpc::ServerBidiReactor<FromWorker, FromCoordinator>* WorkerLinkService::Attach(
    grpc::CallbackServerContext* context) {
  std::shared_ptr<Link> link;
  {
    MutexLock lock(mutex_);
    if (links_.size() >= kMaxWorkerLinks) {
      return new RefusedLink(ResourceExhausted(
          "{} workers are connected, as many as allowed", links_.size()));
    }
    const WorkerId id = replicas_->loop(0).NewWorker();
    link = std::make_shared<Link>(*this, id, *context);
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
  {
    MutexLock lock(mutex_);
    const auto found = links_.find(id);
    if (found == links_.end()) return;
    link = std::move(found->second);
    links_.erase(found);
    hosts_.erase(id);
  }
  MoveSpare();
}

void WorkerLinkService::MoveSpare() {
  MutexLock lock(mutex_);
  const std::optional<SpareMove> move =
      moves_.Next(Workers(), replicas_->num_ranks(), clock_.Now());
  if (move) replicas_->loop(move->from).ReleaseSpare();
}

WorkerId WorkerLinkService::Place(WorkerId id, const std::string& host_id) {
  MutexLock lock(mutex_);
  const int replica = PlaceWorker(Workers(), replicas_->num_ranks(), host_id);
  const int old_replica = replicas_->ReplicaOf(id);
  WorkerId new_id = id;
  if (replica != old_replica) {
    new_id = replicas_->loop(replica).NewWorker();
    auto link = links_.extract(id);
    link.key() = new_id;
    links_.insert(std::move(link));
    replicas_->loop(old_replica).PostClosed(id, "joined another replica");
  }
  hosts_.emplace(new_id, host_id);
  moves_.OnPlaced(replica);
  return new_id;
}

std::vector<ReplicaWorkers> WorkerLinkService::Workers() const {
  std::vector<ReplicaWorkers> workers(replicas_->num_replicas());
  for (const auto& [id, host] : hosts_) {
    ++workers[replicas_->ReplicaOf(id)].num_by_host[host];
  }
  return workers;
}

}  // namespace witan
