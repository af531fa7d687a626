#ifndef WITAN_BASE_WORKER_PROTOCOL_H_
#define WITAN_BASE_WORKER_PROTOCOL_H_

// What the coordinator and a worker say to each other, as plain structs. A
// worker dials the coordinator and keeps one bidirectional stream for its
// whole life; proto/wire.h turns these structs into messages and back and
// checks every received byte.
//
//   worker                         coordinator
//   RegisterWorker       ->                       (first message; else closed)
//                        <-        WorkerAccepted (or the stream ends with a
//                                                  status that says why not)
//                        <-        PrepareGroup   epoch e, rank r of R
//   LoadProgress*        ->
//   GroupPrepared        ->                       weights mapped, endpoints
//                        <-        ConnectGroup   everybody's endpoints
//   GroupConnected       ->
//                        <-        StepPlan*      one more may be sent while
//   StepResult*          ->                       one runs
//                        <-        LoadAdapter*   between StepPlans
//   AdapterLoaded*       ->
//   GroupFailed          ->                       instead of any of the above
//                        <-        AbortGroup     from now on e is dead
//   Heartbeat            ->                       every kHeartbeatIntervalMs
//
// Everything that concerns a group carries its epoch; a message of another
// epoch than the receiver's current one is dropped (worker: stale plans are
// answered with nothing; coordinator: zombies are ignored).

#include <absl/status/status.h>

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/step_plan.h"

namespace witan {

// Raised when a message of this protocol changes its meaning.
constexpr uint32_t kWorkerProtocolVersion = 5;

struct RegisterWorker {
  std::string build_id;
  uint32_t protocol_version = kWorkerProtocolVersion;
  // Equal for workers that can share memory (same kernel and same mount of
  // /dev/shm).
  std::string host_id;
  std::string host_name;
  int64_t process_id = 0;
  std::string device;    // "cpu"
  std::string cpu_path;  // what --cpu-path resolved to (base/cpu_path.h)
  int64_t num_cores = 0;
  int32_t num_threads =
      0;  // that one rank shall use; 0: as the coordinator says
  int64_t memory_bytes = 0;  // what the worker may use for one shard
  // memory_bytes is what its host can spare, for all workers there together:
  // each of them measures the same. False: promised to this worker alone.
  bool memory_is_of_host = false;
  // Nonempty: the worker was told its model directory and refuses another.
  std::string model_directory;
  std::string metrics_address;  // HOST:PORT, for people; empty: none
  bool operator==(const RegisterWorker&) const = default;
};

struct WorkerAccepted {
  uint64_t worker_id = 0;
  bool operator==(const WorkerAccepted&) const = default;
};

enum class Transport : uint8_t { kSharedMemory, kTcp };

// Take rank `rank` of a new group; forget any older one.
struct PrepareGroup {
  Epoch epoch = 0;
  int32_t rank = 0;
  int32_t tp = 1;
  int32_t ep = 1;
  std::string model_directory;
  Transport transport = Transport::kSharedMemory;
  int32_t num_threads = 1;
  int64_t max_context_tokens = 0;
  int64_t max_step_tokens = 0;
  int64_t max_sequences = 0;
  int64_t num_blocks = 0;
  int64_t max_adapters = 0;
  int64_t max_adapter_rank = 0;
  // Tree sums of up to this many bytes per rank go one-shot, larger ones
  // two-shot; the same number for every rank of an epoch.
  int64_t one_shot_max_bytes = 0;
  bool operator==(const PrepareGroup&) const = default;
};

struct LoadProgress {
  Epoch epoch = 0;
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
  bool operator==(const LoadProgress&) const = default;
};

// Rendezvous endpoints of one rank, opaque to the coordinator.
struct GroupEndpoints {
  std::string world;
  std::string attention;
  std::string expert;
  bool operator==(const GroupEndpoints&) const = default;
};

struct GroupPrepared {
  Epoch epoch = 0;
  GroupEndpoints endpoints;
  std::string numerics_id;
  std::string config;  // what it read, as model/config_identity.h writes it
  std::map<std::string, std::string> piece_hashes;  // model/manifest.h
  int64_t weights_bytes = 0;
  int64_t kv_bytes = 0;
  bool operator==(const GroupPrepared&) const = default;
};

struct ConnectGroup {
  Epoch epoch = 0;
  std::vector<GroupEndpoints> endpoints;  // by world rank
  bool operator==(const ConnectGroup&) const = default;
};

struct GroupConnected {
  Epoch epoch = 0;
  bool operator==(const GroupConnected&) const = default;
};

struct GroupFailed {
  Epoch epoch = 0;
  absl::Status reason;
  bool operator==(const GroupFailed&) const = default;
};

// From the next StepPlan on, `index` is the adapter of this directory, whatever
// it was before; an empty directory: no adapter.
struct LoadAdapter {
  Epoch epoch = 0;
  int32_t index = 0;
  // Chosen by the coordinator, returned in the answer.
  uint64_t load_number = 0;
  std::string directory;
  bool operator==(const LoadAdapter&) const = default;
};

// Not OK: the index has no adapter now.
struct AdapterLoaded {
  Epoch epoch = 0;
  int32_t index = 0;
  uint64_t load_number = 0;
  absl::Status status;
  std::string content_hash;  // Adapter::content_hash; empty unless loaded
  bool operator==(const AdapterLoaded&) const = default;
};

struct AbortGroup {
  Epoch epoch = 0;
  std::string reason;
  bool operator==(const AbortGroup&) const = default;
};

struct Heartbeat {
  bool operator==(const Heartbeat&) const = default;
};

using WorkerMessage =
    std::variant<RegisterWorker, LoadProgress, GroupPrepared, GroupConnected,
                 StepResult, GroupFailed, Heartbeat, AdapterLoaded>;
using CoordinatorMessage =
    std::variant<WorkerAccepted, PrepareGroup, ConnectGroup, StepPlan,
                 AbortGroup, LoadAdapter>;

}  // namespace witan

#endif  // WITAN_BASE_WORKER_PROTOCOL_H_
