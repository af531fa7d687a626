// Models whose long sequences have angles of their own: a sequence that
// outgrows the short ones is computed again.

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "tests/schedule/scheduler_run.h"

namespace witan {
namespace {

constexpr int64_t kMaxShort = 64;

class SchedulerRopeTest : public SchedulerRunTest {
 protected:
  void StartWith(bool look_ahead) {
    SchedulerOptions options = Roomy();
    options.max_prefill_chunk_tokens = 40;
    options.look_ahead = look_ahead;
    options.identity = {"weights", "numerics", kMaxShort};
    Start(options);
  }

  // Runs everything and sees to it that each row is computed with the angles of
  // all the tokens that its sequence has then.
  void RunAndCheckAngles() {
    while (true) {
      while (const std::optional<StepPlan> plan = Plan()) Check(*plan);
      if (results_.empty()) break;
      Apply();
    }
    RunToTheEnd();
  }

  int64_t num_long_starts_ = 0;
  int64_t num_short_starts_ = 0;

 private:
  void Check(const StepPlan& plan) {
    for (const SlotStart& start : plan.slot_starts) {
      is_long_[start.slot] = start.long_rope;
      ++(start.long_rope ? num_long_starts_ : num_short_starts_);
    }
    for (int s = 0; s < plan.num_sequences(); ++s) {
      const int64_t end =
          plan.first_positions[s] + plan.row_begin[s + 1] - plan.row_begin[s];
      if (!is_long_.at(plan.slots[s])) {
        EXPECT_LE(end, kMaxShort);
      } else if (plan.samples[s] != 0) {
        EXPECT_GT(end, kMaxShort);
      }
    }
  }

  std::map<int32_t, bool> is_long_;  // by slot
};

TEST_F(SchedulerRopeTest, ASequenceThatOutgrowsTheShortAnglesIsComputedAgain) {
  for (const bool look_ahead : {false, true}) {
    StartWith(look_ahead);
    num_long_starts_ = num_short_starts_ = 0;
    Add(Spec(1, 0, 50, 30));            // outgrows them
    Add(Spec(2, 0, kMaxShort - 1, 1));  // ends before
    Add(Spec(3, 0, kMaxShort, 1));      // just fits
    Add(Spec(4, 0, kMaxShort + 1, 5));  // is long from the start
    RunAndCheckAngles();
    EXPECT_EQ(num_short_starts_, 3);
    EXPECT_EQ(num_long_starts_, 2);
    EXPECT_EQ(streams_[1].usage.num_preemptions, 1);
    EXPECT_EQ(scheduler_->stats().num_preemptions, 1);
    streams_.clear();
    specs_.clear();
  }
}

TEST_F(SchedulerRopeTest, ATokenThatEndsASequenceAtTheBoundIsNotComputedAgain) {
  StartWith(true);
  // The last token is made from kMaxShort others and is never fed back.
  Add(Spec(1, 0, 50, kMaxShort - 50 + 1));
  RunAndCheckAngles();
  EXPECT_EQ(scheduler_->stats().num_preemptions, 0);
}

TEST_F(SchedulerRopeTest, LongAndShortSequencesShareNoBlocks) {
  StartWith(true);
  Add(Spec(1, kMaxShort, 30, 2));
  RunAndCheckAngles();
  Add(Spec(2, kMaxShort, 0, 1));  // the same beginning, and short
  RunAndCheckAngles();
  EXPECT_EQ(streams_[2].usage.num_cached_tokens, 0);
  Add(Spec(3, kMaxShort, 40, 1));  // long too
  RunAndCheckAngles();
  EXPECT_EQ(streams_[3].usage.num_cached_tokens, kMaxShort);
  Add(Spec(4, kMaxShort - 32, 5, 1));  // short too
  RunAndCheckAngles();
  EXPECT_EQ(streams_[4].usage.num_cached_tokens, kMaxShort - 32);
}

}  // namespace
}  // namespace witan
