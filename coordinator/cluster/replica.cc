#include "coordinator/cluster/replica.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <variant>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

constexpr Micros Millis(int64_t ms) { return ms * kMicrosPerMilli; }

// The step that every group runs before it serves: a few tokens that every
// vocabulary has, greedy, with its logprob.
StepPlan KnownAnswerStep(Epoch epoch, const ModelConfig& model,
                         const EngineLimits& limits) {
  const int64_t num_rows = std::min<int64_t>(
      {8, kBlockTokens, limits.max_step_tokens, limits.max_context_tokens});
  StepPlan plan;
  plan.epoch = epoch;
  plan.step = 1;
  SlotStart start;
  start.sampling.temperature = 0;
  start.sampling.num_top_logprobs = 0;
  start.num_prompt_tokens = static_cast<int32_t>(num_rows);
  plan.slot_starts = {start};
  for (int64_t row = 0; row < num_rows; ++row) {
    plan.token_ids.push_back(static_cast<TokenId>(7 * row % model.vocab_size));
  }
  plan.row_begin = {0, static_cast<int32_t>(num_rows)};
  plan.slots = {0};
  plan.first_positions = {0};
  plan.samples = {1};
  plan.new_block_begin = {0, 1};
  plan.new_block_ids = {kNullBlock + 1};
  return plan;
}

}  // namespace

Replica::Replica(ReplicaOptions options)
    : options_(std::move(options)),
      membership_({options_.build_id, options_.model_directory}) {}

Replica::~Replica() = default;

// --- Workers -----------------------------------------------------------------

void Replica::OnConnected(WorkerId worker, Micros now) {
  membership_.OnConnected(worker, now);
}

void Replica::OnMessage(WorkerId worker, WorkerMessage message, Micros now) {
  if (!std::holds_alternative<RegisterWorker>(message) &&
      !membership_.OnHeard(worker, now)) {
    outputs_.push_back(CloseWorker{
        worker, FailedPrecondition("worker {} is not registered (any more); "
                                   "connect and register again",
                                   worker)});
    return;
  }
  std::visit(
      [&](auto& alternative) { Handle(worker, std::move(alternative), now); },
      message);
}

void Replica::OnClosed(WorkerId worker, const std::string& cause, Micros now) {
  OnWorkerLost(worker, cause, now);
}

void Replica::ReleaseSpare(Micros now) {
  if (state_ == ReplicaState::kWaitingForWorkers) return;
  const std::vector<WorkerInfo> idle = membership_.Idle();
  if (idle.empty()) return;
  const WorkerId worker = idle.back().id;
  outputs_.push_back(CloseWorker{
      worker, Unavailable("another replica lacks a worker; connect again")});
  OnWorkerLost(worker, "sent to another replica", now);
}

void Replica::Handle(WorkerId worker, RegisterWorker message, Micros now) {
  const absl::Status status = membership_.Register(worker, message, now);
  if (!status.ok()) {
    outputs_.push_back(CloseWorker{worker, status});
    return;
  }
  outputs_.push_back(SendMessage{{worker}, WorkerAccepted{worker}});
  // A new worker may be the remedy.
  retry_at_.reset();
}

void Replica::Handle(WorkerId worker, LoadProgress message, Micros) {
  if (const std::optional<int> rank = RankOf(worker, message.epoch)) {
    ranks_[*rank].progress = message;
  }
}

void Replica::Handle(WorkerId worker, GroupPrepared message, Micros now) {
  const std::optional<int> rank = RankOf(worker, message.epoch);
  if (!rank || state_ != ReplicaState::kPreparing) return;
  ranks_[*rank].prepared = std::move(message);
  for (const Rank& other : ranks_) {
    if (!other.prepared) return;
  }
  const absl::Status status = CheckIdentity();  // blames whom it can
  if (!status.ok()) {
    FailGroup(std::string(MessageOf(status)), now);
    return;
  }
  StartConnecting(now);
}

void Replica::Handle(WorkerId worker, GroupConnected message, Micros now) {
  const std::optional<int> rank = RankOf(worker, message.epoch);
  if (!rank || state_ != ReplicaState::kConnecting) return;
  ranks_[*rank].connected = true;
  for (const Rank& other : ranks_) {
    if (!other.connected) return;
  }
  StartKnownAnswer(now);
}

void Replica::Handle(WorkerId worker, StepResult message, Micros now) {
  const std::optional<int> rank = RankOf(worker, message.epoch);
  if (!rank) return;
  const StepNumber expected = ranks_[*rank].last_step + 1;
  if (message.step != expected) {
    BlameRank(*rank);
    FailGroup(fmt::format("{} answered step {} where step {} was expected",
                          RankName(*rank), message.step, expected),
              now);
    return;
  }
  if (steps_in_flight_.empty() || message.step > steps_in_flight_.back().step) {
    BlameRank(*rank);
    FailGroup(fmt::format("{} answered step {}, which was not sent",
                          RankName(*rank), message.step),
              now);
    return;
  }
  ranks_[*rank].last_step = message.step;
  ranks_[*rank].timings = message.timings;
  StepInFlight& step =
      steps_in_flight_[message.step - steps_in_flight_.front().step];
  ++step.num_answers;
  step.timings[*rank] = message.timings;
  if (*rank == 0) step.result = std::move(message);
  // A rank answers in order, so the oldest step is complete first.
  if (step.num_answers == static_cast<int>(ranks_.size())) {
    FinishOldestStep(now);
  }
}

void Replica::Handle(WorkerId worker, GroupFailed message, Micros now) {
  const std::optional<int> rank = RankOf(worker, message.epoch);
  if (!rank) return;
  // Loading is a rank's own affair; later a healthy one may be the first to
  // say that another one is not.
  if (state_ == ReplicaState::kPreparing) {
    BlameRank(*rank);
  } else {
    BlameAllRanks();
  }
  FailGroup(
      fmt::format("{} failed: {}", RankName(*rank), MessageOf(message.reason)),
      now);
}

std::optional<int> Replica::RankOf(WorkerId worker, Epoch epoch) const {
  const WorkerInfo* info = membership_.Find(worker);
  if (info == nullptr || info->state != WorkerState::kAssigned ||
      epoch != epoch_) {
    return std::nullopt;
  }
  return info->rank;
}

std::string Replica::RankName(int rank) const {
  return membership_.Find(group_.workers[rank])->Name();
}

// --- Groups ------------------------------------------------------------------

void Replica::FormGroupIfPossible(Micros now) {
  if (state_ != ReplicaState::kWaitingForWorkers) return;
  if (retry_at_ && now < *retry_at_) return;
  retry_at_.reset();
  absl::StatusOr<GroupPlan> plan = PlanGroup(
      options_.model, options_.layout, options_.planner, membership_.Idle());
  if (plan.ok()) {
    StartGroup(*std::move(plan), now);
  } else if (!absl::IsUnavailable(plan.status())) {
    last_error_ = std::string(MessageOf(plan.status()));
  }
}

void Replica::StartGroup(GroupPlan plan, Micros now) {
  ++epoch_;
  group_ = std::move(plan);
  ranks_.assign(group_.workers.size(), Rank());
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    membership_.Assign(group_.workers[rank], epoch_,
                       static_cast<int32_t>(rank));
    PrepareGroup prepare;
    prepare.epoch = epoch_;
    prepare.rank = static_cast<int32_t>(rank);
    prepare.tp = options_.layout.tp;
    prepare.ep = options_.layout.ep;
    prepare.model_directory = options_.model_directory;
    prepare.transport = group_.transport;
    prepare.num_threads = group_.num_threads[rank];
    prepare.max_context_tokens = group_.limits.max_context_tokens;
    prepare.max_step_tokens = group_.limits.max_step_tokens;
    prepare.max_sequences = group_.limits.max_sequences;
    prepare.num_blocks = group_.limits.num_blocks;
    prepare.max_adapters = group_.limits.max_adapters;
    prepare.max_adapter_rank = group_.limits.max_adapter_rank;
    prepare.one_shot_max_bytes = options_.planner.one_shot_max_bytes;
    outputs_.push_back(SendMessage{{group_.workers[rank]}, std::move(prepare)});
  }
  state_ = ReplicaState::kPreparing;
  state_deadline_ = now + Millis(kLoadTimeoutMs);
}

void Replica::StartConnecting(Micros now) {
  ConnectGroup connect;
  connect.epoch = epoch_;
  for (const Rank& rank : ranks_) {
    connect.endpoints.push_back(rank.prepared->endpoints);
  }
  SendToRanks(std::move(connect));
  state_ = ReplicaState::kConnecting;
  state_deadline_ = now + Millis(kRendezvousTimeoutMs);
}

void Replica::StartKnownAnswer(Micros now) {
  state_ = ReplicaState::kKnownAnswer;
  SendStep(KnownAnswerStep(epoch_, options_.model, group_.limits), now);
}

void Replica::StartServing() {
  SchedulerOptions options;
  options.max_step_tokens = group_.limits.max_step_tokens;
  options.max_prefill_chunk_tokens = options_.max_prefill_chunk_tokens > 0
                                         ? options_.max_prefill_chunk_tokens
                                         : group_.limits.max_step_tokens;
  options.max_sequences = group_.limits.max_sequences;
  options.num_blocks = group_.limits.num_blocks;
  options.max_context_tokens = group_.limits.max_context_tokens;
  options.max_prefill_tokens_beside_decode =
      options_.max_prefill_tokens_beside_decode;
  options.prefix_cache = options_.prefix_cache;
  options.identity = {
      weights_id_, numerics_id_,
      LongRopeFirstRow(options_.model, group_.limits.max_context_tokens)};
  options.look_ahead = options_.look_ahead;
  scheduler_ = std::make_unique<Scheduler>(options, epoch_, /*first_step=*/2);
  state_ = ReplicaState::kServing;
  for (const WorkerId worker : group_.workers) membership_.OnServing(worker);
  retry_pause_us_ = 0;
  last_error_.clear();
  SendAdapters();
}

void Replica::OnWorkerLost(WorkerId worker, const std::string& cause,
                           Micros now) {
  const WorkerInfo* info = membership_.Find(worker);
  const bool in_group =
      info != nullptr && info->state == WorkerState::kAssigned;
  const std::string name = info != nullptr ? info->Name() : "";
  membership_.OnLost(worker, cause);
  if (in_group) FailGroup(fmt::format("{} went away: {}", name, cause), now);
}

void Replica::BlameRank(int rank) {
  if (state_ == ReplicaState::kServing) return;
  membership_.OnFailedStart(group_.workers[rank]);
}

void Replica::BlameAllRanks() {
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    BlameRank(static_cast<int>(rank));
  }
}

void Replica::FailGroup(const std::string& reason, Micros now) {
  if (state_ == ReplicaState::kWaitingForWorkers) return;
  AbortGroup abort{epoch_, reason};
  SendToRanks(std::move(abort));
  if (state_ == ReplicaState::kServing) {
    retry_at_.reset();
  } else {
    retry_pause_us_ =
        std::clamp(2 * retry_pause_us_, Millis(kMinRegroupPauseMs),
                   Millis(kMaxRegroupPauseMs));
    retry_at_ = now + retry_pause_us_;
  }
  state_ = ReplicaState::kWaitingForWorkers;
  last_error_ = reason;
  ++num_group_failures_;
  ranks_.clear();
  group_ = GroupPlan();
  steps_in_flight_.clear();
  membership_.ReleaseAll();
  if (scheduler_ != nullptr) {
    scheduler_->FinishAll(Unavailable("{}; try again", reason), now);
    DeliverEvents(now);
    past_counters_.AddCounters(scheduler_->stats());
    scheduler_.reset();
  }
}

void Replica::SendToRanks(CoordinatorMessage message) {
  SendMessage send;
  for (const WorkerId worker : group_.workers) {
    if (membership_.Find(worker) != nullptr) send.workers.push_back(worker);
  }
  send.message = std::move(message);
  if (!send.workers.empty()) outputs_.push_back(std::move(send));
}

// --- Steps -------------------------------------------------------------------

void Replica::SendStep(StepPlan plan, Micros now) {
  if (steps_in_flight_.empty()) state_deadline_ = now + Millis(kStepTimeoutMs);
  StepInFlight& step = steps_in_flight_.emplace_back();
  step.step = plan.step;
  step.sent_at = now;
  step.num_sequences = plan.num_sequences();
  step.num_rows = plan.num_rows();
  step.timings.resize(ranks_.size());
  SendToRanks(std::move(plan));
}

void Replica::FinishOldestStep(Micros now) {
  StepInFlight step = std::move(steps_in_flight_.front());
  steps_in_flight_.pop_front();
  StepResult result = std::move(step.result);
  const Micros began_at = std::max(step.sent_at, last_step_ended_at_);
  last_step_ended_at_ = now;
  // The next one could not begin before this one ended.
  state_deadline_ = now + Millis(kStepTimeoutMs);
  const absl::Status status = state_ == ReplicaState::kKnownAnswer
                                  ? CheckKnownAnswer(result)
                                  : ApplyResult(std::move(result), now);
  if (!status.ok()) {
    BlameAllRanks();
    FailGroup(fmt::format("{}: {}", RankName(0), MessageOf(status)), now);
  } else if (state_ == ReplicaState::kKnownAnswer) {
    StartServing();
  } else {
    RecordStep(std::move(step), began_at, now);
  }
}

void Replica::RecordStep(StepInFlight step, Micros began_at, Micros now) {
  StepTimeTotals sum;
  int64_t longest_us = 0;
  for (StepTimings& timings : step.timings) {
    // A rank may say anything.
    timings.total_us = std::min(timings.total_us, now - began_at);
    timings.communication_us =
        std::min(timings.communication_us, timings.total_us);
    timings.wait_us = std::min(timings.wait_us, timings.communication_us);
    longest_us = std::max(longest_us, timings.total_us);
    sum.compute_us += timings.total_us - timings.communication_us;
    sum.communication_us += timings.communication_us - timings.wait_us;
    sum.wait_us += timings.wait_us;
  }
  const int64_t num_ranks = static_cast<int64_t>(step.timings.size());
  step_time_.compute_us += sum.compute_us / num_ranks;
  step_time_.communication_us += sum.communication_us / num_ranks;
  step_time_.wait_us += sum.wait_us / num_ranks;
  step_time_.coordinator_us +=
      std::max<int64_t>(0, now - began_at - longest_us);
  if (options_.observer == nullptr) return;
  StepRecord record;
  record.epoch = epoch_;
  record.step = step.step;
  record.began_at = began_at;
  record.ended_at = now;
  record.num_sequences = step.num_sequences;
  record.num_rows = step.num_rows;
  record.ranks = std::move(step.timings);
  const SchedulerStats stats = scheduler_->stats();
  record.num_running = stats.num_running;
  record.num_waiting = stats.num_waiting;
  options_.observer->OnStep(record);
}

absl::Status Replica::ApplyResult(StepResult result, Micros now) {
  for (const SampledToken& token : result.tokens) {
    if (token.token_id < 0 || token.token_id >= options_.model.vocab_size) {
      return Internal("step {} brought token {} of a vocabulary of {}",
                      result.step, token.token_id, options_.model.vocab_size);
    }
  }
  RETURN_IF_ERROR(scheduler_->Apply(std::move(result), now));
  DeliverEvents(now);
  return absl::OkStatus();
}

void Replica::DeliverEvents(Micros now) {
  // A sink that stops its sequence or forces a token makes further events.
  for (std::vector<SchedulerEvent> events = scheduler_->TakeEvents();
       !events.empty(); events = scheduler_->TakeEvents()) {
    for (SchedulerEvent& event : events) {
      if (const auto* token = std::get_if<TokenEvent>(&event)) {
        LiveSequence& live = live_.at(token->id);
        if (!live.sink->OnToken(token->index, token->token)) {
          live.stopped_by_sink = true;
          scheduler_->Finish(token->id, FinishReason::kStop, now);
        } else {
          ForceNextToken(token->id, now);
        }
        continue;
      }
      if (auto* scored = std::get_if<PromptScoresEvent>(&event)) {
        live_.at(scored->id)
            .sink->OnPromptScores(scored->first_index,
                                  std::move(scored->scores));
        continue;
      }
      FinishEvent& finish = std::get<FinishEvent>(event);
      const auto it = live_.find(finish.id);
      LiveSequence live = std::move(it->second);
      live_.erase(it);
      // The stop string may have come with what was the last token anyway.
      if (live.stopped_by_sink) finish.reason = FinishReason::kStop;
      if (options_.observer != nullptr) {
        options_.observer->OnSequenceEnded(finish.id, finish.usage, now);
      }
      live.sink->OnFinished(std::move(finish.reason), finish.usage);
    }
  }
}

void Replica::ForceNextToken(SequenceId id, Micros now) {
  const std::optional<TokenId> token = live_.at(id).sink->NextForcedToken();
  if (token) scheduler_->Force(id, *token, now);
}

void Replica::PlanSteps(Micros now) {
  if (state_ != ReplicaState::kServing) return;
  while (std::optional<StepPlan> plan = scheduler_->Plan(now)) {
    SendStep(*std::move(plan), now);
  }
  DeliverEvents(now);  // of deadlines
}

// --- Requests and time -------------------------------------------------------

void Replica::Submit(SequenceSpec spec, std::unique_ptr<TokenSink> sink,
                     Micros now) {
  const SequenceId id = spec.id;
  SequenceUsage usage;
  usage.num_prompt_tokens = static_cast<int64_t>(spec.prompt.size());
  absl::Status status = state_ == ReplicaState::kServing
                            ? CheckAdapter(spec.adapter)
                            : Unavailable("{}; try again", NotServingReason());
  if (!status.ok() && !absl::IsUnavailable(status)) {
    // The request is not to blame for what a rank found.
    status =
        FailedPrecondition("the adapter cannot be used: {}", MessageOf(status));
  }
  if (status.ok()) status = scheduler_->Add(std::move(spec), now);
  if (!status.ok()) {
    sink->OnFinished(status, usage);
    return;
  }
  live_.emplace(id, LiveSequence{std::move(sink), false});
  ForceNextToken(id, now);
  DeliverEvents(now);
}

void Replica::Cancel(SequenceId id, Micros now) {
  if (scheduler_ != nullptr &&
      scheduler_->Finish(id, FinishReason::kCancelled, now)) {
    DeliverEvents(now);
  }
}

void Replica::Pause(SequenceId id) {
  if (scheduler_ != nullptr) scheduler_->Pause(id);
}

void Replica::Resume(SequenceId id) {
  if (scheduler_ != nullptr) scheduler_->Resume(id);
}

void Replica::Tick(Micros now) {
  if (now - announced_tick_ > Millis(kMaxTickDelayMs)) {
    no_expiry_before_ = now + Millis(kWorkerTimeoutMs);
  }
  last_tick_ = now;
  if (now >= no_expiry_before_) {
    ExpireWorkers(now);
    CheckStateDeadline(now);
  }
  FormGroupIfPossible(now);
  PlanSteps(now);
  announced_tick_ = NextWakeup();
}

void Replica::Shutdown(const std::string& reason, Micros now) {
  FailGroup(reason, now);
  std::vector<WorkerId> workers =
      membership_.Unregistered(std::numeric_limits<Micros>::max());
  for (const WorkerInfo& worker : membership_.Members()) {
    workers.push_back(worker.id);
  }
  for (const WorkerId worker : workers) {
    outputs_.push_back(CloseWorker{worker, Unavailable("{}", reason)});
    membership_.OnLost(worker, reason);
  }
}

void Replica::ExpireWorkers(Micros now) {
  for (const WorkerId worker : membership_.Unregistered(now)) {
    const std::string cause = fmt::format("did not register within {} s",
                                          kRegistrationTimeoutMs / 1000);
    outputs_.push_back(
        CloseWorker{worker, DeadlineExceeded("the worker {}", cause)});
    OnWorkerLost(worker, cause, now);
  }
  for (const WorkerId worker : membership_.Expired(now)) {
    const std::string cause =
        fmt::format("no message for {} s", kWorkerTimeoutMs / 1000);
    outputs_.push_back(CloseWorker{
        worker, Unavailable("worker {} was given up: {}", worker, cause)});
    OnWorkerLost(worker, cause, now);
  }
}

bool Replica::HasStateDeadline() const {
  return state_ == ReplicaState::kPreparing ||
         state_ == ReplicaState::kConnecting || !steps_in_flight_.empty();
}

void Replica::CheckStateDeadline(Micros now) {
  if (!HasStateDeadline() || now < state_deadline_) return;
  std::string late_ranks;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    const Rank& r = ranks_[rank];
    const bool is_late = state_ == ReplicaState::kPreparing ? !r.prepared
                         : state_ == ReplicaState::kConnecting
                             ? !r.connected
                             : r.last_step < steps_in_flight_.front().step;
    if (!is_late) continue;
    BlameRank(static_cast<int>(rank));
    if (!late_ranks.empty()) late_ranks += " and ";
    late_ranks += RankName(static_cast<int>(rank));
  }
  std::string what;
  if (state_ == ReplicaState::kPreparing) {
    what = fmt::format("load its shard within {} s", kLoadTimeoutMs / 1000);
  } else if (state_ == ReplicaState::kConnecting) {
    what = fmt::format("connect to the other ranks within {} s",
                       kRendezvousTimeoutMs / 1000);
  } else {
    what = fmt::format("answer step {} within {} s",
                       steps_in_flight_.front().step, kStepTimeoutMs / 1000);
  }
  FailGroup(fmt::format("{} did not {}", late_ranks, what), now);
}

// --- Outputs -----------------------------------------------------------------

std::vector<ReplicaOutput> Replica::TakeOutputs() {
  return std::exchange(outputs_, {});
}

Micros Replica::NextExpiry() const {
  Micros expiry = membership_.NextExpiry();
  if (HasStateDeadline()) expiry = std::min(expiry, state_deadline_);
  return std::max(expiry, no_expiry_before_);
}

Micros Replica::NextWakeup() const {
  // A tick some time before something is late: without it, a pause that ends
  // just when that happens would look like a tick in time.
  Micros wakeup = NextExpiry();
  if (wakeup != std::numeric_limits<Micros>::max()) {
    const Micros look = wakeup - Millis(2 * kMaxTickDelayMs);
    if (last_tick_ < look) wakeup = look;
  }
  if (retry_at_) wakeup = std::min(wakeup, *retry_at_);
  if (scheduler_ != nullptr) {
    wakeup = std::min(wakeup, scheduler_->NextDeadline().value_or(wakeup));
  }
  return wakeup;
}

}  // namespace witan
