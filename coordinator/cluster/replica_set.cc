#include "coordinator/cluster/replica_set.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/status.h"
#include "model/memory_plan.h"

namespace witan {

namespace {

ReplicaSnapshot Refused(ReplicaSnapshot snapshot) {
  snapshot.state = ReplicaState::kRefused;
  snapshot.not_serving_reason =
      "it holds another model, or computes otherwise, than the replica that "
      "served first";
  return snapshot;
}

}  // namespace

// Tells the router of the end.
class ReplicaSet::RoutedSink final : public TokenSink {
 public:
  RoutedSink(ReplicaSet& set, const Route& route, std::string adapter_name,
             std::unique_ptr<TokenSink> sink)
      : set_(set),
        route_(route),
        adapter_name_(std::move(adapter_name)),
        sink_(std::move(sink)) {}

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
    set_.OnSequenceEnded(route_, adapter_name_);
    sink_->OnFinished(std::move(reason), usage);
  }

 private:
  ReplicaSet& set_;
  const Route route_;
  const std::string adapter_name_;
  const std::unique_ptr<TokenSink> sink_;
};

ReplicaSet::ReplicaSet(const ReplicaSetOptions& options, const Clock& clock,
                       SendFn send, SnapshotFn on_snapshot)
    : model_(options.replica.model),
      num_ranks_(options.replica.layout.num_ranks()),
      on_snapshot_(std::move(on_snapshot)),
      router_(options.num_replicas, options.routing),
      adapters_(options.replica.planner.limits.max_adapters),
      refused_epochs_(options.num_replicas) {
  WITAN_CHECK(options.num_replicas >= 1 && options.num_replicas <= kMaxReplicas,
              "{} replicas", options.num_replicas);
  for (int replica = 0; replica < options.num_replicas; ++replica) {
    ReplicaOptions replica_options = options.replica;
    replica_options.planner.num_replicas = options.num_replicas;
    if (options.trace != nullptr) {
      replica_options.observer = &options.trace->observer(replica);
    }
    loops_.push_back(std::make_unique<ReplicaLoop>(
        std::move(replica_options), clock, send,
        [this, replica](const ReplicaSnapshot& snapshot) {
          OnSnapshot(replica, snapshot);
        },
        IdSpace{.first = static_cast<uint64_t>(replica) + 1,
                .step = static_cast<uint64_t>(options.num_replicas)}));
  }
}

ReplicaSet::~ReplicaSet() { Stop("the coordinator is shutting down"); }

void ReplicaSet::OnSnapshot(int replica, const ReplicaSnapshot& snapshot) {
  bool refused = false;
  {
    MutexLock lock(mutex_);
    if (snapshot.state != ReplicaState::kServing) {
      router_.OnNotServing(replica);
    } else if (!router_.OnServing(
                   replica, snapshot.epoch, snapshot.limits.num_blocks,
                   {snapshot.weights_id, snapshot.numerics_id,
                    LongRopeFirstRow(model_,
                                     snapshot.limits.max_context_tokens)})) {
      refused = true;
      OnRefused(replica, snapshot);
    }
  }
  if (snapshot.limits.max_adapters > 0) UpdateAdapters();
  if (on_snapshot_) {
    on_snapshot_(replica, refused ? Refused(snapshot) : snapshot);
  }
}

void ReplicaSet::OnRefused(int replica, const ReplicaSnapshot& snapshot) {
  if (refused_epochs_[replica] == snapshot.epoch) return;
  refused_epochs_[replica] = snapshot.epoch;
  LogError(
      "a replica holds another model, or computes otherwise, than the first "
      "one; it gets no requests",
      {{"replica", replica},
       {"weights_id", snapshot.weights_id},
       {"numerics_id", snapshot.numerics_id},
       {"first_weights_id", router_.identity()->weights_id},
       {"first_numerics_id", router_.identity()->numerics_id}});
}

bool ReplicaSet::IsRefused(int replica, const ReplicaSnapshot& snapshot) const {
  return snapshot.state == ReplicaState::kServing &&
         refused_epochs_[replica] == snapshot.epoch;
}

std::optional<Route> ReplicaSet::ChooseReplica(SequenceSpec& spec) {
  std::optional<PrefixIdentity> identity;
  {
    MutexLock lock(mutex_);
    identity = router_.identity();
  }
  if (!identity) return std::nullopt;
  // Outside the lock and the replica's thread: it takes time.
  spec.block_root =
      RootBlockName(*identity, spec.tenant, spec.adapter.content_hash,
                    static_cast<int64_t>(spec.prompt.size()));
  spec.block_names = BlockNames(spec.block_root, spec.prompt,
                                spec.prompt.size() / kBlockTokens);
  std::optional<int> replica;
  if (spec.beside) replica = ReplicaOf(*spec.beside);
  Router::MayTakeFn holds_adapter;
  if (!spec.adapter_name.empty()) {
    holds_adapter = [snapshots = Snapshots(), ref = spec.adapter](int index) {
      const auto& adapters = snapshots[static_cast<size_t>(index)]->adapters;
      return std::any_of(adapters.begin(), adapters.end(),
                         [&ref](const AdapterSnapshot& adapter) {
                           return adapter.ref == ref && adapter.status.ok();
                         });
    };
  }
  MutexLock lock(mutex_);
  return router_.Choose(static_cast<int64_t>(spec.prompt.size()),
                        spec.stop.max_tokens, spec.block_names, replica,
                        holds_adapter);
}

absl::Status ReplicaSet::WhyNoneServes() const {
  std::string reason = "a replica is about to serve";
  const auto snapshots = Snapshots();
  for (auto it = snapshots.rbegin(); it != snapshots.rend(); ++it) {
    const ReplicaSnapshot& snapshot = **it;
    if (snapshot.state != ReplicaState::kServing) {
      reason = snapshot.not_serving_reason;
    }
  }
  return Unavailable("{}; try again", reason);
}

absl::StatusOr<SequenceId> ReplicaSet::Submit(SequenceSpec spec,
                                              std::unique_ptr<TokenSink> sink) {
  const std::string adapter_name = spec.adapter_name;
  if (!adapter_name.empty()) {
    MutexLock lock(mutex_);
    ASSIGN_OR_RETURN(spec.adapter, adapters_.Acquire(adapter_name));
  }
  const std::optional<Route> route = ChooseReplica(spec);
  if (!route) {
    ReleaseAdapter(adapter_name);
    return WhyNoneServes();
  }
  ReplicaLoop& loop = *loops_[route->replica];
  spec.id = loop.NewSequenceId();
  const SequenceId id = spec.id;
  sink = std::make_unique<RoutedSink>(*this, *route, adapter_name,
                                      std::move(sink));
  const absl::Status status = loop.Submit(std::move(spec), std::move(sink));
  if (status.ok()) return id;
  OnSequenceEnded(*route, adapter_name);
  return status;
}

void ReplicaSet::OnSequenceEnded(const Route& route,
                                 const std::string& adapter_name) {
  {
    MutexLock lock(mutex_);
    router_.OnFinished(route);
  }
  ReleaseAdapter(adapter_name);
}

// --- Adapters ----------------------------------------------------------------

void ReplicaSet::ReleaseAdapter(const std::string& name) {
  if (name.empty()) return;
  MutexLock lock(mutex_);
  Place(adapters_.Release(name));
}

void ReplicaSet::Place(const std::optional<AdapterPlacement>& adapter) {
  if (!adapter) return;
  for (const auto& loop : loops_) loop->SetAdapter(*adapter);
}

void ReplicaSet::LoadAdapter(const std::string& name,
                             const std::string& directory,
                             const std::string& content_hash, int64_t rank,
                             AdapterSet::DoneFn done) {
  absl::Status status;
  {
    MutexLock lock(mutex_);
    auto placement = adapters_.Begin(name, directory, content_hash, rank, done);
    status = placement.status();
    if (placement.ok()) Place(*placement);
  }
  if (!status.ok()) done(status);
  CallDone();
}

absl::Status ReplicaSet::UnloadAdapter(const std::string& name) {
  {
    MutexLock lock(mutex_);
    ASSIGN_OR_RETURN(const auto placement, adapters_.End(name));
    Place(placement);
  }
  CallDone();
  return absl::OkStatus();
}

std::vector<AdapterInfo> ReplicaSet::Adapters() const {
  MutexLock lock(mutex_);
  return adapters_.List();
}

void ReplicaSet::UpdateAdapters() {
  const auto snapshots = Snapshots();
  {
    MutexLock lock(mutex_);
    for (const AdapterPlacement& gone : adapters_.OnSnapshots(snapshots)) {
      Place(gone);
    }
  }
  CallDone();
}

void ReplicaSet::CallDone() {
  std::vector<std::function<void()>> due;
  {
    MutexLock lock(mutex_);
    due = adapters_.TakeDone();
  }
  for (const auto& call : due) call();
}

ReplicaLoop& ReplicaSet::LoopOf(SequenceId id) {
  return *loops_[ReplicaOf(id)];
}

int ReplicaSet::ReplicaOf(uint64_t id) const {
  return static_cast<int>((id - 1) % loops_.size());
}

void ReplicaSet::Cancel(SequenceId id) { LoopOf(id).Cancel(id); }
void ReplicaSet::Pause(SequenceId id) { LoopOf(id).Pause(id); }
void ReplicaSet::Resume(SequenceId id) { LoopOf(id).Resume(id); }

std::vector<std::shared_ptr<const ReplicaSnapshot>> ReplicaSet::Snapshots()
    const {
  std::vector<std::shared_ptr<const ReplicaSnapshot>> snapshots;
  for (const auto& loop : loops_) snapshots.push_back(loop->Snapshot());
  MutexLock lock(mutex_);
  for (size_t i = 0; i < snapshots.size(); ++i) {
    if (!IsRefused(static_cast<int>(i), *snapshots[i])) continue;
    snapshots[i] = std::make_shared<ReplicaSnapshot>(Refused(*snapshots[i]));
  }
  return snapshots;
}

void ReplicaSet::Stop(const std::string& reason) {
  for (const auto& loop : loops_) loop->Stop(reason);
}

}  // namespace witan
