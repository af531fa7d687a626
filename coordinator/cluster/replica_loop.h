#ifndef WITAN_COORDINATOR_CLUSTER_REPLICA_LOOP_H_
#define WITAN_COORDINATOR_CLUSTER_REPLICA_LOOP_H_

// The thread of one Replica: an inbox that edges post to, a real clock, and a
// function through which messages leave. Knows nothing of gRPC.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/worker_protocol.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/replica.h"
#include "coordinator/cluster/token_sink.h"
#include "coordinator/schedule/sequence.h"

namespace witan {

// Ids are first, first + step, first + 2 step ..., so that several loops give
// different ones.
struct IdSpace {
  uint64_t first = 1;
  uint64_t step = 1;
};

// All public functions are thread-safe and never wait for the loop's thread
// (Stop and the destructor do).
class ReplicaLoop {
 public:
  // Called on the loop's thread, outside any lock; must not block. May Post.
  using SendFn = std::function<void(ReplicaOutput output)>;
  // Likewise, with every published snapshot.
  using SnapshotFn = std::function<void(const ReplicaSnapshot& snapshot)>;

  // Starts the thread. `clock` outlives the loop and runs like the monotonic
  // clock; `on_snapshot` may be empty.
  ReplicaLoop(ReplicaOptions options, const Clock& clock, SendFn send,
              SnapshotFn on_snapshot = nullptr, IdSpace ids = {});
  ~ReplicaLoop();
  ReplicaLoop(const ReplicaLoop&) = delete;
  ReplicaLoop& operator=(const ReplicaLoop&) = delete;

  // --- Worker connections ---------------------------------------------------

  // The id of a new connection; then Post what arrives on it, RegisterWorker
  // first and within kRegistrationTimeoutMs, and PostClosed once at its end.
  WorkerId NewWorker();
  // RESOURCE_EXHAUSTED beyond kMaxReplicaInbox messages: close the connection.
  absl::Status Post(WorkerId worker, WorkerMessage message);
  void PostClosed(WorkerId worker, const std::string& cause);
  // Lets one spare worker go, if there is one (Replica::ReleaseSpare).
  void ReleaseSpare();

  // --- Requests -------------------------------------------------------------

  // An id for SequenceSpec::id.
  SequenceId NewSequenceId();
  // OK: exactly one sink->OnFinished follows, on the loop's thread.
  // RESOURCE_EXHAUSTED (inbox full) or UNAVAILABLE (stopped): the sink was
  // destroyed without a call.
  absl::Status Submit(SequenceSpec spec, std::unique_ptr<TokenSink> sink);
  // At most once for each submitted sequence.
  void Cancel(SequenceId id);
  // In turn, as the client falls behind and catches up (Replica::Pause). They
  // take effect in the order of the calls.
  void Pause(SequenceId id);
  void Resume(SequenceId id);

  // Replica::SetAdapter. In order with Submit: a sequence that is submitted
  // before its adapter is taken away still finds it.
  void SetAdapter(AdapterPlacement adapter);

  // --- Looking --------------------------------------------------------------

  // The snapshot published last: at every change of state, and within
  // kSnapshotIntervalMs of any other change. Never null.
  std::shared_ptr<const ReplicaSnapshot> Snapshot() const;

  // Ends all sequences with UNAVAILABLE, closes all workers and joins the
  // thread. Later calls do nothing.
  void Stop(const std::string& reason);

 private:
  struct ConnectedInput {
    WorkerId worker = 0;
  };
  struct MessageInput {
    WorkerId worker = 0;
    WorkerMessage message;
  };
  struct ClosedInput {
    WorkerId worker = 0;
    std::string cause;
  };
  struct SubmitInput {
    SequenceSpec spec;
    std::unique_ptr<TokenSink> sink;
  };
  struct CancelInput {
    SequenceId id = 0;
  };
  struct PauseInput {
    SequenceId id = 0;
    bool paused = false;
  };
  struct AdapterInput {
    AdapterPlacement adapter;
  };
  struct ReleaseSpareInput {};
  using Input =
      std::variant<ConnectedInput, MessageInput, ClosedInput, SubmitInput,
                   CancelInput, PauseInput, AdapterInput, ReleaseSpareInput>;

  void Run();
  // Waits for input, a wakeup or Stop. False: stop.
  bool WaitForInputs(Micros wakeup, std::vector<Input>& inputs);
  void Take(Input input, Micros now);
  void SendOutputs();
  void PublishIfDue(Micros now);
  absl::Status PostBounded(Input input);
  void PostAlways(Input input);

  const Clock& clock_;
  const SendFn send_;
  const SnapshotFn on_snapshot_;
  const uint64_t id_step_;
  std::atomic<WorkerId> next_worker_;
  std::atomic<SequenceId> next_sequence_;

  // Used by the loop's thread only.
  Replica replica_;
  bool unpublished_ = false;
  Micros published_at_ = 0;
  ReplicaState published_state_ = ReplicaState::kWaitingForWorkers;
  Epoch published_epoch_ = 0;

  mutable Mutex mutex_;
  CondVar inputs_or_stop_;
  std::vector<Input> inbox_ WITAN_GUARDED_BY(mutex_);
  bool stopping_ WITAN_GUARDED_BY(mutex_) = false;
  std::string stop_reason_ WITAN_GUARDED_BY(mutex_);
  std::shared_ptr<const ReplicaSnapshot> snapshot_ WITAN_GUARDED_BY(mutex_);

  Mutex join_mutex_;
  std::thread thread_ WITAN_GUARDED_BY(join_mutex_);
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_REPLICA_LOOP_H_
