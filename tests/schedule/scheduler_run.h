#ifndef WITAN_TESTS_SCHEDULE_SCHEDULER_RUN_H_
#define WITAN_TESTS_SCHEDULE_SCHEDULER_RUN_H_

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/schedule/scheduler.h"
#include "tests/testing/fake_worker_group.h"

namespace witan {

inline constexpr int64_t kVocab = 1000;

inline SchedulerOptions Roomy() {
  SchedulerOptions options;
  options.max_step_tokens = 512;
  options.max_prefill_chunk_tokens = 512;
  options.max_sequences = 8;
  options.num_blocks = 100;
  options.max_context_tokens = 1024;
  return options;
}

// `num_common` tokens that all prompts share, then its own.
inline SequenceSpec Spec(SequenceId id, int64_t num_common, int64_t num_own,
                         int64_t max_tokens) {
  SequenceSpec spec;
  spec.id = id;
  spec.sampling.seed = id;
  for (int64_t i = 0; i < num_common; ++i) {
    spec.prompt.push_back(static_cast<TokenId>(i % 100));
  }
  for (int64_t i = 0; i < num_own; ++i) {
    spec.prompt.push_back(static_cast<TokenId>(100 + (id * 7 + i) % 900));
  }
  spec.stop.max_tokens = max_tokens;
  return spec;
}

// A Scheduler in front of a FakeRank, step by step.
class SchedulerRunTest : public ::testing::Test {
 protected:
  struct Result {
    std::vector<TokenId> tokens;
    std::vector<SampledToken> scores;
    std::optional<absl::StatusOr<FinishReason>> end;
    SequenceUsage usage;
  };

  void Start(const SchedulerOptions& options) {
    scheduler_.emplace(options, 1, 1);
    rank_.emplace(1, options.max_step_tokens, options.max_sequences,
                  options.num_blocks, kVocab);
  }
  void Add(const SequenceSpec& spec) {
    specs_[spec.id] = spec;
    const absl::Status status = scheduler_->Add(spec, now_);
    ASSERT_TRUE(status.ok()) << status;
  }
  // Plans a step and runs it, without telling the scheduler.
  std::optional<StepPlan> Plan() {
    std::optional<StepPlan> plan = scheduler_->Plan(now_);
    if (!plan) return plan;
    absl::StatusOr<StepResult> result = rank_->Run(*plan, applied_);
    EXPECT_TRUE(result.ok()) << result.status();
    if (result.ok()) results_.push_back(*std::move(result));
    return plan;
  }
  void Apply() {
    applied_ = results_.front().step;
    const absl::Status status =
        scheduler_->Apply(std::move(results_.front()), now_);
    results_.pop_front();
    ASSERT_TRUE(status.ok()) << status;
    Listen();
  }
  void Listen() {
    for (SchedulerEvent& event : scheduler_->TakeEvents()) {
      if (auto* token = std::get_if<TokenEvent>(&event)) {
        streams_[token->id].tokens.push_back(token->token.token_id);
      } else if (auto* scored = std::get_if<PromptScoresEvent>(&event)) {
        auto& scores = streams_[scored->id].scores;
        EXPECT_EQ(scored->first_index, std::ssize(scores) + 1);
        scores.insert(scores.end(), scored->scores.begin(),
                      scored->scores.end());
      } else {
        FinishEvent& end = std::get<FinishEvent>(event);
        streams_[end.id].end = end.reason;
        streams_[end.id].usage = end.usage;
      }
    }
  }
  StepPlan Step() {
    std::optional<StepPlan> plan = Plan();
    EXPECT_TRUE(plan.has_value());
    Apply();
    return plan.value_or(StepPlan());
  }
  void RunToTheEnd() {
    while (Plan()) Apply();
    for (const auto& [id, spec] : specs_) {
      ASSERT_TRUE(streams_[id].end.has_value()) << id;
      std::vector<TokenId> history = spec.prompt;
      for (const TokenId token : streams_[id].tokens) {
        ASSERT_EQ(token,
                  FakeNextToken(history, spec.sampling, spec.choice, kVocab)
                      .token_id);
        history.push_back(token);
      }
    }
    EXPECT_EQ(scheduler_->stats().num_free_blocks,
              scheduler_->stats().num_blocks);
  }

  std::optional<Scheduler> scheduler_;
  std::optional<FakeRank> rank_;
  std::deque<StepResult> results_;
  std::map<SequenceId, SequenceSpec> specs_;
  std::map<SequenceId, Result> streams_;
  StepNumber applied_ = 0;
  Micros now_ = 1000;
};

}  // namespace witan

#endif  // WITAN_TESTS_SCHEDULE_SCHEDULER_RUN_H_
