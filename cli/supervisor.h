#ifndef WITAN_CLI_SUPERVISOR_H_
#define WITAN_CLI_SUPERVISOR_H_

// The processes of one local cluster, from start to end: a coordinator, whose
// end ends everything, and workers that are started again when they end.

#include <absl/status/status.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/step_plan.h"
#include "cli/process.h"
#include "cli/progress.h"
#include "cli/restart_policy.h"
#include "proto/cluster.grpc.pb.h"

namespace witan {

struct LocalClusterOptions {
  std::string model_name;  // for people
  int num_workers = 1;
  std::string binary_folder;
  std::vector<std::string> coordinator_arguments;
  // "--join HOST:PORT" is added once the coordinator listens.
  std::vector<std::string> worker_arguments;
  bool verbose = false;  // pass on what the processes log below a warning
};

// One thread: the main one. Blocks SIGINT, SIGTERM and SIGCHLD while it lives.
class LocalCluster {
 public:
  explicit LocalCluster(LocalClusterOptions options);
  ~LocalCluster();
  LocalCluster(const LocalCluster&) = delete;
  LocalCluster& operator=(const LocalCluster&) = delete;

  // Runs until SIGINT or SIGTERM (kExitOk) or until the coordinator ends or
  // workers cannot start. Prints one line beginning "ready" to stdout when
  // requests can be served, everything else to stderr.
  int Run();

 private:
  struct Child {
    std::string name;
    Process process;
    Micros started_at = 0;
    std::optional<Micros> restart_at;  // while it waits to be started again
    RestartPolicy policy;
  };

  absl::Status StartCoordinator();
  void StartWorker(Child& worker);
  void StartDueWorkers(Micros now);
  // Waits for output, a signal, or the next thing due.
  void WaitForEvents(Micros now);
  void HandleSignals();
  void ReapChildren();
  void HandleEnd(Child& child, int wait_status);
  void HandleWorkerEnd(Child& worker, int wait_status);
  void ReadOutput(Child& child);
  void HandleCoordinatorLine(const std::string& line);
  void ForwardLog(const std::string& name, const std::string& line);
  void AskForStatus(Micros now);
  void ShowState(const v1::StatusResponse& status);
  // Says, once, why a start makes no progress.
  void ShowDelay(const std::string& reason);
  // Ends the processes, the coordinator first, and returns when they have.
  void Stop();
  void Fail(int exit_code, const std::string& message);
  void WriteLine(const std::string& line);
  std::vector<Child*> AllChildren();

  const LocalClusterOptions options_;
  const Micros started_at_;
  int signal_fd_ = -1;
  Child coordinator_;
  std::vector<Child> workers_;
  std::string grpc_address_;  // empty until the coordinator listens
  std::string metrics_address_;
  std::unique_ptr<v1::Cluster::Stub> stub_;
  ProgressLine progress_;
  Micros next_status_at_ = 0;
  v1::GroupState last_state_ = v1::GROUP_STATE_UNSPECIFIED;
  Epoch last_epoch_ = 0;
  bool was_ready_ = false;
  std::string delay_reason_;
  Micros delay_since_ = 0;
  bool delay_is_shown_ = false;
  std::optional<int> exit_code_;
};

}  // namespace witan

#endif  // WITAN_CLI_SUPERVISOR_H_
