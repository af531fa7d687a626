#include "tests/sim/sim_network.h"

#include <algorithm>
#include <utility>

namespace witan {

SimNetwork::SimNetwork(SimClock& clock, SimRandom& random, SimJournal& journal,
                       const SimProfile& profile, int num_workers)
    : clock_(clock),
      random_(random),
      journal_(journal),
      profile_(profile),
      up_blocked_until_(num_workers, 0),
      down_blocked_until_(num_workers, 0) {}

void SimNetwork::Receive(CoordinatorReceiver at_coordinator,
                         WorkerReceiver at_worker) {
  at_coordinator_ = std::move(at_coordinator);
  at_worker_ = std::move(at_worker);
}

WorkerId SimNetwork::Dial(int worker) {
  const WorkerId id = next_connection_++;
  Connection& connection = connections_[id];
  connection.worker = worker;
  const Micros arrival = ArrivalOf(connection, connection.up);
  connection.up.last_arrival = arrival;
  clock_.At(arrival,
            [this, id] { Deliver(id, ToCoordinator(ConnectionOpened{})); });
  return id;
}

void SimNetwork::SendUp(WorkerId id, WorkerMessage message) {
  auto shared = std::make_shared<const WorkerMessage>(std::move(message));
  SendThrough(id, connections_.at(id).up,
              [this, id, shared] { Deliver(id, ToCoordinator(shared)); });
}

void SimNetwork::SendDown(WorkerId id,
                          std::shared_ptr<const CoordinatorMessage> message) {
  SendThrough(id, connections_.at(id).down,
              [this, id, message = std::move(message)] {
                Deliver(id, ToWorker(message));
              });
}

void SimNetwork::SendThrough(WorkerId id, Pipe& pipe,
                             std::function<void()> deliver) {
  ++counters_.num_messages;
  const Connection& connection = connections_.at(id);
  Micros arrival = ArrivalOf(connection, pipe);
  if (faulty_ && random_.Chance(profile_.loss_probability)) {
    ++counters_.num_lost;
    pipe.lawful = false;
    journal_.Log("connection {}: a message is lost", id);
    return;
  }
  if (faulty_ && random_.Chance(profile_.repeat_probability)) {
    ++counters_.num_repeated;
    pipe.lawful = false;
    journal_.Log("connection {}: a message is repeated", id);
    clock_.At(arrival + DrawDelay(), deliver);
  }
  if (faulty_ && random_.Chance(profile_.reorder_probability)) {
    ++counters_.num_reordered;
    pipe.lawful = false;
    journal_.Log("connection {}: a message is overtaken", id);
    arrival += 3 * DrawDelay();
  } else {
    pipe.last_arrival = arrival;
  }
  clock_.At(arrival, std::move(deliver));
}

Micros SimNetwork::DrawDelay() {
  const bool spike = faulty_ && random_.Chance(profile_.spike_probability);
  return random_.Between(1,
                         spike ? profile_.max_spike_us : profile_.max_delay_us);
}

Micros SimNetwork::ArrivalOf(const Connection& connection, Pipe& pipe) {
  const std::vector<Micros>& blocked =
      &pipe == &connection.up ? up_blocked_until_ : down_blocked_until_;
  const Micros begin = std::max(clock_.now(), blocked[connection.worker]);
  if (begin > clock_.now()) ++counters_.num_held;
  return std::max(begin + DrawDelay(), pipe.last_arrival + 1);
}

void SimNetwork::Deliver(WorkerId id, const ToCoordinator& item) {
  const Connection& connection = connections_.at(id);
  if (connection.up.broken) {
    ++counters_.num_lost_in_reset;
    return;
  }
  at_coordinator_(connection.worker, id, item);
}

void SimNetwork::Deliver(WorkerId id, const ToWorker& item) {
  const Connection& connection = connections_.at(id);
  if (connection.down.broken) {
    ++counters_.num_lost_in_reset;
    return;
  }
  at_worker_(connection.worker, id, item);
}

void SimNetwork::TellCoordinator(WorkerId id, const std::string& cause) {
  Connection& connection = connections_.at(id);
  clock_.At(ArrivalOf(connection, connection.up), [this, id, cause] {
    Connection& closed = connections_.at(id);
    closed.up.broken = true;
    at_coordinator_(closed.worker, id, ToCoordinator(ConnectionClosed{cause}));
  });
}

void SimNetwork::TellWorker(WorkerId id, const std::string& cause) {
  Connection& connection = connections_.at(id);
  clock_.At(ArrivalOf(connection, connection.down), [this, id, cause] {
    Connection& closed = connections_.at(id);
    closed.down.broken = true;
    at_worker_(closed.worker, id, ToWorker(ConnectionClosed{cause}));
  });
}

void SimNetwork::CloseByCoordinator(WorkerId id, const std::string& cause) {
  journal_.Log("connection {}: closed by the coordinator: {}", id, cause);
  TellWorker(id, cause);
  // Its own side ends soon, whatever the network does.
  clock_.After(DrawDelay(), [this, id] {
    Connection& closed = connections_.at(id);
    closed.up.broken = true;
    at_coordinator_(closed.worker, id,
                    ToCoordinator(ConnectionClosed{"connection closed"}));
  });
}

void SimNetwork::CloseByWorker(WorkerId id) {
  Connection& connection = connections_.at(id);
  connection.down.broken = true;
  // What the process wrote last may still arrive, or not.
  if (random_.Chance(0.5)) connection.up.broken = true;
  TellCoordinator(id, "connection closed");
}

void SimNetwork::Vanish(WorkerId id) {
  Connection& connection = connections_.at(id);
  connection.down.broken = true;
  connection.up.broken = true;
}

void SimNetwork::Reset(WorkerId id) {
  journal_.Log("connection {}: reset", id);
  Vanish(id);
  TellCoordinator(id, "connection lost");
  TellWorker(id, "connection lost");
}

void SimNetwork::Partition(int worker, bool up, bool down, Micros until) {
  journal_.Log("worker {}: partitioned{}{} for {} ms", worker, up ? ", up" : "",
               down ? ", down" : "", (until - clock_.now()) / kMicrosPerMilli);
  if (up) {
    up_blocked_until_[worker] = std::max(up_blocked_until_[worker], until);
  }
  if (down) {
    down_blocked_until_[worker] = std::max(down_blocked_until_[worker], until);
  }
}

bool SimNetwork::IsLawfulDown(WorkerId connection) const {
  return connections_.at(connection).down.lawful;
}

}  // namespace witan
