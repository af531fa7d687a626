// Prompts that several sequences have in common, and pauses, seen in the plans.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "base/limits.h"
#include "tests/schedule/scheduler_run.h"

namespace witan {
namespace {

using ::testing::ElementsAre;

using SchedulerPrefixTest = SchedulerRunTest;

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
  named.block_root = RootBlockName(options.identity, named.tenant, "", 0);
  named.block_names = BlockNames(named.block_root, named.prompt, 100);
  Add(named);
  EXPECT_EQ(Step().slot_starts[0].num_cached_tokens, 320);
  // Names of another model: they would hit if they were believed.
  SequenceSpec foreign = Spec(3, 0, 320, 1);
  foreign.block_root =
      RootBlockName({"other", "numerics"}, foreign.tenant, "", 0);
  foreign.block_names = named.block_names;
  Add(foreign);
  RunToTheEnd();
  EXPECT_EQ(streams_[3].usage.num_cached_tokens, 0);
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
