#ifndef WITAN_COORDINATOR_CLUSTER_MEMBERSHIP_H_
#define WITAN_COORDINATOR_CLUSTER_MEMBERSHIP_H_

// Which workers are registered and alive. Pure: time is an argument.

#include <absl/status/status.h>

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/step_plan.h"
#include "base/worker_protocol.h"

namespace witan {

// One connection of one worker process; a worker that comes back gets a new
// one. Ascending in order of connection.
using WorkerId = uint64_t;

enum class WorkerState : uint8_t {
  kIdle,      // may be given a rank
  kAssigned,  // holds a rank of the current epoch
  kLost,      // remembered for people to read, no longer a member
};

struct WorkerInfo {
  WorkerId id = 0;
  RegisterWorker registration;
  WorkerState state = WorkerState::kIdle;
  Micros registered_at = 0;
  Micros last_heard_at = 0;
  Epoch epoch = 0;         // kAssigned: of the group
  int32_t rank = -1;       // kAssigned: its world rank
  std::string lost_cause;  // kLost: "connection closed"
  // Groups that failed before they served, perhaps because of this worker,
  // since it last was in one that served.
  int num_failed_starts = 0;

  // "worker 2 (pid 123 on host h)", with the rank when it has one.
  std::string Name() const;
};

// What every worker must match.
struct MembershipOptions {
  std::string build_id;
  // A worker that was told another model directory is refused.
  std::string model_directory;
};

// Owned by a Replica; used by its thread only.
class Membership {
 public:
  explicit Membership(MembershipOptions options);

  // A connection was made; it has kRegistrationTimeoutMs to register.
  void OnConnected(WorkerId id, Micros now);
  // Admits a worker as idle. FAILED_PRECONDITION names both values when build
  // id, protocol version or model directory differ (checked in this order,
  // before anything else); RESOURCE_EXHAUSTED beyond kMaxWorkers;
  // ALREADY_EXISTS when the connection registers twice.
  absl::Status Register(WorkerId id, const RegisterWorker& registration,
                        Micros now);
  // Any message counts as a sign of life. False: not a member.
  bool OnHeard(WorkerId id, Micros now);
  // Removes a member for `cause`. False: not a member, but perhaps a connection
  // that had not registered.
  bool OnLost(WorkerId id, const std::string& cause);
  // Members not heard of for kWorkerTimeoutMs, ascending. The caller ends each
  // with OnLost.
  std::vector<WorkerId> Expired(Micros now) const;
  // Connections that have not registered in time, ascending. The caller ends
  // each with OnLost.
  std::vector<WorkerId> Unregistered(Micros now) const;
  // When Expired or Unregistered may next be nonempty; INT64_MAX without
  // members and connections.
  Micros NextExpiry() const;

  // REQUIRES: a member.
  void Assign(WorkerId id, Epoch epoch, int32_t rank);
  void ReleaseAll();  // every assigned worker is idle again
  // Counts WorkerInfo::num_failed_starts; nothing happens for others than
  // members.
  void OnFailedStart(WorkerId id);
  void OnServing(WorkerId id);

  // Null: not a member.
  const WorkerInfo* Find(WorkerId id) const;
  std::vector<WorkerInfo> Idle() const;     // ascending ids
  std::vector<WorkerInfo> Members() const;  // ascending ids
  // The last kMaxLostWorkersRemembered that went away, oldest first.
  const std::deque<WorkerInfo>& lost() const { return lost_; }
  int64_t num_members() const { return static_cast<int64_t>(members_.size()); }

 private:
  const MembershipOptions options_;
  std::map<WorkerId, Micros> connected_at_;  // of those not registered yet
  std::map<WorkerId, WorkerInfo> members_;
  std::deque<WorkerInfo> lost_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_MEMBERSHIP_H_
