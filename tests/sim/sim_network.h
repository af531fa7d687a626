#ifndef WITAN_TESTS_SIM_SIM_NETWORK_H_
#define WITAN_TESTS_SIM_SIM_NETWORK_H_

// The network between workers and coordinator: connections of two streams each.
// Messages take time; while a direction is partitioned they wait. A connection
// may end and lose what is under way, and each side learns of it in its own
// time, or never. Profiles that are not lawful also lose, repeat and reorder
// single messages.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/worker_protocol.h"
#include "coordinator/cluster/membership.h"
#include "tests/sim/sim_clock.h"
#include "tests/sim/sim_journal.h"
#include "tests/sim/sim_profile.h"
#include "tests/sim/sim_random.h"

namespace witan {

struct ConnectionOpened {};
struct ConnectionClosed {
  std::string cause;
};
using ToCoordinator =
    std::variant<ConnectionOpened, std::shared_ptr<const WorkerMessage>,
                 ConnectionClosed>;
using ToWorker =
    std::variant<std::shared_ptr<const CoordinatorMessage>, ConnectionClosed>;

struct NetworkCounters {
  int64_t num_messages = 0;
  int64_t num_lost = 0;  // of a connection that went on
  int64_t num_lost_in_reset = 0;
  int64_t num_repeated = 0;
  int64_t num_reordered = 0;
  int64_t num_held = 0;  // by a partition
};

class SimNetwork {
 public:
  using CoordinatorReceiver = std::function<void(
      int worker, WorkerId connection, const ToCoordinator&)>;
  using WorkerReceiver =
      std::function<void(int worker, WorkerId connection, const ToWorker&)>;

  // All arguments outlive the network.
  SimNetwork(SimClock& clock, SimRandom& random, SimJournal& journal,
             const SimProfile& profile, int num_workers);

  void Receive(CoordinatorReceiver at_coordinator, WorkerReceiver at_worker);

  // A worker makes a connection; the coordinator will learn of it.
  WorkerId Dial(int worker);
  void SendUp(WorkerId connection, WorkerMessage message);
  void SendDown(WorkerId connection,
                std::shared_ptr<const CoordinatorMessage> message);

  // The coordinator ends it; it hears that it has ended, and so does the
  // worker.
  void CloseByCoordinator(WorkerId connection, const std::string& cause);
  // The worker's process ended; its system tells the coordinator.
  void CloseByWorker(WorkerId connection);
  // The worker's machine stopped: nobody tells anybody.
  void Vanish(WorkerId connection);
  // Lost somewhere on the way: both sides learn of it, each in its time.
  void Reset(WorkerId connection);
  // Until then nothing arrives in these directions.
  void Partition(int worker, bool up, bool down, Micros until);
  // From now on messages are only delayed.
  void StopFaults() { faulty_ = false; }

  // Whether the stream down to the worker kept what a stream promises.
  bool IsLawfulDown(WorkerId connection) const;
  const NetworkCounters& counters() const { return counters_; }

 private:
  struct Pipe {
    bool broken = false;  // what arrives from now on is lost
    bool lawful = true;
    Micros last_arrival = 0;
  };
  struct Connection {
    int worker = 0;
    Pipe up;
    Pipe down;
  };

  Micros DrawDelay();
  // When a message that is sent now arrives, after those before it.
  Micros ArrivalOf(const Connection& connection, Pipe& pipe);
  void SendThrough(WorkerId id, Pipe& pipe, std::function<void()> deliver);
  void Deliver(WorkerId id, const ToCoordinator& item);
  void Deliver(WorkerId id, const ToWorker& item);
  // Tells one side that the connection ended; nothing else arrives after that.
  void TellCoordinator(WorkerId id, const std::string& cause);
  void TellWorker(WorkerId id, const std::string& cause);

  SimClock& clock_;
  SimRandom& random_;
  SimJournal& journal_;
  const SimProfile& profile_;
  bool faulty_ = true;
  CoordinatorReceiver at_coordinator_;
  WorkerReceiver at_worker_;
  WorkerId next_connection_ = 1;
  std::map<WorkerId, Connection> connections_;  // all that ever were
  std::vector<Micros> up_blocked_until_;        // by worker
  std::vector<Micros> down_blocked_until_;
  NetworkCounters counters_;
};

}  // namespace witan

#endif  // WITAN_TESTS_SIM_SIM_NETWORK_H_
