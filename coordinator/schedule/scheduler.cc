#include "coordinator/schedule/scheduler.h"

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

int64_t BlocksFor(int64_t num_positions) {
  return (num_positions + kBlockTokens - 1) / kBlockTokens;
}

// The last token made is never fed back, so it needs no position.
int64_t MaxPositions(int64_t num_prompt_tokens, const StopRules& stop) {
  return num_prompt_tokens + stop.max_tokens - 1;
}

// Its whole prompt is behind it, or will be once the step in flight is done.
bool WantsDecodeRow(const Sequence& sequence) {
  const int64_t position = sequence.num_planned_tokens;
  if (position == sequence.num_tokens()) {  // token still being sampled
    return sequence.num_samples_in_flight == 1 &&
           sequence.num_output_tokens() + 1 < sequence.spec.stop.max_tokens;
  }
  return position + 1 == sequence.num_tokens() &&
         sequence.num_output_tokens() > 0;
}

bool WantsPrefillRows(const Sequence& sequence) {
  return sequence.num_planned_tokens < sequence.num_tokens() &&
         !WantsDecodeRow(sequence);
}

}  // namespace

void SchedulerStats::AddCounters(const SchedulerStats& other) {
  num_steps += other.num_steps;
  num_look_ahead_steps += other.num_look_ahead_steps;
  num_decode_rows += other.num_decode_rows;
  num_prefill_rows += other.num_prefill_rows;
  num_discarded_rows += other.num_discarded_rows;
  num_preemptions += other.num_preemptions;
  num_finished += other.num_finished;
}

Scheduler::Scheduler(const SchedulerOptions& options, Epoch epoch,
                     StepNumber first_step)
    : options_(options),
      epoch_(epoch),
      next_step_(first_step),
      blocks_(options.num_blocks) {
  WITAN_CHECK(
      options.max_step_tokens >= 1 && options.max_step_tokens <= kMaxStepTokens,
      "max_step_tokens is {}", options.max_step_tokens);
  WITAN_CHECK(options.max_prefill_chunk_tokens >= 1,
              "max_prefill_chunk_tokens is {}",
              options.max_prefill_chunk_tokens);
  WITAN_CHECK(
      options.max_sequences >= 1 && options.max_sequences <= kMaxStepSequences,
      "max_sequences is {}", options.max_sequences);
  WITAN_CHECK(options.num_blocks >= 2 && options.num_blocks <= kMaxBlocks,
              "num_blocks is {}", options.num_blocks);
  for (int64_t slot = options.max_sequences - 1; slot >= 0; --slot) {
    free_slots_.push_back(static_cast<int32_t>(slot));
  }
}

absl::Status Scheduler::Add(SequenceSpec spec, Micros now) {
  const int64_t num_prompt = static_cast<int64_t>(spec.prompt.size());
  const int64_t max_tokens = spec.stop.max_tokens;
  if (num_prompt < 1) return InvalidArgument("the prompt has no tokens");
  if (max_tokens < 1 || max_tokens > options_.max_context_tokens - num_prompt) {
    return InvalidArgument(
        "the prompt has {} tokens and max_tokens is {}, together more than the "
        "context of {} tokens; max_tokens may be 1 to {} here",
        num_prompt, max_tokens, options_.max_context_tokens,
        std::max<int64_t>(0, options_.max_context_tokens - num_prompt));
  }
  const int64_t num_needed = BlocksFor(MaxPositions(num_prompt, spec.stop));
  if (num_needed > blocks_.capacity()) {
    return InvalidArgument(
        "a prompt of {} tokens with max_tokens {} needs {} KV blocks of {} "
        "tokens, and the whole cache has {}; shorten one of them",
        num_prompt, max_tokens, num_needed, kBlockTokens, blocks_.capacity());
  }
  if (waiting_.size() >= static_cast<size_t>(kMaxWaitingSequences)) {
    return ResourceExhausted(
        "{} sequences are waiting already, the most there "
        "may be; try again later",
        waiting_.size());
  }
  const SequenceId id = spec.id;
  auto [it, inserted] = sequences_.try_emplace(id);
  if (!inserted) return AlreadyExists("sequence {} exists", id);
  it->second = std::make_unique<Sequence>();
  Sequence& sequence = *it->second;
  sequence.tokens = std::move(spec.prompt);
  sequence.spec = std::move(spec);
  sequence.num_prompt_tokens = num_prompt;
  sequence.arrival = next_arrival_++;
  sequence.added_at = now;
  if (sequence.spec.deadline) deadlines_.insert({*sequence.spec.deadline, id});
  waiting_.emplace(sequence.arrival, &sequence);
  return absl::OkStatus();
}

bool Scheduler::Finish(SequenceId id, FinishReason reason, Micros now) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end() || it->second->state == SequenceState::kFinished) {
    return false;
  }
  Sequence& sequence = *it->second;
  FinishSequence(sequence, reason, now);
  EraseIfOver(sequence);
  return true;
}

void Scheduler::FinishAll(const absl::Status& error, Micros now) {
  // All that run arrived before all that wait.
  for (ByArrival* sequences : {&running_, &waiting_}) {
    while (!sequences->empty()) {
      Sequence& sequence = *sequences->begin()->second;
      FinishSequence(sequence, error, now);
      EraseIfOver(sequence);
    }
  }
}

void Scheduler::ExpireDeadlines(Micros now) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Sequence& sequence = *sequences_.at(deadlines_.begin()->second);
    FinishSequence(
        sequence,
        DeadlineExceeded("the deadline passed after {} of at most {} tokens",
                         sequence.num_output_tokens(),
                         sequence.spec.stop.max_tokens),
        now);
    EraseIfOver(sequence);
  }
}

// --- Plan --------------------------------------------------------------------

std::optional<StepPlan> Scheduler::Plan(Micros now) {
  ExpireDeadlines(now);
  const size_t max_in_flight = options_.look_ahead ? 1 + kMaxLookAheadSteps : 1;
  if (in_flight_.size() >= max_in_flight) return std::nullopt;

  Draft draft;
  draft.now = now;
  draft.plan.epoch = epoch_;
  draft.plan.step = next_step_;
  draft.plan.row_begin.push_back(0);
  draft.plan.new_block_begin.push_back(0);
  PlanRunning(draft);
  PlanAdmissions(draft);
  if (draft.plan.num_sequences() == 0) return std::nullopt;

  draft.step.step = next_step_++;
  ++counters_.num_steps;
  if (!in_flight_.empty()) ++counters_.num_look_ahead_steps;
  in_flight_.push_back(std::move(draft.step));
  return std::move(draft.plan);
}

int64_t Scheduler::NumAvailableBlocks() const {
  return blocks_.num_free() - num_reserved_blocks_;
}

int64_t Scheduler::NumRowsLeft(const Draft& draft) const {
  return options_.max_step_tokens - draft.plan.num_rows();
}

void Scheduler::PlanRunning(Draft& draft) {
  // Preemption strikes what is newer than the row at hand, so those noted here
  // keep running.
  std::vector<Sequence*> prefills;
  for (auto it = running_.begin(); it != running_.end(); ++it) {
    if (NumRowsLeft(draft) == 0) return;
    Sequence& sequence = *it->second;
    if (WantsPrefillRows(sequence)) {
      prefills.push_back(&sequence);
    } else if (WantsDecodeRow(sequence) && MakeRoomForDecodeRow(sequence)) {
      AppendRows(sequence, 1, draft);
      ++counters_.num_decode_rows;
    }
  }
  for (Sequence* sequence : prefills) {
    if (NumRowsLeft(draft) == 0) return;
    AppendPrefillRows(*sequence, draft);
  }
}

void Scheduler::PlanAdmissions(Draft& draft) {
  while (!waiting_.empty() && !free_slots_.empty() && NumRowsLeft(draft) > 0) {
    Sequence& sequence = *waiting_.begin()->second;
    // Preempted, and a step in flight may still bring a token of it.
    if (sequence.num_steps_in_flight > 0) return;
    // One position more than it has, so that it does not come only to be
    // preempted by its own first token.
    const int64_t num_positions =
        std::min(sequence.num_tokens() + 1,
                 MaxPositions(sequence.num_prompt_tokens, sequence.spec.stop));
    if (BlocksFor(num_positions) > NumAvailableBlocks()) return;
    Admit(sequence, draft);
  }
}

void Scheduler::Admit(Sequence& sequence, Draft& draft) {
  waiting_.erase(sequence.arrival);
  running_.emplace(sequence.arrival, &sequence);
  sequence.state = SequenceState::kRunning;
  sequence.slot = free_slots_.back();
  free_slots_.pop_back();
  sequence.num_reserved_blocks = BlocksFor(sequence.num_tokens());
  num_reserved_blocks_ += sequence.num_reserved_blocks;
  if (!sequence.first_planned_at) sequence.first_planned_at = draft.now;

  SlotStart start;
  start.slot = sequence.slot;
  start.choice = sequence.spec.choice;
  start.sampling = sequence.spec.sampling;
  if (start.sampling.uses_penalties()) start.history = sequence.tokens;
  start.num_prompt_tokens = static_cast<int32_t>(sequence.num_prompt_tokens);
  draft.plan.slot_starts.push_back(std::move(start));
  AppendPrefillRows(sequence, draft);
}

void Scheduler::AppendPrefillRows(Sequence& sequence, Draft& draft) {
  const int64_t num_rows =
      std::min({sequence.num_tokens() - sequence.num_planned_tokens,
                options_.max_prefill_chunk_tokens, NumRowsLeft(draft)});
  AppendRows(sequence, num_rows, draft);
  counters_.num_prefill_rows += num_rows;
}

void Scheduler::AppendRows(Sequence& sequence, int64_t num_rows, Draft& draft) {
  StepPlan& plan = draft.plan;
  const int64_t begin = sequence.num_planned_tokens;
  const int64_t end = begin + num_rows;
  plan.slots.push_back(sequence.slot);
  plan.first_positions.push_back(static_cast<int32_t>(begin));
  for (int64_t position = begin; position < end; ++position) {
    plan.token_ids.push_back(position < sequence.num_tokens()
                                 ? sequence.tokens[position]
                                 : kTokenOfPreviousStep);
  }
  plan.row_begin.push_back(plan.num_rows());

  int64_t num_new_blocks =
      BlocksFor(end) - static_cast<int64_t>(sequence.block_table.size());
  const int64_t num_from_reserve =
      std::min(num_new_blocks, sequence.num_reserved_blocks);
  sequence.num_reserved_blocks -= num_from_reserve;
  num_reserved_blocks_ -= num_from_reserve;
  for (; num_new_blocks > 0; --num_new_blocks) {
    const std::optional<int32_t> block = blocks_.Allocate();
    WITAN_CHECK(block.has_value(), "no block for sequence {}",
                sequence.spec.id);
    sequence.block_table.push_back(*block);
    plan.new_block_ids.push_back(*block);
  }
  plan.new_block_begin.push_back(
      static_cast<int32_t>(plan.new_block_ids.size()));

  const bool samples = end >= sequence.num_tokens();
  plan.samples.push_back(samples ? 1 : 0);
  draft.step.sequences.push_back({&sequence, num_rows, samples});
  draft.step.num_samples += samples ? 1 : 0;
  sequence.num_planned_tokens = end;
  ++sequence.num_steps_in_flight;
  sequence.num_samples_in_flight += samples ? 1 : 0;
}

bool Scheduler::MakeRoomForDecodeRow(const Sequence& sequence) {
  const int64_t num_blocks = static_cast<int64_t>(sequence.block_table.size()) +
                             sequence.num_reserved_blocks;
  if (BlocksFor(sequence.num_planned_tokens + 1) <= num_blocks) return true;
  while (NumAvailableBlocks() == 0) {
    Sequence& newest = *running_.rbegin()->second;
    if (num_draining_blocks_ > 0 || &newest == &sequence) return false;
    Preempt(newest);
  }
  return true;
}

void Scheduler::Preempt(Sequence& sequence) {
  ++counters_.num_preemptions;
  ++sequence.num_preemptions;
  running_.erase(sequence.arrival);
  waiting_.emplace(sequence.arrival, &sequence);
  sequence.state = SequenceState::kWaiting;
  StartDraining(sequence);
}

// --- Apply -------------------------------------------------------------------

absl::Status Scheduler::Apply(StepResult result, Micros now) {
  if (in_flight_.empty()) {
    return Internal("a result of step {} came, and no step is in flight",
                    result.step);
  }
  const PlannedStep& expected = in_flight_.front();
  if (result.epoch != epoch_ || result.step != expected.step) {
    return Internal(
        "a result of step {} of epoch {} came instead of step {} "
        "of epoch {}",
        result.step, result.epoch, expected.step, epoch_);
  }
  if (static_cast<int>(result.tokens.size()) != expected.num_samples) {
    return Internal("step {} brought {} tokens instead of {}", result.step,
                    result.tokens.size(), expected.num_samples);
  }
  const PlannedStep step = std::move(in_flight_.front());
  in_flight_.pop_front();
  size_t next_token = 0;
  for (const PlannedRows& rows : step.sequences) {
    Sequence& sequence = *rows.sequence;
    --sequence.num_steps_in_flight;
    if (rows.samples) --sequence.num_samples_in_flight;
    if (sequence.state == SequenceState::kFinished) {
      counters_.num_discarded_rows += rows.num_rows;
    } else if (rows.samples) {
      ApplyToken(sequence, std::move(result.tokens[next_token]), now);
    }
    if (rows.samples) ++next_token;
    ReleaseIfDrained(sequence);
    EraseIfOver(sequence);
  }
  return absl::OkStatus();
}

void Scheduler::ApplyToken(Sequence& sequence, SampledToken token, Micros now) {
  const int64_t index = sequence.num_output_tokens();
  const TokenId token_id = token.token_id;
  sequence.tokens.push_back(token_id);
  if (!sequence.first_token_at) sequence.first_token_at = now;
  events_.push_back(TokenEvent{sequence.spec.id, index, std::move(token)});
  const StopRules& stop = sequence.spec.stop;
  if (IsStopToken(stop, index, token_id)) {
    FinishSequence(sequence, FinishReason::kStop, now);
  } else if (index + 1 == stop.max_tokens) {
    FinishSequence(sequence, FinishReason::kLength, now);
  }
}

void Scheduler::FinishSequence(Sequence& sequence,
                               absl::StatusOr<FinishReason> reason,
                               Micros now) {
  FinishEvent event{sequence.spec.id, std::move(reason), {}};
  SequenceUsage& usage = event.usage;
  usage.num_prompt_tokens = sequence.num_prompt_tokens;
  usage.num_output_tokens = sequence.num_output_tokens();
  usage.num_preemptions = sequence.num_preemptions;
  usage.queued_us = sequence.first_planned_at.value_or(now) - sequence.added_at;
  if (sequence.first_token_at) {
    usage.first_token_us = *sequence.first_token_at - sequence.added_at;
  }
  usage.total_us = now - sequence.added_at;
  events_.push_back(std::move(event));
  ++counters_.num_finished;

  if (sequence.spec.deadline) {
    deadlines_.erase({*sequence.spec.deadline, sequence.spec.id});
  }
  const bool was_running = sequence.state == SequenceState::kRunning;
  sequence.state = SequenceState::kFinished;
  if (was_running) {
    running_.erase(sequence.arrival);
    StartDraining(sequence);
  } else {
    waiting_.erase(sequence.arrival);
  }
}

void Scheduler::StartDraining(Sequence& sequence) {
  num_reserved_blocks_ -= sequence.num_reserved_blocks;
  sequence.num_reserved_blocks = 0;
  num_draining_blocks_ += static_cast<int64_t>(sequence.block_table.size());
  ReleaseIfDrained(sequence);
}

void Scheduler::ReleaseIfDrained(Sequence& sequence) {
  if (sequence.state == SequenceState::kRunning ||
      sequence.num_steps_in_flight > 0 || sequence.slot < 0) {
    return;
  }
  num_draining_blocks_ -= static_cast<int64_t>(sequence.block_table.size());
  for (const int32_t block : sequence.block_table) blocks_.Free(block);
  sequence.block_table.clear();
  sequence.num_planned_tokens = 0;
  free_slots_.push_back(sequence.slot);
  sequence.slot = -1;
}

void Scheduler::EraseIfOver(Sequence& sequence) {
  if (sequence.state == SequenceState::kFinished && sequence.slot < 0) {
    const SequenceId id = sequence.spec.id;
    sequences_.erase(id);
  }
}

// --- Looking -----------------------------------------------------------------

std::vector<SchedulerEvent> Scheduler::TakeEvents() {
  return std::exchange(events_, {});
}

std::optional<Micros> Scheduler::NextDeadline() const {
  if (deadlines_.empty()) return std::nullopt;
  return deadlines_.begin()->first;
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = counters_;
  stats.num_running = static_cast<int64_t>(running_.size());
  stats.num_waiting = static_cast<int64_t>(waiting_.size());
  stats.num_free_blocks = blocks_.num_free();
  stats.num_blocks = blocks_.capacity();
  return stats;
}

}  // namespace witan
