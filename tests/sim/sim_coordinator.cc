#include "tests/sim/sim_coordinator.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "base/limits.h"
#include "coordinator/schedule/block_name.h"

namespace witan {
namespace {

// From an event to the thread that takes it.
constexpr Micros kMaxWakeupLatency = 300;

}  // namespace

SimCoordinator::Host::Host(const ReplicaOptions& options, int replica_index,
                           SimJournal& journal, TokenChecker& tokens)
    : index(replica_index),
      replica(options),
      groups(journal, tokens, options) {}

SimCoordinator::SimCoordinator(const std::vector<ReplicaOptions>& replicas,
                               RoutingPolicy policy,
                               std::vector<std::string> host_of_worker,
                               SimClock& clock, SimRandom& random,
                               SimJournal& journal, SimNetwork& network,
                               TokenChecker& tokens)
    : host_of_worker_(std::move(host_of_worker)),
      num_ranks_(replicas.front().layout.num_ranks()),
      router_(static_cast<int>(replicas.size()), policy),
      clock_(clock),
      random_(random),
      journal_(journal),
      network_(network),
      tokens_(tokens) {
  for (const ReplicaOptions& options : replicas) {
    hosts_.push_back(std::make_unique<Host>(
        options, static_cast<int>(hosts_.size()), journal, tokens));
  }
}

// Tells the router of the end.
class SimCoordinator::RoutedSink : public TokenSink {
 public:
  RoutedSink(Router& router, const Route& route,
             std::unique_ptr<TokenSink> sink)
      : router_(router), route_(route), sink_(std::move(sink)) {}

  bool OnToken(int64_t index, const SampledToken& token) override {
    return sink_->OnToken(index, token);
  }
  void OnPromptScores(int64_t first_index,
                      std::vector<SampledToken> scores) override {
    sink_->OnPromptScores(first_index, std::move(scores));
  }
  std::optional<TokenId> NextForcedToken() override {
    return sink_->NextForcedToken();
  }
  void OnFinished(absl::StatusOr<FinishReason> reason,
                  const SequenceUsage& usage) override {
    router_.OnFinished(route_);
    sink_->OnFinished(std::move(reason), usage);
  }

 private:
  Router& router_;
  const Route route_;
  const std::unique_ptr<TokenSink> sink_;
};

// --- Inputs
// ----------------------------------------------------------------------

void SimCoordinator::Submit(SequenceSpec spec,
                            std::unique_ptr<TokenSink> sink) {
  if (router_.identity()) {
    spec.block_root = RootBlockName(*router_.identity(), spec.tenant, "",
                                    static_cast<int64_t>(spec.prompt.size()));
    spec.block_names = BlockNames(spec.block_root, spec.prompt,
                                  spec.prompt.size() / kBlockTokens);
  }
  std::optional<int> replica;
  if (spec.beside) replica = host_of_sequence_.at(*spec.beside);
  const std::optional<Route> route =
      router_.Choose(static_cast<int64_t>(spec.prompt.size()),
                     spec.stop.max_tokens, spec.block_names, replica);
  if (route) {
    if (route->replica > 0) ++counters_.num_routed_to_others;
    sink = std::make_unique<RoutedSink>(router_, *route, std::move(sink));
  }
  SubmitTo(route ? route->replica : 0, std::move(spec), std::move(sink));
}

void SimCoordinator::SubmitTo(int replica, SequenceSpec spec,
                              std::unique_ptr<TokenSink> sink) {
  Host& host = *hosts_[replica];
  host_of_sequence_[spec.id] = replica;
  tokens_.OnRouted(spec.id, replica, clock_.now());
  // std::function wants what it holds to be copyable.
  auto shared_sink =
      std::make_shared<std::unique_ptr<TokenSink>>(std::move(sink));
  Post(host, [this, &host, spec = std::move(spec), shared_sink] {
    host.groups.OnSubmitted(spec.id);
    host.replica.Submit(spec, std::move(*shared_sink), clock_.now());
  });
}

void SimCoordinator::Cancel(SequenceId id) {
  Host& host = *hosts_[host_of_sequence_.at(id)];
  Post(host, [this, &host, id] {
    if (tokens_.ended(id)) return;
    tokens_.OnCancel(id);
    host.replica.Cancel(id, clock_.now());
    if (!tokens_.ended(id)) {
      journal_.Fail("tokens", "sequence {} lives after it was cancelled", id);
    }
  });
}

void SimCoordinator::Pause(SequenceId id) {
  Host& host = *hosts_[host_of_sequence_.at(id)];
  Post(host, [this, &host, id] {
    if (tokens_.ended(id)) return;
    tokens_.OnReaderPaused(id, true);
    host.replica.Pause(id);
  });
}

void SimCoordinator::Resume(SequenceId id) {
  Host& host = *hosts_[host_of_sequence_.at(id)];
  Post(host, [this, &host, id] {
    if (tokens_.ended(id)) return;
    tokens_.OnReaderPaused(id, false);
    host.replica.Resume(id);
  });
}

void SimCoordinator::OnArrival(int worker, WorkerId connection,
                               const ToCoordinator& item) {
  if (std::holds_alternative<ConnectionOpened>(item)) {
    Place(connection, worker);
  } else if (std::holds_alternative<ConnectionClosed>(item)) {
    if (host_of_.erase(connection) > 0) MoveSpare();
  }
  // One that was lost before it arrived only ends.
  if (!replica_of_.contains(connection)) return;
  Host& host = *hosts_[ReplicaOf(connection)];
  Post(host, [this, &host, connection, item] {
    if (std::holds_alternative<ConnectionOpened>(item)) {
      host.replica.OnConnected(connection, clock_.now());
    } else if (const auto* closed = std::get_if<ConnectionClosed>(&item)) {
      TakeClosed(host, connection, closed->cause);
    } else {
      TakeMessage(host, connection,
                  *std::get<std::shared_ptr<const WorkerMessage>>(item));
    }
  });
}

void SimCoordinator::TakeMessage(Host& host, WorkerId worker,
                                 const WorkerMessage& message) {
  const bool is_stale = host.groups.IsStale(message);
  const ReplicaState state = host.replica.state();
  const int64_t num_calls = tokens_.num_calls();
  host.groups.OnReceived(worker, message);
  host.replica.OnMessage(worker, message, clock_.now());
  if (!is_stale) {
    TakeOutputs(host);
    host.groups.CheckEnded(host.replica.state());
    return;
  }
  ++counters_.num_stale_messages;
  bool sent = false;
  for (ReplicaOutput& output : host.replica.TakeOutputs()) {
    if (const auto* close = std::get_if<CloseWorker>(&output)) {
      network_.CloseByCoordinator(close->worker, close->reason.ToString());
    } else {
      sent = true;
    }
  }
  if (sent || host.replica.state() != state ||
      tokens_.num_calls() != num_calls) {
    journal_.Fail("epochs", "a message of a group that was over had effects");
  }
}

void SimCoordinator::TakeClosed(Host& host, WorkerId worker,
                                const std::string& cause) {
  journal_.Log("replica {}: connection {} ended: {}", host.index, worker,
               cause);
  ++counters_.num_lost_while[static_cast<size_t>(host.replica.state())];
  host.groups.OnClosed(worker);
  host.replica.OnClosed(worker, cause, clock_.now());
  TakeOutputs(host);
  host.groups.CheckEnded(host.replica.state());
}

void SimCoordinator::PauseUntil(Micros until) {
  ++counters_.num_pauses;
  journal_.Log("coordinator: pauses for {} ms",
               (until - clock_.now()) / kMicrosPerMilli);
  paused_until_ = std::max(paused_until_, until);
  tokens_.OnCoordinatorPause(paused_until_);
}

// --- The thread of a replica
// -------------------------------------------------------

void SimCoordinator::Post(Host& host, std::function<void()> input) {
  host.inbox.push_back(std::move(input));
  WakeAt(host, clock_.now() + random_.Between(1, kMaxWakeupLatency));
}

void SimCoordinator::WakeAt(Host& host, Micros when) {
  if (host.wake_at != 0 && host.wake_at <= when) return;
  host.wake_at = when;
  clock_.At(when, [this, &host, when] {
    if (host.wake_at == when) Wake(host);
  });
}

void SimCoordinator::Wake(Host& host) {
  host.wake_at = 0;
  if (clock_.now() < paused_until_) {
    WakeAt(host, paused_until_ + random_.Between(1, kMaxWakeupLatency));
    return;
  }
  std::deque<std::function<void()>> inputs = std::exchange(host.inbox, {});
  for (const std::function<void()>& input : inputs) {
    input();
    // What is broken may not be safe to use.
    if (journal_.failed()) return;
  }
  host.replica.Tick(clock_.now());
  // Whom a tick closes is late, and no member of the group any more.
  TakeOutputs(host, /*closed_are_lost=*/true);
  host.groups.CheckEnded(host.replica.state());
  if (journal_.failed()) return;
  tokens_.CheckDeadlines(host.index, clock_.now());
  CheckIdle(host);
  if (host.replica.state() != host.last_state ||
      host.replica.epoch() != host.last_epoch) {
    OnStateChanged(host);
  } else {
    MoveSpare();  // as with every snapshot
  }
  const Micros wakeup = host.replica.NextWakeup();
  if (wakeup != std::numeric_limits<Micros>::max()) {
    WakeAt(host, std::max(wakeup, clock_.now()) +
                     random_.Between(1, kMaxWakeupLatency));
  }
}

void SimCoordinator::TakeOutputs(Host& host, bool closed_are_lost) {
  for (ReplicaOutput& output : host.replica.TakeOutputs()) {
    if (const auto* close = std::get_if<CloseWorker>(&output)) {
      host.groups.OnClosing(close->worker);
      if (closed_are_lost) host.groups.OnClosed(close->worker);
      network_.CloseByCoordinator(close->worker, close->reason.ToString());
      continue;
    }
    SendMessage& send = std::get<SendMessage>(output);
    host.groups.OnSent(send);
    if (const auto* plan = std::get_if<StepPlan>(&send.message)) {
      journal_.Log("replica {}: sends step {} of epoch {}, {} rows of {}",
                   host.index, plan->step, plan->epoch, plan->num_rows(),
                   plan->num_sequences());
    }
    const auto message =
        std::make_shared<const CoordinatorMessage>(std::move(send.message));
    for (const WorkerId worker : send.workers) {
      network_.SendDown(worker, message);
    }
  }
}

// --- Between the replicas ---------------------------------------------------

void SimCoordinator::OnStateChanged(Host& host) {
  const ReplicaState state = host.replica.state();
  journal_.Log("replica {}: {} (epoch {})", host.index, ReplicaStateName(state),
               host.replica.epoch());
  host.last_state = state;
  host.last_epoch = host.replica.epoch();
  if (state == ReplicaState::kServing) {
    host.ever_served = true;
    const ReplicaSnapshot snapshot = host.replica.Snapshot();
    router_.OnServing(host.index, snapshot.epoch, snapshot.limits.num_blocks,
                      {snapshot.weights_id, snapshot.numerics_id});
  } else {
    router_.OnNotServing(host.index);
  }
  MoveSpare();
}

void SimCoordinator::Place(WorkerId connection, int worker) {
  const std::string& host = host_of_worker_[worker];
  const int replica = PlaceWorker(PlacedWorkers(), num_ranks_, host);
  journal_.Log("connection {}: worker {} joins replica {}", connection, worker,
               replica);
  replica_of_[connection] = replica;
  host_of_[connection] = host;
  spare_moves_.OnPlaced(replica);
}

std::vector<ReplicaWorkers> SimCoordinator::PlacedWorkers() const {
  std::vector<ReplicaWorkers> workers(hosts_.size());
  for (const auto& [connection, host] : host_of_) {
    ++workers[ReplicaOf(connection)].num_by_host[host];
  }
  return workers;
}

void SimCoordinator::MoveSpare() {
  const std::optional<SpareMove> move =
      spare_moves_.Next(PlacedWorkers(), num_ranks_, clock_.now());
  if (!move) return;
  ++counters_.num_spare_moves;
  Host& host = *hosts_[move->from];
  Post(host, [this, &host] {
    host.replica.ReleaseSpare(clock_.now());
    TakeOutputs(host);
  });
}

void SimCoordinator::CheckRouter() {
  for (int i = 0; i < num_replicas(); ++i) {
    if (router_.outstanding_tokens(i) != 0) {
      journal_.Fail("router", "replica {} has {} tokens to compute, it says", i,
                    router_.outstanding_tokens(i));
    }
  }
}

// Where nothing lives and nothing runs, every block is free.
void SimCoordinator::CheckIdle(Host& host) {
  if (host.replica.state() != ReplicaState::kServing ||
      host.groups.has_steps_in_flight()) {
    return;
  }
  const ReplicaSnapshot snapshot = host.replica.Snapshot();
  if (snapshot.num_live_sequences == 0 &&
      snapshot.scheduler.num_free_blocks != snapshot.scheduler.num_blocks) {
    journal_.Fail("blocks", "{} of {} blocks are free, and nothing runs",
                  snapshot.scheduler.num_free_blocks,
                  snapshot.scheduler.num_blocks);
  }
}

}  // namespace witan
