// Who gets a place, blocks and rows when priorities differ.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "tests/schedule/scheduler_run.h"

namespace witan {
namespace {

class SchedulerPriorityTest : public SchedulerRunTest {
 protected:
  void AddAt(int32_t priority, SequenceSpec spec) {
    spec.priority = priority;
    Add(spec);
  }
  std::map<SequenceId, int64_t> Preemptions() {
    std::map<SequenceId, int64_t> preemptions;
    for (const auto& [id, stream] : streams_) {
      if (stream.usage.num_preemptions > 0) {
        preemptions[id] = stream.usage.num_preemptions;
      }
    }
    return preemptions;
  }
};

using Preempted = std::map<SequenceId, int64_t>;

TEST_F(SchedulerPriorityTest, TheNewestOfTheLowestGivesItsPlace) {
  SchedulerOptions options = Roomy();
  options.max_sequences = 4;
  Start(options);
  // The newest of all is not of the lowest priority.
  const std::vector<int32_t> priorities = {-1, 0, -1, 0};
  for (SequenceId id = 1; id <= 4; ++id) {
    AddAt(priorities[id - 1], Spec(id, 0, 40, 20));
    Step();
  }
  AddAt(5, Spec(5, 0, 40, 20));
  RunToTheEnd();
  EXPECT_EQ(Preemptions(), (Preempted{{3, 1}}));
  EXPECT_EQ(streams_[5].usage.queued_us, 0);
}

TEST_F(SchedulerPriorityTest, TheNewestOfTheLowestGiveTheirBlocks) {
  SchedulerOptions options = Roomy();
  options.num_blocks = 1 + 4 * 5;  // 4 of 5 blocks each
  Start(options);
  const std::vector<int32_t> priorities = {0, -1, -1, 0};
  for (SequenceId id = 1; id <= 4; ++id) {
    AddAt(priorities[id - 1], Spec(id, 0, 4 * kBlockTokens + 1, 20));
    Step();
  }
  AddAt(5, Spec(5, 0, 4 * kBlockTokens + 1, 20));
  Step();
  EXPECT_EQ(scheduler_->stats().num_preemptions, 1);
  RunToTheEnd();
  EXPECT_EQ(Preemptions(), (Preempted{{3, 1}}));
}

TEST_F(SchedulerPriorityTest, ADecodeRowTakesTheBlocksOfTheNewestOfTheLowest) {
  SchedulerOptions options = Roomy();
  options.num_blocks = 1 + 3 * 2;
  options.prefix_cache = false;
  Start(options);
  // Each has two blocks, and the first wants a third soon.
  const std::vector<int32_t> priorities = {3, -1, 2};
  const std::vector<int64_t> num_new_tokens = {10, 30, 30};
  for (SequenceId id = 1; id <= 3; ++id) {
    const int64_t num_prompt = 2 * kBlockTokens - (id == 1 ? 3 : 31);
    AddAt(priorities[id - 1], Spec(id, 0, num_prompt, num_new_tokens[id - 1]));
    Step();
  }
  RunToTheEnd();
  EXPECT_EQ(Preemptions(), (Preempted{{2, 1}}));
}

TEST_F(SchedulerPriorityTest, NobodyIsPreemptedForBlocksThatOthersKeep) {
  SchedulerOptions options = Roomy();
  options.num_blocks = 1 + 16;
  Start(options);
  // A prefix of 9 blocks that a high and a low one hold, and a block of each.
  AddAt(2, Spec(1, 9 * kBlockTokens, 8, 20));
  for (int i = 0; i < 2; ++i) Step();
  AddAt(-1, Spec(2, 9 * kBlockTokens, 8, 20));
  Step();
  ASSERT_EQ(scheduler_->stats().num_free_blocks, 5);
  AddAt(0, Spec(3, 0, 6 * kBlockTokens + 8, 20));  // wants 7
  Step();
  EXPECT_EQ(scheduler_->stats().num_preemptions, 0);
  AddAt(1,
        Spec(4, 0, 5 * kBlockTokens + 8, 20));  // wants 6: one more is enough
  Step();
  EXPECT_EQ(scheduler_->stats().num_preemptions, 1);
  RunToTheEnd();
}

TEST_F(SchedulerPriorityTest, BlocksThatItSharesWithTheVictimAreNotGained) {
  SchedulerOptions options = Roomy();
  options.num_blocks = 1 + 20;
  Start(options);
  AddAt(1, Spec(1, 0, 7 * kBlockTokens + 8, 20));  // 8 blocks
  Step();
  AddAt(0, Spec(2, 9 * kBlockTokens, 8, 20));  // 9 named ones and 1
  for (int i = 0; i < 2; ++i) Step();
  ASSERT_EQ(scheduler_->stats().num_free_blocks, 2);
  AddAt(1, Spec(3, 9 * kBlockTokens, 3 * kBlockTokens + 8, 20));  // 4 more
  for (int i = 0; i < 3; ++i) Step();
  EXPECT_EQ(scheduler_->stats().num_preemptions, 0);
  RunToTheEnd();
}

TEST_F(SchedulerPriorityTest, BlocksThatOnlyVictimsShareAreGained) {
  SchedulerOptions options = Roomy();
  options.num_blocks = 1 + 12;
  Start(options);
  AddAt(-1, Spec(1, 9 * kBlockTokens, 8, 20));
  for (int i = 0; i < 2; ++i) Step();
  AddAt(-1, Spec(2, 9 * kBlockTokens, 8, 20));
  Step();
  ASSERT_EQ(scheduler_->stats().num_free_blocks, 1);
  AddAt(0, Spec(3, 0, 9 * kBlockTokens, 20));
  for (int i = 0; i < 3; ++i) Step();
  EXPECT_EQ(scheduler_->stats().num_preemptions, 2);
  RunToTheEnd();
  EXPECT_LT(streams_[3].usage.num_preemptions, 1);
}

TEST_F(SchedulerPriorityTest, EqualPrioritiesDoNotPreemptForAPlace) {
  SchedulerOptions options = Roomy();
  options.max_sequences = 1;
  Start(options);
  Add(Spec(1, 0, 40, 20));
  Step();
  Add(Spec(2, 0, 40, 20));
  RunToTheEnd();
  EXPECT_EQ(scheduler_->stats().num_preemptions, 0);
}

TEST_F(SchedulerPriorityTest, ATenantFarAheadGivesAPlaceToOneThatWaits) {
  SchedulerOptions options = Roomy();
  options.max_sequences = 2;
  options.max_context_tokens = 8192;
  options.num_blocks = 1 + 2 * BlocksFor(8192);
  Start(options);
  SequenceSpec spec = Spec(1, 0, 40, 4000);
  spec.tenant = "greedy";
  Add(spec);
  spec = Spec(2, 0, 40, 4000);
  spec.tenant = "greedy";
  Add(spec);
  Step();
  spec = Spec(3, 0, 40, 20);
  spec.tenant = "light";
  Add(spec);
  int64_t num_steps = 0;
  for (; !streams_[3].end.has_value(); ++num_steps) Step();
  // Both of the greedy one made a token in every step until it was ahead.
  EXPECT_GE(num_steps, kMaxServiceLeadTokens / 2 - 40);
  EXPECT_LE(num_steps, kMaxServiceLeadTokens / 2 + 40);
  RunToTheEnd();
  EXPECT_EQ(Preemptions(), (Preempted{{2, 1}}));
}

TEST_F(SchedulerPriorityTest, APromptGoesBeforeThePromptsOfLowerPriorities) {
  SchedulerOptions options = Roomy();
  options.max_prefill_tokens_beside_decode = 48;
  Start(options);
  Add(Spec(1, 0, 10, 100));  // is being answered
  Step();
  AddAt(-1, Spec(2, 0, 900, 2));  // is being read, for nineteen steps
  Step();
  AddAt(1, Spec(3, 0, 60, 2));
  Add(Spec(4, 0, 30, 2));
  for (int i = 0; i < 2; ++i) Step();
  EXPECT_FALSE(streams_[3].tokens.empty());
  Step();
  EXPECT_FALSE(streams_[4].tokens.empty());
  EXPECT_TRUE(streams_[2].tokens.empty());
  RunToTheEnd();
}

TEST_F(SchedulerPriorityTest, APlaceIsTakenOnlyWhenThereAreRowsForIt) {
  SchedulerOptions options = Roomy();
  options.max_sequences = 3;
  options.max_prefill_tokens_beside_decode = 48;
  Start(options);
  AddAt(-1, Spec(1, 0, 10, 200));
  AddAt(-1, Spec(2, 0, 10, 200));
  Step();
  AddAt(1, Spec(3, 0, 480, 2));  // ten steps
  Step();
  AddAt(1, Spec(4, 0, 40, 2));
  for (int i = 0; i < 8; ++i) Step();
  EXPECT_EQ(scheduler_->stats().num_preemptions, 0);
  EXPECT_EQ(streams_[1].tokens.size(), 10u);
  EXPECT_EQ(streams_[2].tokens.size(), 10u);
  RunToTheEnd();
}

TEST_F(SchedulerPriorityTest, APlaceIsTakenEvenWhereNoRowIsLeft) {
  for (const int64_t max_step_tokens : {1, 2, 4}) {
    SCOPED_TRACE(max_step_tokens);
    SchedulerOptions options = Roomy();
    options.max_sequences = 4;
    options.max_step_tokens = max_step_tokens;
    Start(options);
    applied_ = 0;
    specs_.clear();
    streams_.clear();
    for (SequenceId id = 1; id <= 4; ++id) AddAt(-1, Spec(id, 0, 1, 200));
    for (int i = 0; i < 50; ++i) Step();
    ASSERT_EQ(scheduler_->stats().num_running,
              std::max<int64_t>(1, max_step_tokens - 1));
    AddAt(1, Spec(5, 0, 5, 3));
    for (int i = 0; i < 10; ++i) Step();
    EXPECT_TRUE(streams_[5].end.has_value());
    RunToTheEnd();
  }
}

TEST_F(SchedulerPriorityTest, NobodyWaitsForAPrefixThatALowerPriorityComputes) {
  SchedulerOptions options = Roomy();
  options.max_sequences = 8;
  options.max_step_tokens = 64;
  Start(options);
  AddAt(-1, Spec(1, 320, 1, 2));
  Step();
  // It takes all rows while it is read.
  AddAt(0, Spec(2, 0, 900, 2));
  AddAt(1, Spec(3, 320, 1, 2));
  // And one that waits for the first one, and then for the third.
  AddAt(-1, Spec(4, 320, 1, 2));
  for (int i = 0; i < 6; ++i) Step();
  EXPECT_FALSE(streams_[3].tokens.empty());
  EXPECT_TRUE(streams_[1].tokens.empty());
  RunToTheEnd();
  EXPECT_EQ(streams_[4].usage.num_cached_tokens, 320);
}

TEST_F(SchedulerPriorityTest, AStepParksNoMoreThanCanRun) {
  SchedulerOptions options = Roomy();
  options.max_sequences = 4;
  options.max_prefill_chunk_tokens = 64;
  Start(options);
  for (SequenceId id = 1; id <= 60; ++id) Add(Spec(id, 320, 1, 2));
  Step();
  EXPECT_EQ(scheduler_->stats().num_parked, 4);
  Step();
  EXPECT_EQ(scheduler_->stats().num_parked, 8);
  for (SequenceId id = 3; id < 60; id += 2) {
    EXPECT_TRUE(scheduler_->Finish(id, FinishReason::kCancelled, now_));
  }
  Listen();
  while (Plan()) Apply();
  for (SequenceId id = 1; id <= 60; ++id) {
    ASSERT_TRUE(streams_[id].end.has_value()) << id;
  }
  EXPECT_EQ(scheduler_->stats().num_free_blocks,
            scheduler_->stats().num_blocks);
}

TEST_F(SchedulerPriorityTest, WhatIsComputedAgainAfterAPauseIsCharged) {
  SchedulerOptions options = Roomy();
  options.prefix_cache = false;
  options.max_sequences = 2;
  Start(options);
  const auto add = [this](SequenceId id, const std::string& tenant,
                          int64_t num_prompt, int64_t max_tokens) {
    SequenceSpec spec = Spec(id, 0, num_prompt, max_tokens);
    spec.tenant = tenant;
    Add(spec);
  };
  add(1, "slow", 300, 20);
  add(5, "other", 600, 60);  // both are at work all the time
  for (int i = 0; i < 6; ++i) {
    Step();
    ASSERT_TRUE(scheduler_->Pause(1));
    ASSERT_TRUE(scheduler_->Resume(1));
  }
  Step();
  // It has cost seven times its prompt, the other one once.
  add(3, "other", 300, 4);
  add(2, "slow", 300, 4);
  while (!streams_[3].end && Plan()) Apply();
  EXPECT_FALSE(streams_[2].end.has_value());
  RunToTheEnd();
}

}  // namespace
}  // namespace witan
