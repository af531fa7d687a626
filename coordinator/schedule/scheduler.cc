#include "coordinator/schedule/scheduler.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"
#include "base/limits.h"
#include "base/status.h"

namespace witan {

void SchedulerStats::AddCounters(const SchedulerStats& other) {
  num_steps += other.num_steps;
  num_look_ahead_steps += other.num_look_ahead_steps;
  num_decode_rows += other.num_decode_rows;
  num_prefill_rows += other.num_prefill_rows;
  num_discarded_rows += other.num_discarded_rows;
  num_preemptions += other.num_preemptions;
  num_pauses += other.num_pauses;
  num_parked += other.num_parked;
  num_prefix_lookup_tokens += other.num_prefix_lookup_tokens;
  num_prefix_hit_tokens += other.num_prefix_hit_tokens;
  num_prefix_evictions += other.num_prefix_evictions;
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
  WITAN_CHECK(options.max_prefill_tokens_beside_decode >= 0,
              "max_prefill_tokens_beside_decode is {}",
              options.max_prefill_tokens_beside_decode);
  WITAN_CHECK(
      options.max_sequences >= 1 && options.max_sequences <= kMaxStepSequences,
      "max_sequences is {}", options.max_sequences);
  WITAN_CHECK(options.num_blocks >= 2 && options.num_blocks <= kMaxBlocks,
              "num_blocks is {}", options.num_blocks);
  const int64_t num_slots = std::clamp<int64_t>(options.max_step_tokens - 1, 1,
                                                options.max_sequences);
  for (int64_t slot = num_slots - 1; slot >= 0; --slot) {
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
  RETURN_IF_ERROR(
      bounds_.Check(spec.tenant, num_prompt, waiting_.size() + num_parked_));
  const SequenceId id = spec.id;
  auto [it, inserted] = sequences_.try_emplace(id);
  if (!inserted) return AlreadyExists("sequence {} exists", id);
  it->second = std::make_unique<Sequence>();
  Sequence& sequence = *it->second;
  sequence.tokens = std::move(spec.prompt);
  sequence.spec = std::move(spec);
  sequence.num_prompt_tokens = num_prompt;
  bounds_.Add(sequence.spec.tenant, num_prompt);
  sequence.arrival = next_arrival_++;
  sequence.added_at = now;
  if (options_.prefix_cache) TakeNames(sequence);
  if (sequence.spec.deadline) deadlines_.insert({*sequence.spec.deadline, id});
  waiting_.Enter(sequence);
  waiting_.Push(sequence);
  return absl::OkStatus();
}

Sequence* Scheduler::FindLive(SequenceId id) {
  const auto it = sequences_.find(id);
  const bool is_live =
      it != sequences_.end() && it->second->state != SequenceState::kFinished;
  return is_live ? it->second.get() : nullptr;
}

bool Scheduler::Finish(SequenceId id, FinishReason reason, Micros now) {
  Sequence* const sequence = FindLive(id);
  if (sequence == nullptr) return false;
  FinishSequence(*sequence, reason, now);
  EraseIfOver(*sequence);
  return true;
}

bool Scheduler::Force(SequenceId id, TokenId token, Micros now) {
  Sequence* const sequence = FindLive(id);
  if (sequence == nullptr) return false;
  ApplyToken(*sequence, SampledToken{.token_id = token}, now);
  EraseIfOver(*sequence);
  return true;
}

bool Scheduler::Pause(SequenceId id) {
  Sequence* const sequence = FindLive(id);
  if (sequence == nullptr || sequence->paused) return false;
  if (sequence->state == SequenceState::kRunning) {
    StopRunning(*sequence, SequenceState::kWaiting);
    // Its own client makes it necessary to compute again what the prefix cache
    // will have lost.
    sequence->num_charged_tokens = 0;
  } else {
    RemoveFromWaiting(*sequence);
  }
  sequence->paused = true;
  ++num_paused_;
  ++counters_.num_pauses;
  return true;
}

bool Scheduler::Resume(SequenceId id) {
  Sequence* const sequence = FindLive(id);
  if (sequence == nullptr || !sequence->paused) return false;
  sequence->paused = false;
  --num_paused_;
  waiting_.Push(*sequence);
  return true;
}

void Scheduler::FinishAll(const absl::Status& error, Micros now) {
  std::vector<Sequence*> live;
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->state != SequenceState::kFinished) {
      live.push_back(sequence.get());
    }
  }
  std::sort(live.begin(), live.end(), [](const Sequence* a, const Sequence* b) {
    return a->arrival < b->arrival;
  });
  for (Sequence* const sequence : live) {
    FinishSequence(*sequence, error, now);
    EraseIfOver(*sequence);
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
  if (static_cast<int64_t>(result.scores.size()) != expected.num_scores) {
    return Internal("step {} brought {} scores instead of {}", result.step,
                    result.scores.size(), expected.num_scores);
  }
  const PlannedStep step = std::move(in_flight_.front());
  in_flight_.pop_front();
  size_t next_token = 0;
  std::span<SampledToken> scores = result.scores;
  for (const PlannedRows& rows : step.sequences) {
    Sequence& sequence = *rows.sequence;
    --sequence.num_steps_in_flight;
    if (rows.samples) --sequence.num_samples_in_flight;
    CommitRows(sequence, rows.num_rows);
    if (sequence.state == SequenceState::kFinished) {
      counters_.num_discarded_rows += rows.num_rows;
    } else {
      ApplyScores(sequence, scores.first(rows.num_scores));
      // Unless another token was forced in its place.
      if (rows.samples && rows.end == sequence.num_tokens()) {
        ApplyToken(sequence, std::move(result.tokens[next_token]), now);
      }
    }
    if (rows.samples) ++next_token;
    scores = scores.subspan(rows.num_scores);
    ReleaseIfDrained(sequence);
    EraseIfOver(sequence);
  }
  return absl::OkStatus();
}

void Scheduler::ApplyScores(Sequence& sequence,
                            std::span<SampledToken> scores) {
  if (scores.empty()) return;
  PromptScoresEvent event{sequence.spec.id, sequence.num_scored_rows + 1, {}};
  event.scores.assign(std::make_move_iterator(scores.begin()),
                      std::make_move_iterator(scores.end()));
  sequence.num_scored_rows += static_cast<int64_t>(scores.size());
  events_.push_back(std::move(event));
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
  usage.num_cached_tokens = sequence.num_cached_tokens.value_or(0);
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
  if (sequence.state == SequenceState::kRunning) {
    StopRunning(sequence, SequenceState::kFinished);
  } else if (sequence.paused) {
    --num_paused_;
  } else {
    RemoveFromWaiting(sequence);
  }
  sequence.state = SequenceState::kFinished;
  waiting_.Leave(sequence);
}

void Scheduler::RemoveFromWaiting(Sequence& sequence) {
  if (sequence.parked_on) {
    Unpark(sequence);
  } else {
    waiting_.Remove(sequence);
  }
}

void Scheduler::StopRunning(Sequence& sequence, SequenceState state) {
  running_.erase(KeyOf(sequence));
  sequence.state = state;
  num_reserved_blocks_ -= sequence.num_reserved_blocks;
  sequence.num_reserved_blocks = 0;
  ErasePendingBlocks(sequence);
  ++num_draining_;
  ReleaseIfDrained(sequence);
}

void Scheduler::ReleaseIfDrained(Sequence& sequence) {
  if (sequence.state == SequenceState::kRunning ||
      sequence.num_steps_in_flight > 0 || sequence.slot < 0) {
    return;
  }
  --num_draining_;
  ++num_releases_;
  // Last to first: a block is given away before its parent.
  for (auto block = sequence.block_table.rbegin();
       block != sequence.block_table.rend(); ++block) {
    blocks_.Release(*block);
  }
  sequence.block_table.clear();
  sequence.num_sent_blocks = 0;
  sequence.num_planned_tokens = 0;
  sequence.num_committed_tokens = 0;
  sequence.num_named_blocks = 0;
  free_slots_.push_back(sequence.slot);
  sequence.slot = -1;
}

void Scheduler::EraseIfOver(Sequence& sequence) {
  if (sequence.state == SequenceState::kFinished && sequence.slot < 0) {
    bounds_.Remove(sequence.spec.tenant, sequence.num_prompt_tokens);
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
  stats.num_waiting = waiting_.size() + num_parked_;
  stats.num_paused = num_paused_;
  stats.num_free_blocks = blocks_.num_available();
  stats.num_named_blocks = blocks_.num_named();
  stats.num_prefix_evictions = blocks_.num_evictions();
  stats.num_blocks = blocks_.capacity();
  return stats;
}

}  // namespace witan
