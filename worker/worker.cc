#include "worker/worker.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/cpu_path.h"
#include "base/file.h"
#include "base/leaves.h"
#include "base/sha256.h"
#include "base/status.h"
#include "model/checkpoint.h"
#include "model/config_identity.h"
#include "model/families.h"
#include "model/manifest.h"
#include "model/memory_plan.h"
#include "model/shard_plan.h"
#include "worker/adapter_table.h"
#include "worker/comm/rendezvous.h"
#include "worker/decoder.h"
#include "worker/kv_cache.h"
#include "worker/rope.h"
#include "worker/sampler.h"
#include "worker/slots.h"
#include "worker/weights.h"

namespace witan {

// A mapped shard; survives epochs as long as directory, layout, rank and the
// files in the directory stay.
struct Worker::Model {
  std::string directory;
  Layout layout;
  RankShard shard;
  std::string config_json;
  ModelConfig config;
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Weights> weights;
  PieceHashes piece_hashes;

  // Whether this is the shard of `rank` of what is in the files now.
  bool IsOf(const std::string& other_directory, Layout other_layout, int rank,
            const std::string& other_config_json,
            const Checkpoint& files) const {
    return directory == other_directory && layout == other_layout &&
           shard.rank == rank && config_json == other_config_json &&
           checkpoint->files() == files.files() &&
           checkpoint->file_identities() == files.file_identities();
  }
};

// Everything of one epoch. Members are destroyed bottom up: the decoder before
// the communicators and the backend it uses.
struct Worker::Group {
  PrepareGroup request;
  EngineLimits limits;
  std::unique_ptr<Backend> backend;
  std::vector<float> rope;
  std::unique_ptr<PagedKvCache> cache;
  std::unique_ptr<AdapterTable> adapters;  // null: the group has none
  std::unique_ptr<SlotTable> slots;

  // Stops the hashing of weights.
  std::stop_source stop;

  Mutex mutex;
  // Guarded by the mutex: the reason of an abort, and what it must wake.
  bool aborted WITAN_GUARDED_BY(mutex) = false;
  std::string abort_reason WITAN_GUARDED_BY(mutex);
  std::unique_ptr<Rendezvous> rendezvous[3];
  std::unique_ptr<Communicator> comms[3];

  std::unique_ptr<Decoder> decoder;
  StepNumber last_step = 0;

  Communicator& comm(GroupKind kind) { return *comms[static_cast<int>(kind)]; }

  void Abort(const std::string& reason) {
    MutexLock lock(mutex);
    if (!aborted) {
      aborted = true;
      abort_reason = reason;
    }
    stop.request_stop();
    for (const auto& half : rendezvous) {
      if (half != nullptr) half->Abort(reason);
    }
    for (const auto& comm : comms) {
      if (comm != nullptr) comm->Abort(reason);
    }
  }

  absl::Status CheckAlive() {
    MutexLock lock(mutex);
    if (!aborted) return absl::OkStatus();
    return Unavailable("epoch {} was aborted: {}", request.epoch, abort_reason);
  }
};

namespace {

constexpr GroupKind kGroupKinds[] = {GroupKind::kWorld, GroupKind::kAttention,
                                     GroupKind::kExpert};

// World ranks of the group that `shard` belongs to, ascending.
IndexRange MembersOf(GroupKind kind, const RankShard& shard, Layout layout) {
  switch (kind) {
    case GroupKind::kWorld:
      return {0, layout.num_ranks()};
    case GroupKind::kAttention:
      return {shard.attention_group * layout.tp,
              (shard.attention_group + 1) * layout.tp};
    case GroupKind::kExpert:
      return {shard.expert_group * layout.ep,
              (shard.expert_group + 1) * layout.ep};
  }
  return {};
}

size_t SendBytesOf(GroupKind kind, const ModelConfig& config, Layout layout,
                   const EngineLimits& limits) {
  switch (kind) {
    case GroupKind::kWorld:
      return SamplerSendBytes(limits.max_sequences);
    case GroupKind::kAttention:
      return Decoder::AttentionSendBytes(config, layout, limits);
    case GroupKind::kExpert:
      return ExpertLayer::SendBytes(config, layout, limits);
  }
  return 0;
}

std::string& EndpointOf(GroupKind kind, GroupEndpoints& endpoints) {
  switch (kind) {
    case GroupKind::kWorld:
      return endpoints.world;
    case GroupKind::kAttention:
      return endpoints.attention;
    case GroupKind::kExpert:
      break;
  }
  return endpoints.expert;
}

absl::Status CheckRequest(const PrepareGroup& request) {
  ASSIGN_OR_RETURN(const Layout layout, MakeLayout(request.tp, request.ep));
  if (request.rank < 0 || request.rank >= layout.num_ranks()) {
    return InvalidArgument("rank {} is out of [0, {}) of tp={} ep={}",
                           request.rank, layout.num_ranks(), request.tp,
                           request.ep);
  }
  if (request.max_adapters < 0 || request.max_adapters > kMaxAdapters ||
      request.max_adapter_rank < 0 ||
      request.max_adapter_rank > kMaxAdapterRank) {
    return InvalidArgument(
        "max_adapters is {} and max_adapter_rank {}; they must be in [0, {}] "
        "and [0, {}]",
        request.max_adapters, request.max_adapter_rank, kMaxAdapters,
        kMaxAdapterRank);
  }
  const std::pair<std::string_view, std::pair<int64_t, int64_t>> limits[] = {
      {"num_threads", {request.num_threads, kMaxThreadsPerRank}},
      {"max_context_tokens", {request.max_context_tokens, kMaxContextTokens}},
      {"max_step_tokens", {request.max_step_tokens, kMaxStepTokens}},
      {"max_sequences", {request.max_sequences, kMaxStepSequences}},
      {"num_blocks", {request.num_blocks, kMaxBlocks}},
  };
  for (const auto& [name, value_and_max] : limits) {
    const auto& [value, max] = value_and_max;
    if (value < 1 || value > max) {
      return InvalidArgument("{} is {}; it must be in [1, {}]", name, value,
                             max);
    }
  }
  return absl::OkStatus();
}

// Rows of the rope table that the numerics id covers, whatever context is
// served: how long sequences may get does not change a bit of theirs.
constexpr int64_t kRopePositionsOfId = 4096;

// Names what decides the bits of a token besides the weights: two ranks with
// the same id compute the same.
absl::StatusOr<std::string> NumericsId(Backend& backend,
                                       const ModelConfig& config) {
  ASSIGN_OR_RETURN(const std::string known_answer, KnownAnswerHash(backend));
  const std::vector<float> rope = MakeRope(config, kRopePositionsOfId);
  Sha256 hash;
  hash.Update(backend.kernel_set());
  hash.Update(known_answer);
  hash.Update(ConfigText(config));
  hash.Update(fmt::format("leaves={}\n", kNumLeaves));
  hash.Update(rope.data(), rope.size() * sizeof(float));
  return hash.Finish();
}

absl::StatusOr<std::unique_ptr<Rendezvous>> MakeDefaultRendezvous(
    Transport transport, const CommunicatorOptions& options,
    const std::string& host) {
  if (transport == Transport::kTcp) return MakeTcpRendezvous(options, host);
  return MakeShmRendezvous(options);
}

}  // namespace

Worker::Worker(WorkerOptions options) : options_(std::move(options)) {}

Worker::~Worker() { Abort("the worker is going down"); }

absl::Status Worker::LoadModel(const PrepareGroup& request,
                               const ProgressFn& progress,
                               const std::stop_token& stop) {
  const Layout layout{request.tp, request.ep};
  if (!options_.model_directory.empty() &&
      options_.model_directory != request.model_directory) {
    return FailedPrecondition(
        "this worker serves the model directory '{}' (--model) and the "
        "coordinator asked for '{}'",
        options_.model_directory, request.model_directory);
  }
  auto model = std::make_unique<Model>();
  model->directory = request.model_directory;
  model->layout = layout;
  ASSIGN_OR_RETURN(model->config_json, ReadConfigText(request.model_directory));
  ASSIGN_OR_RETURN(model->checkpoint,
                   Checkpoint::Open(request.model_directory));
  if (model_ != nullptr &&
      model_->IsOf(request.model_directory, layout, request.rank,
                   model->config_json, *model->checkpoint)) {
    return absl::OkStatus();
  }
  model_.reset();
  ASSIGN_OR_RETURN(model->config, ParseModelConfig(model->config_json));
  RETURN_IF_ERROR(CheckLayout(model->config, layout));
  model->shard = MakeRankShard(model->config, layout, request.rank);
  RETURN_IF_ERROR(CheckCheckpoint(model->config, *model->checkpoint));
  ASSIGN_OR_RETURN(model->piece_hashes,
                   HashPieces(model->config, *model->checkpoint, model->shard,
                              request.num_threads, progress,
                              PieceCache(options_.cache_directory), stop));
  model->weights = std::make_unique<Weights>(
      model->config, model->shard, *model->checkpoint, request.num_threads);
  model_ = std::move(model);
  return absl::OkStatus();
}

absl::StatusOr<GroupPrepared> Worker::Prepare(const PrepareGroup& request,
                                              const ProgressFn& progress,
                                              const std::stop_token& stop) {
  Abort(fmt::format("epoch {} begins", request.epoch));
  auto group = std::make_shared<Group>();
  group->request = request;
  std::shared_ptr<Group> older;
  {
    // From here on an abort is one of this epoch.
    MutexLock lock(mutex_);
    older = std::exchange(group_, group);
  }
  older.reset();
  const std::stop_callback on_stop(
      stop, [&group] { group->Abort("it was given up while it was loading"); });
  absl::StatusOr<GroupPrepared> prepared = PrepareParts(*group, progress);
  // What an abort made fail is of no interest.
  if (absl::Status alive = group->CheckAlive(); !alive.ok()) prepared = alive;
  if (!prepared.ok()) {
    MutexLock lock(mutex_);
    group_.reset();
  }
  return prepared;
}

absl::StatusOr<GroupPrepared> Worker::PrepareParts(Group& group,
                                                   const ProgressFn& progress) {
  const PrepareGroup& request = group.request;
  RETURN_IF_ERROR(CheckRequest(request));
  RETURN_IF_ERROR(LoadModel(request, progress, group.stop.get_token()));
  RETURN_IF_ERROR(group.CheckAlive());
  const ModelConfig& config = model_->config;
  if (request.max_context_tokens > config.max_context_tokens) {
    return InvalidArgument(
        "max_context_tokens is {}; the model's context is {}",
        request.max_context_tokens, config.max_context_tokens);
  }
  group.limits = {.max_context_tokens = request.max_context_tokens,
                  .max_step_tokens = request.max_step_tokens,
                  .max_sequences = request.max_sequences,
                  .num_blocks = request.num_blocks,
                  .max_adapters = request.max_adapters,
                  .max_adapter_rank = request.max_adapter_rank};
  ASSIGN_OR_RETURN(group.backend,
                   MakeCpuBackend({.num_threads = request.num_threads,
                                   .path = options_.cpu_path,
                                   .weights = config.weights}));
  group.rope = MakeRope(config, request.max_context_tokens);
  ASSIGN_OR_RETURN(group.cache,
                   PagedKvCache::Allocate(*group.backend, config, model_->shard,
                                          request.num_blocks));
  if (request.max_adapters > 0) {
    ASSIGN_OR_RETURN(group.adapters,
                     AdapterTable::Create(config, model_->shard, group.limits,
                                          *group.backend));
  }
  group.slots = std::make_unique<SlotTable>(
      group.limits, config.vocab_size,
      LongRopeFirstRow(config, request.max_context_tokens));

  GroupPrepared prepared;
  prepared.epoch = request.epoch;
  ASSIGN_OR_RETURN(prepared.endpoints, MakeRendezvousHalves(group));
  ASSIGN_OR_RETURN(prepared.numerics_id, NumericsId(*group.backend, config));
  prepared.config = ConfigText(config);
  prepared.piece_hashes = model_->piece_hashes;
  const MemoryPlan plan = MakeMemoryPlan(config, model_->layout, request.rank,
                                         group.limits, request.num_threads);
  prepared.weights_bytes = plan.weights_bytes;
  prepared.kv_bytes = group.cache->size_bytes();
  return prepared;
}

absl::StatusOr<GroupEndpoints> Worker::MakeRendezvousHalves(Group& group) {
  GroupEndpoints endpoints;
  for (const GroupKind kind : kGroupKinds) {
    const IndexRange members = MembersOf(kind, model_->shard, model_->layout);
    const CommunicatorOptions comm_options{
        .rank = static_cast<int>(group.request.rank - members.begin),
        .size = static_cast<int>(members.size()),
        .epoch = group.request.epoch,
        .max_send_bytes =
            SendBytesOf(kind, model_->config, model_->layout, group.limits),
        .timeout_ms = options_.collective_timeout_ms,
        // At most; it decides only whether waiting spins.
        .ranks_on_host = model_->layout.num_ranks()};
    const Transport transport = group.request.transport;
    auto rendezvous =
        options_.make_rendezvous
            ? options_.make_rendezvous(kind, transport, comm_options)
            : MakeDefaultRendezvous(transport, comm_options,
                                    options_.communication_host);
    if (!rendezvous.ok()) return rendezvous.status();
    EndpointOf(kind, endpoints) = (*rendezvous)->endpoint();
    MutexLock lock(group.mutex);
    group.rendezvous[static_cast<int>(kind)] = *std::move(rendezvous);
  }
  return endpoints;
}

absl::Status Worker::Connect(const ConnectGroup& request) {
  Group* group = group_.get();
  if (group == nullptr || group->request.epoch != request.epoch ||
      group->decoder != nullptr) {
    return FailedPrecondition(
        "epoch {} cannot connect: the prepared epoch is {}", request.epoch,
        group == nullptr ? 0 : group->request.epoch);
  }
  const int num_ranks = model_->layout.num_ranks();
  if (static_cast<int>(request.endpoints.size()) != num_ranks) {
    return InvalidArgument("{} endpoints came for {} ranks",
                           request.endpoints.size(), num_ranks);
  }
  const Micros deadline =
      MonotonicClock().Now() + options_.connect_timeout_ms * kMicrosPerMilli;
  for (const GroupKind kind : kGroupKinds) {
    RETURN_IF_ERROR(group->CheckAlive());
    const IndexRange members = MembersOf(kind, model_->shard, model_->layout);
    std::vector<std::string> endpoints;
    for (int64_t rank = members.begin; rank < members.end; ++rank) {
      GroupEndpoints of_rank = request.endpoints[rank];
      endpoints.push_back(EndpointOf(kind, of_rank));
    }
    const int index = static_cast<int>(kind);
    const Micros left = std::max<Micros>(0, deadline - MonotonicClock().Now());
    ASSIGN_OR_RETURN(auto comm, group->rendezvous[index]->Connect(
                                    endpoints, left / kMicrosPerMilli));
    MutexLock lock(group->mutex);
    group->rendezvous[index].reset();
    if (group->aborted) comm->Abort(group->abort_reason);
    group->comms[index] = std::move(comm);
  }
  ASSIGN_OR_RETURN(
      group->decoder,
      Decoder::Create(
          {.config = &model_->config,
           .shard = &model_->shard,
           .layout = model_->layout,
           .limits = group->limits,
           .one_shot_max_bytes = group->request.one_shot_max_bytes,
           .backend = group->backend.get(),
           .weights = model_->weights.get(),
           .cache = group->cache.get(),
           .adapters = group->adapters.get(),
           .rope = ConstTensorView(
               group->rope.data(), DType::kF32,
               NumRopeRows(model_->config, group->limits.max_context_tokens),
               model_->config.rope.rotary_dim),
           .attention_comm = &group->comm(GroupKind::kAttention),
           .expert_comm = &group->comm(GroupKind::kExpert)}));
  return absl::OkStatus();
}

absl::StatusOr<StepResult> Worker::RunStep(const StepPlan& plan) {
  Group* group = group_.get();
  if (group == nullptr || group->decoder == nullptr ||
      plan.epoch != group->request.epoch || plan.step != group->last_step + 1) {
    return FailedPrecondition(
        "step {} of epoch {} does not follow step {} of epoch {}", plan.step,
        plan.epoch, group == nullptr ? 0 : group->last_step,
        group == nullptr ? 0 : group->request.epoch);
  }
  RETURN_IF_ERROR(group->CheckAlive());
  const Micros start = MonotonicClock().Now();
  CommunicatorTimes before;
  for (const auto& comm : group->comms) {
    before.total_us -= comm->times().total_us;
    before.wait_us -= comm->times().wait_us;
  }
  ResolvedStep step;
  RETURN_IF_ERROR(group->slots->Resolve(plan, step));
  for (const SlotStart& start : plan.slot_starts) {
    if (start.adapter == kNoAdapter || group->adapters->Has(start.adapter)) {
      continue;
    }
    return InvalidArgument(
        "step {}: slot {} starts with adapter {}, which is "
        "not loaded",
        plan.step, start.slot, start.adapter);
  }
  Decoder& decoder = *group->decoder;
  RETURN_IF_ERROR(decoder.Forward(plan, step));
  StepResult result{.epoch = plan.epoch, .step = plan.step};
  Communicator& world = group->comm(GroupKind::kWorld);
  ASSIGN_OR_RETURN(result.scores,
                   ScoreStep(
                       step, group->limits.max_sequences,
                       [&decoder](std::span<const int32_t> rows) {
                         return decoder.Logits(rows);
                       },
                       *group->backend, world, *group->slots));
  ASSIGN_OR_RETURN(const ConstTensorView logits,
                   decoder.Logits(step.sample_rows));
  ASSIGN_OR_RETURN(result.tokens, SampleStep(step, logits, *group->backend,
                                             world, *group->slots));
  group->last_step = plan.step;
  result.timings.communication_us = before.total_us;
  result.timings.wait_us = before.wait_us;
  for (const auto& comm : group->comms) {
    result.timings.communication_us += comm->times().total_us;
    result.timings.wait_us += comm->times().wait_us;
  }
  result.timings.total_us = MonotonicClock().Now() - start;
  return result;
}

absl::StatusOr<AdapterLoaded> Worker::Load(const LoadAdapter& request) {
  Group* group = group_.get();
  if (group == nullptr || group->decoder == nullptr ||
      request.epoch != group->request.epoch) {
    return FailedPrecondition("an adapter of epoch {} came in epoch {}",
                              request.epoch,
                              group == nullptr ? 0 : group->request.epoch);
  }
  AdapterLoaded answer{.epoch = request.epoch,
                       .index = request.index,
                       .load_number = request.load_number};
  if (group->adapters == nullptr) {
    answer.status = FailedPrecondition(
        "the group has no room for adapters; start the coordinator with "
        "--adapters");
    return answer;
  }
  answer.status = group->adapters->Unload(request.index);
  if (!answer.status.ok() || request.directory.empty()) return answer;
  const absl::StatusOr<std::unique_ptr<Adapter>> adapter =
      Adapter::Open(request.directory, model_->config);
  answer.status = adapter.ok() ? group->adapters->Load(request.index, **adapter)
                               : Annotate(adapter.status(), request.directory);
  if (answer.status.ok()) answer.content_hash = (*adapter)->content_hash();
  return answer;
}

SumCounts Worker::sum_counts() const { return group_->decoder->sum_counts(); }

int64_t Worker::num_pieces_of_other_threads() const {
  return group_->backend->num_pieces_of_other_threads();
}

void Worker::Abort(const std::string& reason) {
  std::shared_ptr<Group> group;
  {
    MutexLock lock(mutex_);
    group = group_;
  }
  if (group != nullptr) group->Abort(reason);
}

absl::StatusOr<std::string> ResolvedCpuPath(CpuPath path) {
  for (const std::string_view name : kCpuPaths) {
    ASSIGN_OR_RETURN(const CpuPath named, ParseCpuPath(std::string(name)));
    if (path != CpuPath::kAuto && path != named) continue;
    const absl::Status status = MakeCpuBackend({.path = named}).status();
    if (status.ok()) return std::string(name);
    if (path != CpuPath::kAuto) return status;
  }
  return FailedPrecondition("this CPU can run no path of the CPU backend");
}

}  // namespace witan
