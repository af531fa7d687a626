// Prompts that several sequences have in common, priorities and pauses, seen
// in the plans.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/schedule/scheduler.h"
#include "tests/testing/fake_worker_group.h"

namespace witan {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kVocab = 1000;

SchedulerOptions Roomy() {
  SchedulerOptions options;
  options.max_step_tokens = 512;
  options.max_prefill_chunk_tokens = 512;
  options.max_sequences = 8;
  options.num_blocks = 100;
  options.max_context_tokens = 1024;
  return options;
}

// `num_common` tokens that all prompts share, then its own.
SequenceSpec Spec(SequenceId id, int64_t num_common, int64_t num_own,
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
class SchedulerPrefixTest : public ::testing::Test {
 protected:
  struct Result {
    std::vector<TokenId> tokens;
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

TEST_F(SchedulerPrefixTest, AWarmPromptComputesOnlyWhatIsNew) {
  Start(Roomy());
  Add(Spec(1, 320, 10, 2));
  RunToTheEnd();
  Add(Spec(2, 320, 5, 2));
  const StepPlan plan = Step();
  EXPECT_EQ(plan.slot_starts[0].num_cached_tokens, 320);
  EXPECT_THAT(plan.first_positions, ElementsAre(320));
  EXPECT_EQ(plan.num_rows(), 5);
  EXPECT_EQ(plan.new_block_ids.size(), 11u);
  RunToTheEnd();
  EXPECT_EQ(streams_[1].usage.num_cached_tokens, 0);
  EXPECT_EQ(streams_[2].usage.num_cached_tokens, 320);
  EXPECT_EQ(scheduler_->stats().num_prefix_hit_tokens, 320);
  EXPECT_EQ(scheduler_->stats().num_prefix_lookup_tokens, 330 + 325);
}

TEST_F(SchedulerPrefixTest, TheLastPromptTokenIsAlwaysComputed) {
  Start(Roomy());
  Add(Spec(1, 64, 0, 1));
  RunToTheEnd();
  Add(Spec(2, 64, 0, 1));
  const StepPlan plan = Step();
  EXPECT_EQ(plan.slot_starts[0].num_cached_tokens, 32);
  EXPECT_EQ(plan.num_rows(), 32);
}

TEST_F(SchedulerPrefixTest, TheNextTurnFindsTheAnswerOfTheLastOne) {
  Start(Roomy());
  Add(Spec(1, 30, 0, 40));
  RunToTheEnd();
  SequenceSpec next = Spec(2, 30, 0, 1);
  next.sampling.seed = 1;
  next.prompt.insert(next.prompt.end(), streams_[1].tokens.begin(),
                     streams_[1].tokens.end());
  next.prompt.push_back(5);
  Add(next);
  // The last token made was never fed back: 69 positions, two full blocks.
  EXPECT_EQ(Step().slot_starts[0].num_cached_tokens, 64);
}

TEST_F(SchedulerPrefixTest, ChoicesOfOneRequestComputeItsPromptOnce) {
  Start(Roomy());
  for (int32_t choice = 0; choice < 4; ++choice) {
    SequenceSpec spec = Spec(1 + choice, 100, 0, 3);
    spec.choice = choice;
    spec.sampling.seed = 9;
    Add(spec);
  }
  EXPECT_EQ(Step().num_rows(), 100);  // three are parked
  EXPECT_EQ(scheduler_->stats().num_parked, 3);
  EXPECT_EQ(scheduler_->stats().num_waiting, 3);
  const StepPlan second = Step();
  EXPECT_EQ(second.num_sequences(), 4);
  EXPECT_EQ(second.num_rows(), 1 + 3 * 4);
  RunToTheEnd();
  EXPECT_EQ(scheduler_->stats().num_prefill_rows, 100 + 3 * 4);
  EXPECT_EQ(rank_->num_shared_blocks(), 3 * 3);
  EXPECT_NE(streams_[1].tokens, streams_[2].tokens);
}

TEST_F(SchedulerPrefixTest, OneThatWaitsForAPrefixGoesOnWhenItsMakerIsGone) {
  SchedulerOptions options = Roomy();
  options.max_prefill_chunk_tokens = 64;
  Start(options);
  Add(Spec(1, 320, 0, 3));
  Add(Spec(2, 320, 8, 3));
  Step();
  EXPECT_EQ(scheduler_->stats().num_parked, 1);
  ASSERT_TRUE(scheduler_->Finish(1, FinishReason::kCancelled, now_));
  Listen();
  const StepPlan plan = Step();
  EXPECT_EQ(plan.slot_starts[0].num_cached_tokens, 64);
  RunToTheEnd();
  EXPECT_EQ(streams_[2].tokens.size(), 3u);
}

TEST_F(SchedulerPrefixTest, AParkedSequenceCanBeCancelledAndCanExpire) {
  Start(Roomy());
  Add(Spec(1, 320, 0, 3));
  Add(Spec(2, 320, 8, 3));
  SequenceSpec late = Spec(3, 320, 8, 3);
  late.deadline = now_ + 10;
  Add(late);
  ASSERT_TRUE(Plan().has_value());
  EXPECT_EQ(scheduler_->stats().num_parked, 2);
  EXPECT_TRUE(scheduler_->Finish(2, FinishReason::kCancelled, now_));
  now_ += 10;
  scheduler_->ExpireDeadlines(now_);
  Apply();
  EXPECT_EQ(scheduler_->stats().num_waiting, 0);
  RunToTheEnd();
  EXPECT_EQ(streams_[2].end->value(), FinishReason::kCancelled);
  EXPECT_TRUE(absl::IsDeadlineExceeded(streams_[3].end->status()));
}

TEST_F(SchedulerPrefixTest, TenantsDoNotFindEachOthersPrompts) {
  Start(Roomy());
  SequenceSpec first = Spec(1, 320, 0, 1);
  first.tenant = "a";
  Add(first);
  RunToTheEnd();
  SequenceSpec second = Spec(2, 320, 0, 1);
  second.tenant = "b";
  Add(second);
  SequenceSpec third = Spec(3, 320, 0, 1);
  third.tenant = "a";
  Add(third);
  const StepPlan plan = Step();
  ASSERT_EQ(plan.slot_starts.size(), 2u);
  EXPECT_EQ(plan.slot_starts[0].num_cached_tokens, 0);  // b was served less
  EXPECT_EQ(plan.slot_starts[1].num_cached_tokens, 288);
}

TEST_F(SchedulerPrefixTest, NamesThatComeWithARequestAreUsedOnlyUnderOurRoot) {
  SchedulerOptions options = Roomy();
  options.identity = {"weights", "numerics"};
  Start(options);
  Add(Spec(1, 320, 0, 1));
  RunToTheEnd();
  SequenceSpec named = Spec(2, 320, 1, 1);
  named.block_root = RootBlockName(options.identity, named.tenant);
  named.block_names = BlockNames(named.block_root, named.prompt, 100);
  Add(named);
  EXPECT_EQ(Step().slot_starts[0].num_cached_tokens, 320);
  // Names of another model: they would hit if they were believed.
  SequenceSpec foreign = Spec(3, 0, 320, 1);
  foreign.block_root = RootBlockName({"other", "numerics"}, foreign.tenant);
  foreign.block_names = named.block_names;
  Add(foreign);
  RunToTheEnd();
  EXPECT_EQ(streams_[3].usage.num_cached_tokens, 0);
}

TEST_F(SchedulerPrefixTest, AHigherPriorityTakesTheNewestPlaceOfTheLowest) {
  SchedulerOptions options = Roomy();
  options.max_sequences = 3;
  Start(options);
  for (SequenceId id = 1; id <= 3; ++id) {
    SequenceSpec spec = Spec(id, 0, 40, 20);
    spec.priority = id == 1 ? -1 : 0;
    Add(spec);
    Step();
  }
  SequenceSpec urgent = Spec(4, 0, 40, 20);
  urgent.priority = 5;
  Add(urgent);
  Step();
  EXPECT_EQ(scheduler_->stats().num_preemptions, 1);
  RunToTheEnd();
  EXPECT_EQ(streams_[1].usage.num_preemptions, 1);
  EXPECT_EQ(streams_[4].usage.queued_us, 0);
  for (SequenceId id = 1; id <= 4; ++id) {
    EXPECT_EQ(streams_[id].tokens.size(), 20u);
  }
}

TEST_F(SchedulerPrefixTest, EqualPrioritiesDoNotPreemptForAPlace) {
  SchedulerOptions options = Roomy();
  options.max_sequences = 1;
  Start(options);
  Add(Spec(1, 0, 40, 20));
  Step();
  Add(Spec(2, 0, 40, 20));
  RunToTheEnd();
  EXPECT_EQ(scheduler_->stats().num_preemptions, 0);
}

TEST_F(SchedulerPrefixTest, APausedSequenceHoldsNothingAndGoesOnWhereItWas) {
  Start(Roomy());
  Add(Spec(1, 100, 0, 50));
  for (int i = 0; i < 10; ++i) Step();
  ASSERT_TRUE(Plan().has_value());  // one more is on its way
  ASSERT_TRUE(scheduler_->Pause(1));
  EXPECT_FALSE(scheduler_->Pause(1));
  Apply();
  EXPECT_EQ(streams_[1].tokens.size(), 11u);
  EXPECT_FALSE(scheduler_->Plan(now_).has_value());
  EXPECT_EQ(scheduler_->stats().num_free_blocks, 99);
  EXPECT_EQ(scheduler_->stats().num_paused, 1);
  ASSERT_TRUE(scheduler_->Resume(1));
  EXPECT_FALSE(scheduler_->Resume(1));
  EXPECT_EQ(Step().slot_starts[0].num_cached_tokens, 96);
  RunToTheEnd();
  EXPECT_EQ(streams_[1].tokens.size(), 50u);
  EXPECT_EQ(streams_[1].usage.num_preemptions, 0);
}

TEST_F(SchedulerPrefixTest, APausedSequenceCanBeCancelledAndCanExpire) {
  Start(Roomy());
  Add(Spec(1, 100, 0, 50));
  SequenceSpec late = Spec(2, 0, 100, 50);
  late.deadline = now_ + 10;
  Add(late);
  Step();
  ASSERT_TRUE(scheduler_->Pause(1));
  ASSERT_TRUE(scheduler_->Pause(2));
  EXPECT_TRUE(scheduler_->Finish(1, FinishReason::kCancelled, now_));
  now_ += 10;
  scheduler_->ExpireDeadlines(now_);
  Listen();
  EXPECT_EQ(scheduler_->stats().num_paused, 0);
  EXPECT_EQ(streams_[1].end->value(), FinishReason::kCancelled);
  EXPECT_TRUE(absl::IsDeadlineExceeded(streams_[2].end->status()));
  RunToTheEnd();
}

TEST_F(SchedulerPrefixTest, ALongPromptTakesFewRowsBesideDecodeRows) {
  SchedulerOptions options = Roomy();
  options.max_prefill_tokens_beside_decode = 48;
  Start(options);
  Add(Spec(1, 0, 300, 100));
  EXPECT_EQ(Step().num_rows(), 300);  // nobody is held up
  Add(Spec(2, 0, 100, 2));
  Add(Spec(3, 0, 100, 2));
  std::vector<int> rows;
  for (int i = 0; i < 6; ++i) rows.push_back(Step().num_rows());
  EXPECT_THAT(rows, ElementsAre(49, 49, 49, 50, 9, 2));
}

}  // namespace
}  // namespace witan
