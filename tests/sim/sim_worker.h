#ifndef WITAN_TESTS_SIM_SIM_WORKER_H_
#define WITAN_TESTS_SIM_SIM_WORKER_H_

// A worker process around a FakeWorker: it dials, works off what it receives
// one message after the other, sends heartbeats, crashes and comes back, and
// pauses: then everything queues up, and is worked off with the epochs of
// before.

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>

#include "base/worker_protocol.h"
#include "coordinator/cluster/membership.h"
#include "tests/sim/sim_clock.h"
#include "tests/sim/sim_journal.h"
#include "tests/sim/sim_network.h"
#include "tests/sim/sim_random.h"
#include "tests/testing/fake_worker_group.h"

namespace witan {

// A step that a worker executed.
struct ExecutedStep {
  int worker = 0;
  WorkerId connection = 0;
  int rank = 0;
  Epoch epoch = 0;
  StepNumber step = 0;
};

struct WorkerCounters {
  int64_t num_crashes = 0;
  int64_t num_pauses = 0;
  int64_t num_executed = 0;
  int64_t num_refused_plans = 0;  // of an epoch that was over for the worker
  int64_t num_bad_returns = 0;

  void Add(const WorkerCounters& other);
};

class SimWorker {
 public:
  using Observer = std::function<void(const ExecutedStep&)>;

  // `healthy` is what the worker is when nothing is wrong with it. References
  // outlive the worker.
  SimWorker(int index, FakeWorkerOptions healthy, SimClock& clock,
            SimRandom& random, SimJournal& journal, SimNetwork& network,
            Observer on_executed);

  // The process begins.
  void Start();
  // It ends and begins again `down_for` later. `silently`: the coordinator is
  // not told. `wrongly`: it then computes other tokens, or says so.
  void Crash(bool silently, Micros down_for, bool wrongly);
  // It ends and does not come back.
  void Die();
  void PauseUntil(Micros until);
  // Takes no more steps of this group, but lives.
  void Hang();
  // Gives the current group up, if it has one.
  void ReportFailure();
  // A worker that came back wrong is replaced by a healthy one.
  void Repair();

  void OnArrival(WorkerId connection, const ToWorker& item);

  bool is_dead() const { return dead_; }
  // Of the current process; none while it does not try to have one.
  std::optional<WorkerId> connection() const { return connection_; }
  const WorkerCounters& counters() const { return counters_; }

 private:
  void Dial();
  void SendHeartbeat(int process);
  void StartNext();
  void FinishFirst(int process);
  void Take(const ToWorker& item);
  void TakeMessage(const CoordinatorMessage& message);
  void TakePlan(const StepPlan& plan);
  void Send(WorkerMessage message);
  Micros TimeFor(const ToWorker& item);
  FakeWorkerOptions OptionsOfProcess() const;

  const int index_;
  const FakeWorkerOptions healthy_;
  SimClock& clock_;
  SimRandom& random_;
  SimJournal& journal_;
  SimNetwork& network_;
  const Observer on_executed_;

  // --- The current process
  // ----------------------------------------------------
  bool up_ = false;
  bool dead_ = false;  // there will be no other one
  int process_ = 0;    // what was scheduled for an older one is void
  enum class Wrong { kNot, kTokens, kNumericsId, kBuild };
  Wrong wrong_ = Wrong::kNot;
  Epoch highest_epoch_ = 0;   // of the connection
  StepNumber last_step_ = 0;  // of that epoch
  Micros paused_until_ = 0;
  std::optional<WorkerId> connection_;
  std::optional<FakeWorker> fake_;  // of the connection
  std::deque<ToWorker> inbox_;
  bool working_ = false;  // on the first of them

  WorkerCounters counters_;
};

}  // namespace witan

#endif  // WITAN_TESTS_SIM_SIM_WORKER_H_
