// What goes into a step.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "coordinator/schedule/scheduler.h"

namespace witan {
namespace {

// Its whole prompt is behind it, or will be once the step in flight is done.
bool WantsDecodeRow(const Sequence& sequence) {
  const int64_t position = sequence.num_planned_tokens;
  if (position == sequence.num_tokens()) {  // token still being sampled
    return sequence.num_samples_in_flight == 1 &&
           sequence.num_output_tokens() + 1 < sequence.spec.stop.max_tokens;
  }
  if (sequence.num_output_tokens() == 0) return false;
  // A forced token has no block set aside for it, as prompts have.
  return position + 1 == sequence.num_tokens() ||
         (position < sequence.num_tokens() &&
          position >= sequence.num_tokens_when_admitted);
}

bool WantsPrefillRows(const Sequence& sequence) {
  return sequence.num_planned_tokens < sequence.num_tokens() &&
         !WantsDecodeRow(sequence);
}

}  // namespace

std::optional<StepPlan> Scheduler::Plan(Micros now) {
  ExpireDeadlines(now);
  const size_t max_in_flight = options_.look_ahead ? 1 + kMaxLookAheadSteps : 1;
  if (in_flight_.size() >= max_in_flight) return std::nullopt;

  StepDraft draft;
  draft.now = now;
  draft.plan.epoch = epoch_;
  draft.plan.step = next_step_;
  draft.plan.row_begin.push_back(0);
  draft.plan.new_block_begin.push_back(0);
  PlanDecodeRows(draft);
  PlanPrompts(draft);
  if (draft.plan.num_sequences() == 0) return std::nullopt;

  draft.step.step = next_step_++;
  counters_.num_decode_rows += draft.num_decode_rows;
  counters_.num_prefill_rows += draft.num_prefill_rows;
  ++counters_.num_steps;
  if (!in_flight_.empty()) ++counters_.num_look_ahead_steps;
  in_flight_.push_back(std::move(draft.step));
  return std::move(draft.plan);
}

Scheduler::RunningKey Scheduler::KeyOf(const Sequence& sequence) {
  return {-sequence.spec.priority, sequence.arrival};
}

int64_t Scheduler::NumAvailableBlocks() const {
  return blocks_.num_available() - num_reserved_blocks_;
}

int64_t Scheduler::NumRowsLeft(const StepDraft& draft) const {
  return options_.max_step_tokens - draft.plan.num_rows();
}

int64_t Scheduler::NumPrefillRowsLeft(const StepDraft& draft) const {
  const int64_t num_left = NumRowsLeft(draft);
  const int64_t max_rows = options_.max_prefill_tokens_beside_decode;
  if (max_rows == 0 || draft.num_decode_rows == 0) return num_left;
  return std::min(num_left, max_rows - draft.num_prefill_rows);
}

int64_t Scheduler::NumPromptRowsWanted(const Sequence& sequence) const {
  return std::min(sequence.num_tokens() - sequence.num_planned_tokens,
                  options_.max_prefill_chunk_tokens);
}

bool Scheduler::MayBeAdmitted(const Sequence& next) const {
  // Preempted, and a step in flight may still bring a token of it.
  if (next.num_steps_in_flight > 0) return false;
  return next.starved_at_release != num_releases_ ||
         NumThatYield(next) > next.num_yielding_when_starved;
}

void Scheduler::PlanDecodeRows(StepDraft& draft) {
  // Preemption strikes what comes after the row at hand, so those noted here
  // keep running.
  std::vector<Sequence*> outgrown;
  for (auto it = running_.begin(); it != running_.end(); ++it) {
    if (NumRowsLeft(draft) == 0) break;
    Sequence& sequence = *it->second;
    if (WantsPrefillRows(sequence)) {
      draft.prefills.push_back(&sequence);
    } else if (OutgrewItsRope(sequence)) {
      // Its last token may end it; until that is known it waits.
      if (sequence.num_samples_in_flight == 0) outgrown.push_back(&sequence);
    } else if (WantsDecodeRow(sequence) && MakeRoomForDecodeRow(sequence)) {
      AppendRows(sequence, 1, draft);
      ++draft.num_decode_rows;
    }
  }
  for (Sequence* const sequence : outgrown) {
    if (sequence->state != SequenceState::kRunning) continue;
    // What has to be computed again is part of serving it.
    sequence->num_charged_tokens = 0;
    Preempt(*sequence);
  }
}

bool Scheduler::OutgrewItsRope(const Sequence& sequence) const {
  return !sequence.long_rope &&
         HasLongRope(options_.identity, sequence.num_planned_tokens + 1);
}

void Scheduler::PlanPrompts(StepDraft& draft) {
  for (Sequence* const sequence : draft.prefills) {
    AdmitAbove(sequence->spec.priority, draft);
    // It may have made room for one of those.
    if (sequence->state == SequenceState::kRunning &&
        NumPrefillRowsLeft(draft) > 0) {
      AppendPrefillRows(*sequence, draft);
    }
  }
  AdmitAbove(std::numeric_limits<int64_t>::min(), draft);
}

void Scheduler::AdmitAbove(int64_t priority, StepDraft& draft) {
  Sequence* next = waiting_.Next();
  while (next != nullptr && next->spec.priority > priority &&
         AdvanceAdmission(*next, draft)) {
    next = waiting_.Next();
  }
}

bool Scheduler::AdvanceAdmission(Sequence& next, StepDraft& draft) {
  if (!MayBeAdmitted(next)) return false;
  ChooseRope(next);
  const bool has_rows = NumPrefillRowsLeft(draft) > 0;
  // Prompts that go before it took them all; it shall not push anybody out to
  // wait in that place.
  if (!has_rows && draft.num_prefill_rows > 0) return false;
  // Many may have a prefix in common; a step looks at no more than can run.
  if (draft.num_parked == options_.max_sequences) return false;
  const std::vector<int32_t> cached = FindCachedBlocks(next);
  if (ParkIfPending(next, cached.size())) {
    ++draft.num_parked;
    return true;
  }
  // One position more than it has, so that it does not come only to be
  // preempted by its own first token.
  const int64_t num_positions =
      std::min(next.num_tokens() + 1,
               MaxPositions(next.num_prompt_tokens, next.spec.stop));
  int64_t num_needed = BlocksFor(num_positions);
  for (const int32_t block : cached) {
    if (blocks_.is_held(block)) --num_needed;
  }
  if (free_slots_.empty() || num_needed > NumAvailableBlocks()) {
    if (MakeRoomFor(next, num_needed - NumAvailableBlocks(), cached)) {
      return true;
    }
    next.starved_at_release = num_releases_;
    next.num_yielding_when_starved = NumThatYield(next);
    return false;
  }
  if (!has_rows) return false;
  Admit(next, cached, draft);
  return true;
}

void Scheduler::Admit(Sequence& sequence,
                      const std::vector<int32_t>& cached_blocks,
                      StepDraft& draft) {
  waiting_.PopAdmitted();
  running_.emplace(KeyOf(sequence), &sequence);
  sequence.state = SequenceState::kRunning;
  sequence.slot = free_slots_.back();
  free_slots_.pop_back();
  for (const int32_t block : cached_blocks) blocks_.Hold(block);
  sequence.block_table = cached_blocks;
  const int64_t num_cached_blocks = static_cast<int64_t>(cached_blocks.size());
  const int64_t num_cached_tokens = num_cached_blocks * kBlockTokens;
  sequence.num_named_blocks = cached_blocks.size();
  sequence.num_planned_tokens = num_cached_tokens;
  sequence.num_committed_tokens = num_cached_tokens;
  sequence.num_charged_tokens =
      std::max(sequence.num_charged_tokens, num_cached_tokens);
  if (!sequence.num_cached_tokens) {
    sequence.num_cached_tokens =
        std::min(num_cached_tokens, sequence.num_prompt_tokens);
  }
  sequence.num_tokens_when_admitted = sequence.num_tokens();
  if (options_.prefix_cache) {
    counters_.num_prefix_lookup_tokens += sequence.num_tokens();
    counters_.num_prefix_hit_tokens += num_cached_tokens;
    RegisterPendingBlocks(sequence);
  }
  sequence.num_reserved_blocks =
      BlocksFor(sequence.num_tokens()) - num_cached_blocks;
  num_reserved_blocks_ += sequence.num_reserved_blocks;
  if (!sequence.first_planned_at) sequence.first_planned_at = draft.now;

  SlotStart start;
  start.slot = sequence.slot;
  start.choice = sequence.spec.choice;
  start.sampling = sequence.spec.sampling;
  if (start.sampling.uses_history()) start.history = sequence.tokens;
  start.num_prompt_tokens = static_cast<int32_t>(sequence.num_prompt_tokens);
  start.num_cached_tokens = static_cast<int32_t>(num_cached_tokens);
  start.long_rope = sequence.long_rope;
  start.adapter = sequence.spec.adapter.index;
  draft.plan.slot_starts.push_back(std::move(start));
  AppendPrefillRows(sequence, draft);
}

void Scheduler::AppendPrefillRows(Sequence& sequence, StepDraft& draft) {
  const int64_t num_rows =
      std::min(NumPromptRowsWanted(sequence), NumPrefillRowsLeft(draft));
  AppendRows(sequence, num_rows, draft);
  draft.num_prefill_rows += num_rows;
}

void Scheduler::AppendRows(Sequence& sequence, int64_t num_rows,
                           StepDraft& draft) {
  StepPlan& plan = draft.plan;
  const int64_t begin = sequence.num_planned_tokens;
  const int64_t end = begin + num_rows;
  plan.slots.push_back(sequence.slot);
  plan.first_positions.push_back(static_cast<int32_t>(begin));
  const int64_t num_scores = AppendScoredRows(sequence, begin, end, plan);
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
  }
  plan.new_block_ids.insert(
      plan.new_block_ids.end(),
      sequence.block_table.begin() +
          static_cast<std::ptrdiff_t>(sequence.num_sent_blocks),
      sequence.block_table.end());
  sequence.num_sent_blocks = sequence.block_table.size();
  plan.new_block_begin.push_back(
      static_cast<int32_t>(plan.new_block_ids.size()));

  const bool samples = end >= sequence.num_tokens();
  plan.samples.push_back(samples ? 1 : 0);
  draft.step.sequences.push_back(
      {&sequence, num_rows, end, num_scores, samples});
  draft.step.num_scores += num_scores;
  draft.step.num_samples += samples ? 1 : 0;
  sequence.num_planned_tokens = end;
  ++sequence.num_steps_in_flight;
  sequence.num_samples_in_flight += samples ? 1 : 0;
  if (end > sequence.num_charged_tokens) {
    waiting_.Charge(sequence, end - sequence.num_charged_tokens);
    sequence.num_charged_tokens = end;
  }
}

int64_t Scheduler::AppendScoredRows(const Sequence& sequence, int64_t begin,
                                    int64_t end, StepPlan& plan) {
  const int64_t first = std::max(begin, sequence.num_scored_rows);
  const int64_t last = std::min(end, sequence.num_rows_to_score());
  for (int64_t position = first; position < last; ++position) {
    plan.scored_rows.push_back(
        static_cast<int32_t>(plan.num_rows() + position - begin));
    plan.scored_token_ids.push_back(sequence.tokens[position + 1]);
  }
  return std::max<int64_t>(0, last - first);
}

bool Scheduler::MakeRoomForDecodeRow(const Sequence& sequence) {
  const int64_t num_blocks = static_cast<int64_t>(sequence.block_table.size()) +
                             sequence.num_reserved_blocks;
  if (BlocksFor(sequence.num_planned_tokens + 1) <= num_blocks) return true;
  while (NumAvailableBlocks() == 0) {
    Sequence& last = *running_.rbegin()->second;
    if (num_draining_ > 0 || &last == &sequence) return false;
    Preempt(last);
  }
  return true;
}

bool Scheduler::Yields(const Sequence& victim, const Sequence& next) {
  if (victim.spec.priority != next.spec.priority) {
    return victim.spec.priority < next.spec.priority;
  }
  return victim.share->service_tokens - next.share->service_tokens >
         kMaxServiceLeadTokens;
}

int64_t Scheduler::NumThatYield(const Sequence& next) const {
  int64_t num_yielding = 0;
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    if (it->second->spec.priority > next.spec.priority) break;
    if (Yields(*it->second, next)) ++num_yielding;
  }
  return num_yielding;
}

bool Scheduler::MakeRoomFor(const Sequence& sequence, int64_t num_blocks,
                            const std::vector<int32_t>& cached) {
  // What drains may be enough.
  if (num_draining_ > 0) return false;
  // Of those that it finds cached it would need one more for each one gained.
  const std::unordered_set<int32_t> own(cached.begin(), cached.end());
  int64_t num_gained = 0;
  std::unordered_map<int32_t, int32_t> num_victims_of;  // by shared block
  Sequence* first_victim = nullptr;
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    Sequence& victim = *it->second;
    if (victim.spec.priority > sequence.spec.priority) break;
    if (!Yields(victim, sequence)) continue;
    if (first_victim == nullptr) first_victim = &victim;
    if (num_gained >= num_blocks) break;
    num_gained += victim.num_reserved_blocks;
    for (const int32_t block : victim.block_table) {
      if (own.contains(block)) continue;
      // A shared block is gained with the last one that holds it.
      const int32_t num_holders = blocks_.num_holders(block);
      if (num_holders == 1 || ++num_victims_of[block] == num_holders) {
        ++num_gained;
      }
    }
  }
  if (first_victim == nullptr || num_gained < num_blocks) return false;
  Preempt(*first_victim);
  return num_draining_ == 0;
}

void Scheduler::Preempt(Sequence& sequence) {
  ++counters_.num_preemptions;
  ++sequence.num_preemptions;
  StopRunning(sequence, SequenceState::kWaiting);
  waiting_.Push(sequence);
}

}  // namespace witan
