#include "coordinator/schedule/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <string>

#include "base/limits.h"
#include "base/status.h"
#include "tests/testing/fake_worker_group.h"

namespace witan {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kVocab = 1000;

SchedulerOptions Roomy() {
  SchedulerOptions options;
  options.max_step_tokens = 64;
  options.max_prefill_chunk_tokens = 64;
  options.max_sequences = 8;
  options.num_blocks = 100;
  options.max_context_tokens = 1024;
  return options;
}

SequenceSpec Spec(SequenceId id, int64_t num_prompt, int64_t max_tokens) {
  SequenceSpec spec;
  spec.id = id;
  spec.sampling.seed = id;
  for (int64_t i = 0; i < num_prompt; ++i) {
    spec.prompt.push_back(static_cast<TokenId>((id * 100 + i) % kVocab));
  }
  spec.stop.max_tokens = max_tokens;
  return spec;
}

// A result for `plan` whose tokens are first, first + 1, ...
StepResult Answer(const StepPlan& plan, TokenId first) {
  StepResult result;
  result.epoch = plan.epoch;
  result.step = plan.step;
  for (const uint8_t samples : plan.samples) {
    if (samples == 0) continue;
    SampledToken token;
    token.token_id = first++;
    result.tokens.push_back(token);
  }
  return result;
}

// Rows of each sequence of the plan, by slot.
std::map<int32_t, int> RowsBySlot(const StepPlan& plan) {
  std::map<int32_t, int> rows;
  for (int s = 0; s < plan.num_sequences(); ++s) {
    rows[plan.slots[s]] = plan.row_begin[s + 1] - plan.row_begin[s];
  }
  return rows;
}

// "0:12 0:13 end 0 stop" for the events since the last call.
std::string Events(Scheduler& scheduler) {
  std::string text;
  for (const SchedulerEvent& event : scheduler.TakeEvents()) {
    if (!text.empty()) text += ' ';
    if (const auto* token = std::get_if<TokenEvent>(&event)) {
      text += fmt::format("{}[{}]={}", token->id, token->index,
                          token->token.token_id);
      continue;
    }
    const FinishEvent& end = std::get<FinishEvent>(event);
    const char* reason = "error";
    if (end.reason.ok()) {
      reason = *end.reason == FinishReason::kStop     ? "stop"
               : *end.reason == FinishReason::kLength ? "length"
                                                      : "cancelled";
    }
    text += fmt::format("{}:{}", end.id, reason);
  }
  return text;
}

class SchedulerTest : public ::testing::Test {
 protected:
  void Start(const SchedulerOptions& options) {
    scheduler_.emplace(options, /*epoch=*/7, /*first_step=*/2);
  }
  void Add(SequenceSpec spec) {
    const absl::Status status = scheduler_->Add(std::move(spec), now_);
    ASSERT_TRUE(status.ok()) << status;
  }
  StepPlan Plan() {
    std::optional<StepPlan> plan = scheduler_->Plan(now_);
    EXPECT_TRUE(plan.has_value());
    return plan.value_or(StepPlan());
  }
  void Apply(const StepPlan& plan, TokenId first_token) {
    const absl::Status status =
        scheduler_->Apply(Answer(plan, first_token), now_);
    ASSERT_TRUE(status.ok()) << status;
  }
  // Plans and applies until nothing is left to do.
  void RunToTheEnd() {
    while (const std::optional<StepPlan> plan = scheduler_->Plan(now_)) {
      Apply(*plan, 1);
    }
  }

  std::optional<Scheduler> scheduler_;
  Micros now_ = 1000;
};

TEST_F(SchedulerTest, PlansNothingWithoutSequences) {
  Start(Roomy());
  EXPECT_FALSE(scheduler_->Plan(now_).has_value());
}

TEST_F(SchedulerTest, RunsOneSequenceFromPromptToItsLastToken) {
  Start(Roomy());
  Add(Spec(1, 3, 2));
  const StepPlan prefill = Plan();
  EXPECT_EQ(prefill.epoch, 7u);
  EXPECT_EQ(prefill.step, 2u);
  ASSERT_EQ(prefill.slot_starts.size(), 1u);
  EXPECT_EQ(prefill.slot_starts[0].slot, 0);
  EXPECT_EQ(prefill.slot_starts[0].num_prompt_tokens, 3);
  EXPECT_THAT(prefill.slot_starts[0].history, IsEmpty());
  EXPECT_THAT(prefill.token_ids, ElementsAre(100, 101, 102));
  EXPECT_THAT(prefill.row_begin, ElementsAre(0, 3));
  EXPECT_THAT(prefill.first_positions, ElementsAre(0));
  EXPECT_THAT(prefill.samples, ElementsAre(1));
  EXPECT_THAT(prefill.new_block_begin, ElementsAre(0, 1));
  EXPECT_THAT(prefill.new_block_ids, ElementsAre(1));
  Apply(prefill, 50);
  EXPECT_EQ(Events(*scheduler_), "1[0]=50");

  const StepPlan decode = Plan();
  EXPECT_EQ(decode.step, 3u);
  EXPECT_THAT(decode.slot_starts, IsEmpty());
  EXPECT_THAT(decode.token_ids, ElementsAre(50));
  EXPECT_THAT(decode.first_positions, ElementsAre(3));
  EXPECT_THAT(decode.new_block_ids, IsEmpty());
  Apply(decode, 60);
  EXPECT_EQ(Events(*scheduler_), "1[1]=60 1:length");
  EXPECT_FALSE(scheduler_->Plan(now_).has_value());
  EXPECT_EQ(scheduler_->stats().num_free_blocks, 99);
}

TEST_F(SchedulerTest, LookAheadFeedsTheTokenOfTheStepThatRuns) {
  Start(Roomy());
  Add(Spec(1, 3, 3));
  const StepPlan first = Plan();
  const StepPlan second = Plan();
  EXPECT_THAT(second.token_ids, ElementsAre(kTokenOfPreviousStep));
  EXPECT_THAT(second.first_positions, ElementsAre(3));
  EXPECT_FALSE(scheduler_->Plan(now_).has_value()) << "two steps in flight";
  Apply(first, 50);
  const StepPlan third = Plan();
  EXPECT_THAT(third.token_ids, ElementsAre(kTokenOfPreviousStep));
  EXPECT_THAT(third.first_positions, ElementsAre(4));
  Apply(second, 51);
  EXPECT_FALSE(scheduler_->Plan(now_).has_value())
      << "max_tokens is known ahead, so no row is void because of it";
  Apply(third, 52);
  EXPECT_EQ(Events(*scheduler_), "1[0]=50 1[1]=51 1[2]=52 1:length");
  EXPECT_EQ(scheduler_->stats().num_discarded_rows, 0);
  EXPECT_EQ(scheduler_->stats().num_look_ahead_steps, 2);
}

TEST_F(SchedulerTest, WithoutLookAheadOnlyOneStepIsInFlight) {
  SchedulerOptions options = Roomy();
  options.look_ahead = false;
  Start(options);
  Add(Spec(1, 3, 3));
  const StepPlan first = Plan();
  EXPECT_FALSE(scheduler_->Plan(now_).has_value());
  Apply(first, 50);
  EXPECT_THAT(Plan().token_ids, ElementsAre(50));
}

TEST_F(SchedulerTest, AVoidRowIsDiscardedAndItsSlotAndBlocksWaitForIt) {
  SchedulerOptions options = Roomy();
  options.max_sequences = 1;
  Start(options);
  SequenceSpec spec = Spec(1, 3, 10);
  spec.stop.stop_token_ids = {50};
  Add(std::move(spec));
  Add(Spec(2, 2, 1));
  const StepPlan first = Plan();
  const StepPlan second = Plan();
  Apply(first, 50);
  EXPECT_EQ(Events(*scheduler_), "1[0]=50 1:stop");
  EXPECT_EQ(scheduler_->stats().num_free_blocks, 98);
  EXPECT_FALSE(scheduler_->Plan(now_).has_value()) << "slot still in use";
  Apply(second, 51);
  EXPECT_EQ(Events(*scheduler_), "");
  EXPECT_EQ(scheduler_->stats().num_discarded_rows, 1);
  EXPECT_EQ(scheduler_->stats().num_free_blocks, 99);
  EXPECT_EQ(Plan().slot_starts.at(0).sampling.seed, 2u);
}

TEST_F(SchedulerTest, CutsPromptsAtTheChunkAndAtTheBudget) {
  SchedulerOptions options = Roomy();
  options.max_step_tokens = 10;
  options.max_prefill_chunk_tokens = 7;
  Start(options);
  Add(Spec(1, 16, 5));
  Add(Spec(2, 16, 5));
  const StepPlan first = Plan();  // 7 of the first, 3 of the second
  EXPECT_EQ(RowsBySlot(first), (std::map<int32_t, int>{{0, 7}, {1, 3}}));
  EXPECT_THAT(first.samples, ElementsAre(0, 0));
  Apply(first, 0);
  const StepPlan second = Plan();
  EXPECT_EQ(RowsBySlot(second), (std::map<int32_t, int>{{0, 7}, {1, 3}}));
  EXPECT_THAT(second.first_positions, ElementsAre(7, 3));
  Apply(second, 0);
  const StepPlan third = Plan();  // the last 2 of the first sample
  EXPECT_EQ(RowsBySlot(third), (std::map<int32_t, int>{{0, 2}, {1, 7}}));
  EXPECT_THAT(third.samples, ElementsAre(1, 0));
  Apply(third, 50);
  EXPECT_EQ(Events(*scheduler_), "1[0]=50");
}

TEST_F(SchedulerTest, PutsDecodeRowsFirstThenPrefillsThenAdmissions) {
  SchedulerOptions options = Roomy();
  options.max_step_tokens = 8;
  Start(options);
  Add(Spec(1, 8, 9));
  Apply(Plan(), 50);  // 1 decodes from here on
  Add(Spec(2, 12, 9));
  Apply(Plan(), 51);  // 2 has read 7
  Add(Spec(3, 8, 9));
  const StepPlan plan = Plan();
  EXPECT_THAT(plan.slots, ElementsAre(0, 1, 2));
  EXPECT_THAT(plan.row_begin, ElementsAre(0, 1, 6, 8));
  EXPECT_THAT(plan.samples, ElementsAre(1, 1, 0));
  // From now on the new one is still reading while both others decode.
  Apply(plan, 52);
  EXPECT_THAT(Plan().slots, ElementsAre(0, 1, 2));
}

TEST_F(SchedulerTest, ServesInOrderOfArrival) {
  SchedulerOptions options = Roomy();
  options.max_sequences = 2;
  Start(options);
  for (SequenceId id = 1; id <= 6; ++id) Add(Spec(id, 5, 1));
  RunToTheEnd();
  EXPECT_EQ(Events(*scheduler_),
            "1[0]=1 1:length 2[0]=2 2:length 3[0]=1 3:length 4[0]=2 4:length "
            "5[0]=1 5:length 6[0]=2 6:length");
}

TEST_F(SchedulerTest, AShortRequestDoesNotOvertakeALongOneThatWaitsForBlocks) {
  SchedulerOptions options = Roomy();
  options.num_blocks = 5;  // 4 of 32 tokens
  Start(options);
  Add(Spec(1, 60, 30));
  Add(Spec(2, 96, 2));
  Add(Spec(3, 3, 2));
  const StepPlan plan = Plan();
  EXPECT_THAT(plan.slots, ElementsAre(0));
  EXPECT_EQ(scheduler_->stats().num_waiting, 2);
}

TEST_F(SchedulerTest, RefusesWhatExceedsTheContext) {
  Start(Roomy());
  EXPECT_TRUE(scheduler_->Add(Spec(1, 1000, 24), now_).ok());
  const absl::Status status = scheduler_->Add(Spec(2, 1000, 25), now_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(MessageOf(status)),
              HasSubstr("1000 tokens and max_tokens is 25"));
  EXPECT_THAT(std::string(MessageOf(status)), HasSubstr("1 to 24"));
  EXPECT_EQ(
      scheduler_->Add(Spec(3, 1, std::numeric_limits<int64_t>::max()), now_)
          .code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(scheduler_->Add(Spec(4, 1, 0), now_).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(scheduler_->Add(Spec(5, 0, 1), now_).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Events(*scheduler_), "") << "refusals have no events";
}

TEST_F(SchedulerTest,
       ASequenceThatExactlyFillsTheCacheRunsAndOneMoreIsRefused) {
  SchedulerOptions options = Roomy();
  options.num_blocks = 4;  // 96 positions; the last token needs none
  Start(options);
  const absl::Status status = scheduler_->Add(Spec(1, 60, 38), now_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(MessageOf(status)),
              HasSubstr("needs 4 KV blocks of 32 tokens, and the whole cache "
                        "has 3"));
  Add(Spec(2, 60, 37));
  RunToTheEnd();
  EXPECT_THAT(Events(*scheduler_), HasSubstr("2[36]=1 2:length"));
  EXPECT_EQ(scheduler_->stats().num_preemptions, 0);
}

TEST_F(SchedulerTest, RefusesBeyondTheLongestQueueAndAcceptsAgainLater) {
  Start(Roomy());
  for (SequenceId id = 1; id <= kMaxWaitingSequences; ++id) {
    SequenceSpec spec = Spec(id, 1, 1);
    spec.tenant = id % 2 == 0 ? "even" : "odd";
    Add(spec);
  }
  EXPECT_EQ(scheduler_->Add(Spec(3 * kMaxWaitingSequences, 1, 1), now_).code(),
            absl::StatusCode::kResourceExhausted);
  scheduler_->Finish(17, FinishReason::kCancelled, now_);
  EXPECT_TRUE(scheduler_->Add(Spec(3 * kMaxWaitingSequences, 1, 1), now_).ok());
}

TEST_F(SchedulerTest, OneTenantLeavesPlacesInTheQueueForOthers) {
  Start(Roomy());
  const SequenceId num_allowed = MaxOfOneTenant(kMaxWaitingSequences);
  ASSERT_LT(num_allowed, static_cast<SequenceId>(kMaxWaitingSequences));
  for (SequenceId id = 1; id <= num_allowed; ++id) {
    SequenceSpec spec = Spec(id, 1, 1);
    spec.priority = static_cast<int32_t>(id % 3);  // another one is no way out
    Add(spec);
  }
  SequenceSpec spec = Spec(num_allowed + 1, 1, 1);
  const absl::Status status = scheduler_->Add(spec, now_);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(MessageOf(status)), HasSubstr(spec.tenant));
  spec.tenant = "modest";
  Add(spec);
  scheduler_->Finish(1, FinishReason::kCancelled, now_);
  Add(Spec(num_allowed + 2, 1, 1));
}

TEST_F(SchedulerTest, RefusesMorePromptTokensThanMayLiveUntilSomeEnd) {
  SchedulerOptions options = Roomy();
  constexpr int64_t kLong = kMaxLivePromptTokens / 64;
  options.max_context_tokens = kLong + 1;
  options.num_blocks = BlocksFor(kLong) + 2;
  options.prefix_cache = false;
  Start(options);
  const auto refusal = [this](SequenceId id, const std::string& tenant) {
    SequenceSpec spec = Spec(id, 2, 1);
    spec.tenant = tenant;
    return std::string(MessageOf(scheduler_->Add(spec, now_)));
  };
  for (SequenceId id = 1; id <= 56; ++id) Add(Spec(id, kLong, 1));
  EXPECT_THAT(refusal(100, kDefaultTenant), HasSubstr("one tenant"));
  for (SequenceId id = 57; id <= 64; ++id) {
    SequenceSpec spec = Spec(id, id == 64 ? kLong - 1 : kLong, 1);
    spec.tenant = "other";
    Add(spec);
  }
  EXPECT_THAT(refusal(100, "third"), HasSubstr("prompts being served"));
  // A running one holds its tokens until its rows have come back.
  scheduler_->Plan(now_).value();
  scheduler_->Finish(1, FinishReason::kCancelled, now_);
  EXPECT_THAT(refusal(100, "third"), HasSubstr("prompts being served"));
  scheduler_->Finish(2, FinishReason::kCancelled, now_);
  EXPECT_EQ(refusal(100, "third"), "");
  EXPECT_EQ(refusal(101, kDefaultTenant), "");
}

TEST_F(SchedulerTest, RefusesAnIdThatIsLiveAndForgetsOneThatIsNot) {
  Start(Roomy());
  Add(Spec(1, 1, 1));
  EXPECT_EQ(scheduler_->Add(Spec(1, 1, 1), now_).code(),
            absl::StatusCode::kAlreadyExists);
  RunToTheEnd();
  EXPECT_TRUE(scheduler_->Add(Spec(1, 1, 1), now_).ok());
}

TEST_F(SchedulerTest, StopTokensCountOnlyAfterMinTokens) {
  Start(Roomy());
  SequenceSpec spec = Spec(1, 3, 9);
  spec.stop.stop_token_ids = {49, 50};
  spec.stop.min_tokens = 3;
  Add(std::move(spec));
  for (int i = 0; i < 4; ++i) Apply(Plan(), 50);
  EXPECT_EQ(Events(*scheduler_), "1[0]=50 1[1]=50 1[2]=50 1[3]=50 1:stop");
}

TEST_F(SchedulerTest, AStopTokenInTheLastPlaceIsAStopNotALength) {
  Start(Roomy());
  SequenceSpec spec = Spec(1, 3, 1);
  spec.stop.stop_token_ids = {50};
  Add(std::move(spec));
  Apply(Plan(), 50);
  EXPECT_EQ(Events(*scheduler_), "1[0]=50 1:stop");
}

TEST_F(SchedulerTest, PreemptsTheNewestWhenBlocksRunOut) {
  SchedulerOptions options = Roomy();
  options.max_step_tokens = 128;
  options.num_blocks = 4;  // 3 blocks
  options.look_ahead = false;
  Start(options);
  Add(Spec(1, 31, 40));
  Add(Spec(2, 30, 40));
  Add(Spec(3, 4, 2));  // gets the third block
  const StepPlan first = Plan();
  EXPECT_EQ(first.num_sequences(), 3);
  Apply(first, 50);
  Events(*scheduler_);
  Add(Spec(4, 4, 2));
  const StepPlan second = Plan();  // position 31, 30 and 4: no new block
  Apply(second, 60);
  EXPECT_EQ(Events(*scheduler_), "1[1]=60 2[1]=61 3[1]=62 3:length");

  const StepPlan third = Plan();  // 1 takes the last block; 4 has to wait
  EXPECT_THAT(third.new_block_ids, ElementsAre(3));
  EXPECT_THAT(third.slots, ElementsAre(0, 1));
  Apply(third, 70);
  const StepPlan fourth = Plan();  // 2 needs one, is the newest, and waits
  EXPECT_THAT(fourth.slots, ElementsAre(0));
  EXPECT_EQ(scheduler_->stats().num_preemptions, 0);
  Apply(fourth, 80);
  Events(*scheduler_);
  // 1 needs its third block at position 64: 2 is preempted for it.
  StepPlan plan;
  for (int position = 34; position <= 64; ++position) {
    plan = Plan();
    EXPECT_THAT(plan.slots, ElementsAre(0));
    EXPECT_THAT(plan.first_positions, ElementsAre(position));
    Apply(plan, 90);
  }
  EXPECT_EQ(plan.new_block_ids.size(), 1u);
  EXPECT_EQ(scheduler_->stats().num_preemptions, 1);
  EXPECT_EQ(scheduler_->stats().num_waiting, 2);
  // When 1 is done, 2 comes before 4 and reads its prompt and its 3 tokens.
  while (scheduler_->stats().num_running == 1) {
    plan = Plan();
    Apply(plan, 90);
  }
  plan = Plan();
  ASSERT_EQ(plan.slot_starts.size(), 2u);
  EXPECT_EQ(plan.slot_starts[0].sampling.seed, 2u);
  EXPECT_EQ(plan.slot_starts[0].num_prompt_tokens, 30);
  EXPECT_EQ(plan.row_begin[1], 33);
  EXPECT_EQ(plan.token_ids[29], 229);
  EXPECT_EQ(plan.token_ids[30], 51);
  EXPECT_EQ(plan.token_ids[31], 61);
  EXPECT_EQ(plan.token_ids[32], 71);
  EXPECT_EQ(plan.slot_starts[1].sampling.seed, 4u);
}

TEST_F(SchedulerTest, WaitsForBlocksOnTheirWayBackBeforeItPreempts) {
  SchedulerOptions options = Roomy();
  options.num_blocks = 4;  // 3 blocks
  Start(options);
  Add(Spec(1, 31, 40));
  Add(Spec(2, 5, 40));
  Add(Spec(3, 5, 40));
  const StepPlan first = Plan();
  const StepPlan second = Plan();
  scheduler_->Finish(2, FinishReason::kCancelled, now_);
  Apply(first, 50);
  const StepPlan third = Plan();  // 1 needs a block, the one of 2 is in use
  EXPECT_THAT(third.slots, ElementsAre(2));
  Apply(second, 60);
  EXPECT_THAT(Plan().new_block_ids, ElementsAre(2));
  EXPECT_EQ(scheduler_->stats().num_preemptions, 0);
}

TEST_F(SchedulerTest, FinishAllEndsEverythingInOrderOfArrival) {
  SchedulerOptions options = Roomy();
  options.max_sequences = 2;
  Start(options);
  for (SequenceId id = 1; id <= 4; ++id) Add(Spec(5 - id, 5, 3));
  Apply(Plan(), 50);
  scheduler_->FinishAll(Unavailable("gone"), now_);
  EXPECT_EQ(Events(*scheduler_),
            "4[0]=50 3[0]=51 4:error 3:error 2:error 1:error");
  EXPECT_EQ(scheduler_->stats().num_free_blocks, 99);
  EXPECT_FALSE(scheduler_->Plan(now_).has_value());
}

TEST_F(SchedulerTest, TheHistoryTravelsOnlyWithPenaltiesAndHoldsTheOutput) {
  SchedulerOptions options = Roomy();
  options.num_blocks = 3;  // 2 blocks
  options.look_ahead = false;
  Start(options);
  Add(Spec(1, 31, 20));
  SequenceSpec spec = Spec(2, 3, 20);
  spec.sampling.presence_penalty = 0.5f;
  Add(std::move(spec));
  StepPlan plan = Plan();
  ASSERT_EQ(plan.slot_starts.size(), 2u);
  EXPECT_THAT(plan.slot_starts[0].history, IsEmpty());
  EXPECT_THAT(plan.slot_starts[1].history, ElementsAre(200, 201, 202));
  Apply(plan, 50);
  Apply(Plan(), 60);
  while (scheduler_->stats().num_preemptions == 0) Apply(Plan(), 70);
  do {
    plan = Plan();
    Apply(plan, 70);
  } while (plan.slot_starts.empty());
  EXPECT_EQ(plan.slot_starts[0].num_prompt_tokens, 3);
  EXPECT_THAT(plan.slot_starts[0].history, ElementsAre(200, 201, 202, 51, 61));
}

TEST_F(SchedulerTest, TokensOfACancelledSequenceInFlightAreDropped) {
  Start(Roomy());
  Add(Spec(1, 3, 9));
  Add(Spec(2, 3, 1));
  const StepPlan first = Plan();
  const StepPlan second = Plan();
  EXPECT_TRUE(scheduler_->Finish(1, FinishReason::kCancelled, now_));
  EXPECT_FALSE(scheduler_->Finish(1, FinishReason::kStop, now_));
  EXPECT_EQ(Events(*scheduler_), "1:cancelled");
  Apply(first, 50);
  Apply(second, 60);
  EXPECT_EQ(Events(*scheduler_), "2[0]=51 2:length");
  EXPECT_EQ(scheduler_->stats().num_discarded_rows, 4);
  EXPECT_EQ(scheduler_->stats().num_free_blocks, 99);
}

TEST_F(SchedulerTest, DeadlinesEndWhatWaitsAndWhatRuns) {
  SchedulerOptions options = Roomy();
  options.max_sequences = 1;
  Start(options);
  SequenceSpec running = Spec(1, 3, 100);
  running.deadline = 5000;
  SequenceSpec waiting = Spec(2, 3, 100);
  waiting.deadline = 3000;
  Add(std::move(running));
  Add(std::move(waiting));
  EXPECT_EQ(scheduler_->NextDeadline(), 3000);
  const StepPlan plan = Plan();
  now_ = 2999;
  scheduler_->ExpireDeadlines(now_);
  EXPECT_EQ(Events(*scheduler_), "");
  now_ = 3000;
  scheduler_->ExpireDeadlines(now_);
  const std::vector<SchedulerEvent> expired = scheduler_->TakeEvents();
  ASSERT_EQ(expired.size(), 1u);
  EXPECT_EQ(std::get<FinishEvent>(expired[0]).id, 2u);
  EXPECT_EQ(std::get<FinishEvent>(expired[0]).usage.queued_us, 2000);
  Apply(plan, 50);
  now_ = 5000;
  EXPECT_FALSE(scheduler_->Plan(now_).has_value());
  const std::vector<SchedulerEvent> events = scheduler_->TakeEvents();
  ASSERT_EQ(events.size(), 2u);
  const FinishEvent& end = std::get<FinishEvent>(events[1]);
  EXPECT_EQ(end.reason.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(end.usage.num_output_tokens, 1);
  EXPECT_EQ(end.usage.queued_us, 0);
  EXPECT_EQ(end.usage.first_token_us, 2000);
  EXPECT_EQ(end.usage.total_us, 4000);
  EXPECT_EQ(scheduler_->NextDeadline(), std::nullopt);
  EXPECT_EQ(scheduler_->stats().num_free_blocks, 99);
}

TEST_F(SchedulerTest, RefusesResultsThatDoNotFitAndChangesNothing) {
  Start(Roomy());
  EXPECT_EQ(scheduler_->Apply(StepResult{7, 2, {}, {}}, now_).code(),
            absl::StatusCode::kInternal);
  Add(Spec(1, 3, 9));
  const StepPlan plan = Plan();
  StepResult wrong = Answer(plan, 50);
  ++wrong.step;
  EXPECT_THAT(std::string(MessageOf(scheduler_->Apply(wrong, now_))),
              HasSubstr("step 3 of epoch 7 came instead of step 2"));
  wrong = Answer(plan, 50);
  wrong.epoch = 6;
  EXPECT_FALSE(scheduler_->Apply(wrong, now_).ok());
  wrong = Answer(plan, 50);
  wrong.tokens.clear();
  EXPECT_THAT(std::string(MessageOf(scheduler_->Apply(wrong, now_))),
              HasSubstr("0 tokens instead of 1"));
  EXPECT_EQ(Events(*scheduler_), "");
  Apply(plan, 50);
  EXPECT_EQ(Events(*scheduler_), "1[0]=50");
}

TEST_F(SchedulerTest, CountersAddUpAndGaugesDoNot) {
  Start(Roomy());
  Add(Spec(1, 3, 2));
  RunToTheEnd();
  SchedulerStats sum = scheduler_->stats();
  const SchedulerStats once = sum;
  sum.AddCounters(once);
  EXPECT_EQ(sum.num_steps, 2 * once.num_steps);
  EXPECT_EQ(sum.num_decode_rows, 2);
  EXPECT_EQ(sum.num_prefill_rows, 6);
  EXPECT_EQ(sum.num_finished, 2);
  EXPECT_EQ(sum.num_free_blocks, once.num_free_blocks);
}

}  // namespace
}  // namespace witan
