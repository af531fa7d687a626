#include "tests/sim/sim_world.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "base/limits.h"
#include "tests/cluster/replica_fixture.h"
#include "tests/sim/sim_clients.h"
#include "tests/sim/sim_clock.h"
#include "tests/sim/sim_journal.h"
#include "tests/sim/sim_profile.h"
#include "tests/sim/sim_random.h"

namespace witan {
namespace {

constexpr Micros kSecond = kMicrosPerSecond;
// From the last fault until everything has ended and serves: a rank that hangs
// in a step is given up after kStepTimeoutMs, and the rest are pauses of
// seconds. Without the promises of a stream a PrepareGroup may be lost, which
// takes kLoadTimeoutMs to be noticed.
constexpr Micros kMaxSilence = 3 * kWorkerTimeoutMs * kMicrosPerMilli;
constexpr Micros kMaxRecovery = (kStepTimeoutMs + 90000) * kMicrosPerMilli;
constexpr Micros kMaxLawlessRecovery =
    kLoadTimeoutMs * kMicrosPerMilli + kMaxRecovery;
constexpr Micros kMaxLastRequests = 60 * kSecond;
constexpr int64_t kMaxEvents = 3'000'000;

class World {
 public:
  World(uint64_t seed, bool tracing)
      : random_(seed),
        profile_(DrawProfile(random_)),
        journal_(clock_, tracing),
        tokens_(journal_, TinyModelConfig().vocab_size),
        network_(clock_, random_, journal_, profile_, NumWorkers()),
        coordinator_(
            std::vector<ReplicaOptions>(profile_.num_replicas, Options()),
            profile_.route_by_prefix ? RoutingPolicy::kPrefix
                                     : RoutingPolicy::kRoundRobin,
            HostsOfWorkers(), clock_, random_, journal_, network_, tokens_),
        clients_(clock_, random_, profile_, coordinator_, tokens_,
                 TinyModelConfig().vocab_size),
        faults_(clock_, random_, profile_, network_, coordinator_, workers_) {
    journal_.Log("seed {}: {}", seed, Describe(profile_));
    for (int i = 0; i < NumWorkers(); ++i) AddWorker(i);
    network_.Receive(
        [this](int worker, WorkerId connection, const ToCoordinator& item) {
          coordinator_.OnArrival(worker, connection, item);
        },
        [this](int worker, WorkerId connection, const ToWorker& item) {
          workers_[worker]->OnArrival(connection, item);
        });
  }

  SimOutcome Run() {
    for (const auto& worker : workers_) {
      clock_.At(random_.Between(0, kSecond), [&worker] { worker->Start(); });
    }
    clients_.Start();
    faults_.Start();
    RunUntil(profile_.faults_us, [] { return false; });
    journal_.Log("the faults stop");
    faults_.Stop();
    WaitForRecovery();
    AskForEverything();
    return Outcome();
  }

 private:
  int NumWorkers() const {
    return profile_.num_replicas * (profile_.num_ranks + profile_.num_spares);
  }

  // Two, so that groups move between them.
  std::vector<std::string> HostsOfWorkers() const {
    std::vector<std::string> hosts;
    for (int i = 0; i < NumWorkers(); ++i) {
      hosts.push_back(i % 3 == 2 ? "host-b" : "host");
    }
    return hosts;
  }

  ReplicaOptions Options() const {
    ReplicaOptions options = FakeReplicaOptions(profile_.num_ranks);
    EngineLimits& limits = options.planner.limits;
    limits.max_context_tokens = profile_.max_context_tokens;
    limits.max_step_tokens = profile_.max_step_tokens;
    limits.max_sequences = profile_.max_sequences;
    limits.num_blocks = profile_.num_blocks;
    options.look_ahead = profile_.look_ahead;
    options.max_prefill_chunk_tokens = profile_.max_prefill_chunk_tokens;
    options.max_prefill_tokens_beside_decode =
        profile_.max_prefill_tokens_beside_decode;
    options.prefix_cache = profile_.prefix_cache;
    return options;
  }

  void AddWorker(int index) {
    FakeWorkerOptions options = FakeTinyWorker(profile_.num_ranks);
    options.registration.host_id = HostsOfWorkers()[index];
    workers_.push_back(std::make_unique<SimWorker>(
        index, std::move(options), clock_, random_, journal_, network_,
        [this](const ExecutedStep& executed) {
          const int replica = coordinator_.ReplicaOf(executed.connection);
          coordinator_.groups(replica).OnExecuted(executed);
        }));
  }

  // Whether `done` came true by then.
  bool RunUntil(Micros end, const std::function<bool()>& done) {
    while (!journal_.failed() && clock_.NextTime() <= end) {
      if (done()) return true;
      clock_.RunNext();
      if (clock_.num_events() > kMaxEvents) {
        journal_.Fail("liveness", "{} events, and no end", kMaxEvents);
      }
    }
    return false;
  }

  bool AllServe() const {
    for (int i = 0; i < profile_.num_replicas; ++i) {
      if (coordinator_.replica(i).state() != ReplicaState::kServing) {
        return false;
      }
    }
    return true;
  }

  // More than `num_tokens` tokens take, one after the other.
  Micros TimeFor(int64_t num_tokens) const {
    return num_tokens * 2 * (2 * profile_.max_delay_us + 25000);
  }

  void WaitForRecovery() {
    const int64_t num_tokens =
        4 * profile_.num_requests *
        (profile_.max_prompt_tokens + profile_.max_output_tokens);
    const Micros longest =
        TimeFor(num_tokens) +
        (profile_.IsLawful() ? kMaxRecovery : kMaxLawlessRecovery);
    const Micros end = profile_.faults_us + longest;
    // What went silent is found out in this time, where it is not asked.
    RunUntil(profile_.faults_us + kMaxSilence, [] { return false; });
    const auto quiet = [this] {
      return clients_.done() && tokens_.num_live() == 0 && AllServe();
    };
    // The first request may yet meet a rank that hangs.
    bool recovered = false;
    while (!recovered && RunUntil(end, quiet)) {
      std::vector<SequenceId> probes;
      for (int i = 0; i < profile_.num_replicas; ++i) {
        probes.push_back(clients_.SubmitPlain(i, 2, 8));
      }
      recovered = RunUntil(end, quiet) &&
                  std::all_of(probes.begin(), probes.end(), [&](SequenceId id) {
                    return tokens_.complete(id);
                  });
    }
    if (recovered || journal_.failed()) return;
    for (int i = 0; i < profile_.num_replicas; ++i) {
      const ReplicaSnapshot snapshot = coordinator_.replica(i).Snapshot();
      journal_.Log("replica {}: {}, {}", i, ReplicaStateName(snapshot.state),
                   snapshot.last_error);
    }
    journal_.Fail("liveness",
                  "{} sequences live {} s after the last fault; sequence {} is "
                  "the first",
                  tokens_.num_live(), longest / kSecond,
                  tokens_.live().empty() ? 0 : tokens_.live().front());
  }

  // All slots at once, then the whole cache: nothing was leaked.
  void AskForEverything() {
    const int64_t capacity = (profile_.num_blocks - 1) * kBlockTokens;
    std::vector<SequenceId> ids;
    for (int i = 0; i < profile_.num_replicas; ++i) {
      coordinator_.groups(i).ForgetMostSequences();
      for (int64_t n = 0; n < profile_.max_running(); ++n) {
        ids.push_back(clients_.SubmitPlain(i, 2, 24));
      }
    }
    WaitFor(ids, "all slots");
    for (int i = 0; i < profile_.num_replicas && !journal_.failed(); ++i) {
      if (coordinator_.groups(i).most_sequences() < profile_.max_running()) {
        journal_.Fail("slots", "only {} of {} slots are used",
                      coordinator_.groups(i).most_sequences(),
                      profile_.max_running());
      }
      ids.push_back(clients_.SubmitPlain(i, capacity - 20, 21));
    }
    WaitFor(ids, "the whole cache");
    if (!journal_.failed()) coordinator_.CheckRouter();
  }

  void WaitFor(const std::vector<SequenceId>& ids, const char* what) {
    if (journal_.failed()) return;
    const Micros longest =
        kMaxLastRequests + TimeFor(profile_.max_context_tokens);
    const auto idle = [this] {
      if (tokens_.num_live() > 0) return false;
      for (int i = 0; i < profile_.num_replicas; ++i) {
        if (coordinator_.groups(i).has_steps_in_flight()) return false;
      }
      return true;
    };
    if (!RunUntil(clock_.now() + longest, idle)) {
      journal_.Fail("liveness", "requests for {} do not end", what);
    }
    tokens_.CheckComplete(ids);
  }

  SimOutcome Outcome() {
    SimOutcome outcome;
    outcome.violation = journal_.violation();
    outcome.trace = journal_.lines();
    SimCounters& counters = outcome.counters;
    counters.tokens = tokens_.counters();
    counters.network = network_.counters();
    for (const auto& worker : workers_)
      counters.workers.Add(worker->counters());
    counters.coordinator = coordinator_.counters();
    counters.faults = faults_.counters();
    // What is broken may not be safe to ask.
    for (int i = 0; i < profile_.num_replicas && !journal_.failed(); ++i) {
      const ReplicaSnapshot snapshot = coordinator_.replica(i).Snapshot();
      counters.num_group_failures += snapshot.num_group_failures;
      counters.num_epochs += static_cast<int64_t>(snapshot.epoch);
      counters.num_steps += snapshot.scheduler.num_steps;
      counters.num_look_ahead_steps += snapshot.scheduler.num_look_ahead_steps;
      counters.num_discarded_rows += snapshot.scheduler.num_discarded_rows;
      counters.num_preemptions += snapshot.scheduler.num_preemptions;
      counters.num_pauses += snapshot.scheduler.num_pauses;
      counters.num_parked += snapshot.scheduler.num_parked;
      counters.num_evictions += snapshot.scheduler.num_prefix_evictions;
      counters.num_shared_blocks += coordinator_.groups(i).num_shared_blocks();
    }
    counters.num_events = clock_.num_events();
    counters.simulated_us = clock_.now();
    return outcome;
  }

  SimClock clock_;
  SimRandom random_;
  const SimProfile profile_;
  SimJournal journal_;
  TokenChecker tokens_;
  SimNetwork network_;
  SimCoordinator coordinator_;
  SimClients clients_;
  std::vector<std::unique_ptr<SimWorker>> workers_;
  SimFaults faults_;
};

}  // namespace

SimOutcome RunSeed(uint64_t seed, bool tracing) {
  return World(seed, tracing).Run();
}

}  // namespace witan
