#ifndef WITAN_WORKER_WORKER_H_
#define WITAN_WORKER_WORKER_H_

// One rank of one replica: a pure function of (weights, cache, StepPlan).
//
// The life of a group: Prepare (map the shard, make rendezvous) -> Connect
// (form communicators) -> RunStep*. Prepare may be called again at any time
// with a newer epoch; weights that are already mapped for the same model and
// rank are kept unless a file was replaced, everything of the older epoch is
// released. One thread calls
// these; Abort may be called from any.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "base/limits.h"
#include "base/mutex.h"
#include "base/worker_protocol.h"
#include "kernels/backend.h"
#include "model/config.h"
#include "worker/comm/communicator.h"
#include "worker/tree_sum.h"

namespace witan {

enum class GroupKind : uint8_t { kWorld, kAttention, kExpert };

// Makes one rank's half of a group's communicator.
using RendezvousFactory =
    std::function<absl::StatusOr<std::unique_ptr<Rendezvous>>(
        GroupKind kind, Transport transport,
        const CommunicatorOptions& options)>;

struct WorkerOptions {
  CpuPath cpu_path = CpuPath::kAuto;
  // Address other hosts reach this one at; TCP transport listens there.
  std::string communication_host = "127.0.0.1";
  // Nonempty: serve this directory and refuse another.
  std::string model_directory;
  // Where hashes of weights are kept (model/piece_cache.h); empty: nowhere.
  std::string cache_directory;
  int64_t collective_timeout_ms = kCollectiveTimeoutMs;
  int64_t connect_timeout_ms = kConnectTimeoutMs;
  // Unset: shared memory or TCP as the coordinator chooses. Tests that run
  // ranks as threads set it.
  RendezvousFactory make_rendezvous;
};

class Worker {
 public:
  // Bytes of weights verified so far, and in total; called by one thread
  // at a time, any of those that hash.
  using ProgressFn = std::function<void(int64_t done, int64_t total)>;

  explicit Worker(WorkerOptions options);
  ~Worker();

  // Errors name the file, field or limit; the worker stays usable for a newer
  // epoch. `stop` ends the epoch too, also when it was requested before this
  // was called.
  absl::StatusOr<GroupPrepared> Prepare(const PrepareGroup& request,
                                        const ProgressFn& progress,
                                        const std::stop_token& stop = {});

  // Forms the communicators and allocates the cache.
  // FAILED_PRECONDITION unless `request.epoch` is the prepared epoch.
  absl::Status Connect(const ConnectGroup& request);

  // Runs one step. FAILED_PRECONDITION for a stale epoch or a step out of
  // order (nothing was done); any other error means that this rank's group is
  // dead and needs a new epoch.
  absl::StatusOr<StepResult> RunStep(const StepPlan& plan);

  // Holds an adapter from the next step on, or none under that index. The
  // status says why there is none; the group lives on.
  // FAILED_PRECONDITION unless `request.epoch` is connected.
  absl::StatusOr<AdapterLoaded> Load(const LoadAdapter& request);

  // Of this epoch's steps. REQUIRES: connected, no step runs.
  SumCounts sum_counts() const;
  // Pieces of this epoch's ops that other threads than the caller's computed.
  // REQUIRES: prepared, no step runs.
  int64_t num_pieces_of_other_threads() const;

  // Ends the epoch: a running Prepare, Connect or RunStep fails soon, later
  // ones too. Thread-safe.
  void Abort(const std::string& reason);

 private:
  struct Group;
  struct Model;

  absl::Status LoadModel(const PrepareGroup& request,
                         const ProgressFn& progress,
                         const std::stop_token& stop);
  // Makes everything of `group` but communicators and decoder.
  absl::StatusOr<GroupPrepared> PrepareParts(Group& group,
                                             const ProgressFn& progress);
  absl::StatusOr<GroupEndpoints> MakeRendezvousHalves(Group& group);

  const WorkerOptions options_;
  std::unique_ptr<Model> model_;
  Mutex mutex_;
  // Replaced only by the calling thread under the mutex; Abort reads it there.
  std::shared_ptr<Group> group_;
};

// The name (base/cpu_path.h) of what `path` resolves to on this machine.
absl::StatusOr<std::string> ResolvedCpuPath(CpuPath path);

}  // namespace witan

#endif  // WITAN_WORKER_WORKER_H_
