#include "tests/sim/order_checker.h"

#include <algorithm>
#include <iterator>

#include "coordinator/schedule/sequence.h"

namespace witan {
namespace {

constexpr char kOrder[] = "order";
// Plans in which a sequence that is over may still hold its slot and blocks.
constexpr int64_t kDrainPlans = 2;

}  // namespace

OrderChecker::OrderChecker(SimJournal& journal, const TokenChecker& tokens,
                           const ReplicaOptions& options)
    : journal_(journal),
      tokens_(tokens),
      max_step_tokens_(options.planner.limits.max_step_tokens),
      max_chunk_tokens_(options.max_prefill_chunk_tokens > 0
                            ? options.max_prefill_chunk_tokens
                            : max_step_tokens_),
      max_beside_decode_(options.max_prefill_tokens_beside_decode),
      knows_who_waits_(!options.prefix_cache) {}

void OrderChecker::OnSubmitted(SequenceId id) {
  waiting_[tokens_.priority(id)].insert(id);
}

void OrderChecker::OnGroup(int64_t num_blocks, int64_t max_sequences) {
  num_blocks_ = num_blocks;
  max_sequences_ = std::clamp<int64_t>(max_step_tokens_ - 1, 1, max_sequences);
  running_.clear();
  waiting_.clear();
  wait_ = {};
}

void OrderChecker::OnPlan(const StepPlan& plan,
                          const std::vector<SequenceId>& ids) {
  ++num_plans_;
  ForgetEnded();
  if (plan.num_rows() > max_step_tokens_) {
    journal_.Fail(kOrder, "step {} has {} rows of at most {}", plan.step,
                  plan.num_rows(), max_step_tokens_);
  }
  const std::vector<PromptRows> prompts = ReadRows(plan, ids);
  CheckPrompts(plan, prompts);
  std::vector<SequenceId> started;
  for (size_t s = 0; s < ids.size(); ++s) {
    for (const SlotStart& start : plan.slot_starts) {
      if (start.slot == plan.slots[s]) started.push_back(ids[s]);
    }
  }
  if (knows_who_waits_) CheckAdmission(plan, prompts, started);
}

std::vector<OrderChecker::PromptRows> OrderChecker::ReadRows(
    const StepPlan& plan, const std::vector<SequenceId>& ids) {
  std::set<int32_t> starts;
  for (const SlotStart& start : plan.slot_starts) starts.insert(start.slot);
  for (size_t s = 0; s < ids.size(); ++s) {
    if (starts.contains(plan.slots[s])) running_[ids[s]] = {};
  }
  std::vector<PromptRows> prompts;
  int64_t num_decode_rows = 0;
  int64_t num_prompt_rows = 0;
  for (size_t s = 0; s < ids.size(); ++s) {
    const int64_t num_rows = plan.row_begin[s + 1] - plan.row_begin[s];
    Running& running = running_[ids[s]];
    running.last_plan = num_plans_;
    // Also the last row of what is computed again.
    const bool is_decode =
        !starts.contains(plan.slots[s]) &&
        (running.answers ||
         (num_rows == 1 && plan.samples[s] != 0 && tokens_.has_tokens(ids[s])));
    running.answers |= plan.samples[s] != 0;
    if (is_decode) {
      num_decode_rows += num_rows;
      continue;
    }
    num_prompt_rows += num_rows;
    const int64_t num_left =
        tokens_.num_history_tokens(ids[s]) - plan.first_positions[s];
    if (num_rows > max_chunk_tokens_) {
      journal_.Fail(kOrder, "step {} has {} rows of sequence {}, at most {}",
                    plan.step, num_rows, ids[s], max_chunk_tokens_);
    }
    prompts.push_back({ids[s], tokens_.priority(ids[s]),
                       num_rows < std::min(num_left, max_chunk_tokens_)});
  }
  if (max_beside_decode_ > 0 && num_decode_rows > 0 &&
      num_prompt_rows > max_beside_decode_) {
    journal_.Fail(kOrder, "step {} has {} prompt rows beside decode rows",
                  plan.step, num_prompt_rows);
  }
  return prompts;
}

void OrderChecker::CheckPrompts(const StepPlan& plan,
                                const std::vector<PromptRows>& prompts) const {
  for (const PromptRows& cut : prompts) {
    for (const PromptRows& other : prompts) {
      if (!cut.is_cut || other.priority >= cut.priority) continue;
      journal_.Fail(kOrder,
                    "step {} has prompt rows of sequence {}, and {} of a "
                    "higher priority wants more",
                    plan.step, other.id, cut.id);
    }
  }
}

void OrderChecker::CheckAdmission(const StepPlan& plan,
                                  const std::vector<PromptRows>& prompts,
                                  const std::vector<SequenceId>& started) {
  for (const SequenceId id : started) {
    const int32_t priority = tokens_.priority(id);
    if (const auto own = waiting_.find(priority); own != waiting_.end()) {
      own->second.erase(id);
      if (own->second.empty()) waiting_.erase(own);
    }
  }
  if (waiting_.empty()) {
    wait_ = {};
    return;
  }
  const int32_t highest = waiting_.rbegin()->first;
  if (highest != wait_.priority) wait_ = {.priority = highest};
  const SequenceId waits = *waiting_.rbegin()->second.begin();
  for (const SequenceId id : started) {
    if (tokens_.priority(id) >= highest) {
      wait_.num_plans = 0;
      continue;
    }
    journal_.Fail(kOrder,
                  "step {} begins sequence {}, and {} of a higher priority "
                  "waits",
                  plan.step, id, waits);
  }
  int64_t num_below = 0;
  if (!WouldFit(highest, &num_below)) {
    wait_.num_plans = 0;
    return;
  }
  wait_.num_below = std::max(wait_.num_below, num_below);
  // Prompts of others of its priority may go before it.
  if (num_below == 0 || std::any_of(prompts.begin(), prompts.end(),
                                    [highest](const PromptRows& rows) {
                                      return rows.priority >= highest;
                                    })) {
    return;
  }
  // Each of those below may take some steps to give way.
  if (++wait_.num_plans > (2 + kDrainPlans) * (2 + wait_.num_below)) {
    journal_.Fail(kOrder,
                  "sequence {} waited for {} steps where it would fit in the "
                  "place of lower priorities",
                  waits, wait_.num_plans);
  }
}

bool OrderChecker::WouldFit(int32_t priority, int64_t* num_below) const {
  int64_t num_slots = max_sequences_;
  int64_t num_blocks = num_blocks_ - 1;
  for (const auto& [id, running] : running_) {
    if (tokens_.priority(id) < priority) {
      ++*num_below;
      continue;
    }
    --num_slots;
    // With the block of its next token.
    num_blocks -= BlocksFor(tokens_.num_history_tokens(id) + 2);
  }
  int64_t num_needed = 0;
  for (const SequenceId id : waiting_.at(priority)) {
    num_needed =
        std::max(num_needed, BlocksFor(tokens_.num_history_tokens(id) + 1));
  }
  return num_slots > 0 && num_needed <= num_blocks;
}

void OrderChecker::ForgetEnded() {
  std::erase_if(running_, [this](const auto& entry) {
    const bool holds_nothing =
        tokens_.ended(entry.first) || tokens_.paused(entry.first);
    return holds_nothing && entry.second.last_plan + kDrainPlans < num_plans_;
  });
  for (auto level = waiting_.begin(); level != waiting_.end();) {
    std::erase_if(level->second, [this](SequenceId id) {
      return tokens_.ended(id) || tokens_.paused(id);
    });
    level = level->second.empty() ? waiting_.erase(level) : std::next(level);
  }
}

}  // namespace witan
