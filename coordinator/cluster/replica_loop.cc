#include "coordinator/cluster/replica_loop.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "base/limits.h"
#include "base/status.h"

namespace witan {

ReplicaLoop::ReplicaLoop(ReplicaOptions options, const Clock& clock,
                         SendFn send, SnapshotFn on_snapshot, IdSpace ids)
    : clock_(clock),
      send_(std::move(send)),
      on_snapshot_(std::move(on_snapshot)),
      id_step_(ids.step),
      next_worker_(ids.first),
      next_sequence_(ids.first),
      replica_(std::move(options)),
      published_at_(clock.Now()),
      snapshot_(std::make_shared<const ReplicaSnapshot>(replica_.Snapshot())),
      thread_([this] { Run(); }) {}

ReplicaLoop::~ReplicaLoop() { Stop("the coordinator is shutting down"); }

WorkerId ReplicaLoop::NewWorker() {
  const WorkerId worker = next_worker_.fetch_add(id_step_);
  PostAlways(ConnectedInput{worker});
  return worker;
}

SequenceId ReplicaLoop::NewSequenceId() {
  return next_sequence_.fetch_add(id_step_);
}

absl::Status ReplicaLoop::PostBounded(Input input) {
  MutexLock lock(mutex_);
  if (stopping_) return Unavailable("{}", stop_reason_);
  if (inbox_.size() >= kMaxReplicaInbox) {
    return ResourceExhausted(
        "{} inputs wait for the scheduler already, the most there may be",
        inbox_.size());
  }
  inbox_.push_back(std::move(input));
  inputs_or_stop_.NotifyOne();
  return absl::OkStatus();
}

absl::Status ReplicaLoop::Post(WorkerId worker, WorkerMessage message) {
  return PostBounded(MessageInput{worker, std::move(message)});
}

absl::Status ReplicaLoop::Submit(SequenceSpec spec,
                                 std::unique_ptr<TokenSink> sink) {
  return PostBounded(SubmitInput{std::move(spec), std::move(sink)});
}

// For what has to get through, and is bounded by the number of workers and of
// sequences.
void ReplicaLoop::PostAlways(Input input) {
  MutexLock lock(mutex_);
  if (stopping_) return;
  inbox_.push_back(std::move(input));
  inputs_or_stop_.NotifyOne();
}

void ReplicaLoop::PostClosed(WorkerId worker, const std::string& cause) {
  PostAlways(ClosedInput{worker, cause});
}

void ReplicaLoop::ReleaseSpare() { PostAlways(ReleaseSpareInput{}); }

void ReplicaLoop::SetAdapter(AdapterPlacement adapter) {
  PostAlways(AdapterInput{std::move(adapter)});
}

void ReplicaLoop::Cancel(SequenceId id) { PostAlways(CancelInput{id}); }

void ReplicaLoop::Pause(SequenceId id) { PostAlways(PauseInput{id, true}); }

void ReplicaLoop::Resume(SequenceId id) { PostAlways(PauseInput{id, false}); }

std::shared_ptr<const ReplicaSnapshot> ReplicaLoop::Snapshot() const {
  MutexLock lock(mutex_);
  return snapshot_;
}

void ReplicaLoop::Stop(const std::string& reason) {
  {
    MutexLock lock(mutex_);
    if (!stopping_) stop_reason_ = reason;
    stopping_ = true;
    inputs_or_stop_.NotifyOne();
  }
  MutexLock lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

void ReplicaLoop::Run() {
  std::vector<Input> inputs;
  Micros wakeup = 0;
  while (WaitForInputs(wakeup, inputs)) {
    const Micros now = clock_.Now();
    for (Input& input : inputs) Take(std::move(input), now);
    inputs.clear();
    replica_.Tick(now);
    SendOutputs();
    PublishIfDue(now);
    wakeup = replica_.NextWakeup();
    if (unpublished_) {
      wakeup = std::min(wakeup,
                        published_at_ + kSnapshotIntervalMs * kMicrosPerMilli);
    }
  }
  // Inputs that were accepted are answered before everything ends.
  const Micros now = clock_.Now();
  for (Input& input : inputs) Take(std::move(input), now);
  std::string reason;
  {
    MutexLock lock(mutex_);
    reason = stop_reason_;
  }
  replica_.Shutdown(reason, now);
  SendOutputs();
  PublishIfDue(now);
}

bool ReplicaLoop::WaitForInputs(Micros wakeup, std::vector<Input>& inputs) {
  MutexLock lock(mutex_);
  while (inbox_.empty() && !stopping_) {
    if (wakeup == std::numeric_limits<Micros>::max()) {
      inputs_or_stop_.Wait(mutex_);
      continue;
    }
    const Micros pause = wakeup - clock_.Now();
    if (pause <= 0) break;
    inputs_or_stop_.WaitUntil(mutex_, std::chrono::steady_clock::now() +
                                          std::chrono::microseconds(pause));
  }
  std::swap(inputs, inbox_);
  return !stopping_;
}

void ReplicaLoop::Take(Input input, Micros now) {
  if (const auto* connected = std::get_if<ConnectedInput>(&input)) {
    replica_.OnConnected(connected->worker, now);
  } else if (auto* message = std::get_if<MessageInput>(&input)) {
    replica_.OnMessage(message->worker, std::move(message->message), now);
  } else if (auto* closed = std::get_if<ClosedInput>(&input)) {
    replica_.OnClosed(closed->worker, closed->cause, now);
  } else if (auto* submit = std::get_if<SubmitInput>(&input)) {
    replica_.Submit(std::move(submit->spec), std::move(submit->sink), now);
  } else if (const auto* cancel = std::get_if<CancelInput>(&input)) {
    replica_.Cancel(cancel->id, now);
  } else if (const auto* pause = std::get_if<PauseInput>(&input)) {
    if (pause->paused) {
      replica_.Pause(pause->id);
    } else {
      replica_.Resume(pause->id);
    }
  } else if (auto* adapter = std::get_if<AdapterInput>(&input)) {
    replica_.SetAdapter(std::move(adapter->adapter));
  } else {
    replica_.ReleaseSpare(now);
  }
  unpublished_ = true;
}

void ReplicaLoop::SendOutputs() {
  for (ReplicaOutput& output : replica_.TakeOutputs()) {
    unpublished_ = true;
    send_(std::move(output));
  }
}

void ReplicaLoop::PublishIfDue(Micros now) {
  const bool changed = replica_.state() != published_state_ ||
                       replica_.epoch() != published_epoch_;
  const bool due = unpublished_ &&
                   now - published_at_ >= kSnapshotIntervalMs * kMicrosPerMilli;
  if (!changed && !due) return;
  auto snapshot = std::make_shared<const ReplicaSnapshot>(replica_.Snapshot());
  unpublished_ = false;
  published_at_ = now;
  published_state_ = snapshot->state;
  published_epoch_ = snapshot->epoch;
  {
    MutexLock lock(mutex_);
    snapshot_ = snapshot;
  }
  if (on_snapshot_) on_snapshot_(*snapshot);
}

}  // namespace witan
