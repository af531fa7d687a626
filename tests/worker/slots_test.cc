#include "worker/slots.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <random>
#include <set>

#include "base/limits.h"

namespace witan {
namespace {

constexpr int64_t kVocab = 50;
const EngineLimits kLimits{.max_context_tokens = 200,
                           .max_step_tokens = 64,
                           .max_sequences = 4,
                           .num_blocks = 20};

// Slot 2 starts with a prompt of 40 tokens: two blocks.
StepPlan FirstStep() {
  StepPlan plan{.epoch = 1, .step = 1};
  plan.slot_starts = {SlotStart{.slot = 2}};
  plan.token_ids.assign(40, 7);
  plan.row_begin = {0, 40};
  plan.slots = {2};
  plan.first_positions = {0};
  plan.samples = {1};
  plan.new_block_begin = {0, 2};
  plan.new_block_ids = {5, 9};
  return plan;
}

StepPlan DecodeStep() {
  StepPlan plan{.epoch = 1, .step = 2};
  plan.token_ids = {kTokenOfPreviousStep};
  plan.row_begin = {0, 1};
  plan.slots = {2};
  plan.first_positions = {40};
  plan.samples = {1};
  plan.new_block_begin = {0, 0};
  return plan;
}

TEST(SlotTableTest, ADecodeRowTakesTheTokenSampledBeforeAndKeepsTheBlocks) {
  SlotTable slots(kLimits, kVocab);
  ResolvedStep step;
  ASSERT_TRUE(slots.Resolve(FirstStep(), step).ok());
  EXPECT_EQ(step.block_ids, (std::vector<int32_t>{5, 9}));
  EXPECT_EQ(step.sample_slots, (std::vector<int32_t>{2}));
  EXPECT_EQ(step.sample_rows, (std::vector<int32_t>{39}));
  EXPECT_EQ(step.sample_positions, (std::vector<int64_t>{40}));
  slots.Commit(step, std::vector<TokenId>{31});
  ASSERT_TRUE(slots.Resolve(DecodeStep(), step).ok());
  EXPECT_EQ(step.token_ids, (std::vector<TokenId>{31}));
  EXPECT_EQ(step.block_ids, (std::vector<int32_t>{5, 9}));
  EXPECT_EQ(step.sample_positions, (std::vector<int64_t>{41}));
}

TEST(SlotTableTest, EveryDamagedPlanIsRefused) {
  const std::map<std::string, std::function<void(StepPlan&)>> damages = {
      {"row_begin too short", [](StepPlan& p) { p.row_begin = {0}; }},
      {"row_begin beyond rows", [](StepPlan& p) { p.row_begin[1] = 41; }},
      {"row_begin from 1", [](StepPlan& p) { p.row_begin[0] = 1; }},
      {"no samples", [](StepPlan& p) { p.samples.clear(); }},
      {"no first position", [](StepPlan& p) { p.first_positions.clear(); }},
      {"slot out of range", [](StepPlan& p) { p.slots[0] = 4; }},
      {"negative slot", [](StepPlan& p) { p.slots[0] = -1; }},
      {"slot never started", [](StepPlan& p) { p.slot_starts.clear(); }},
      {"start out of range", [](StepPlan& p) { p.slot_starts[0].slot = 99; }},
      {"token out of vocabulary", [](StepPlan& p) { p.token_ids[3] = 50; }},
      {"negative token", [](StepPlan& p) { p.token_ids[3] = -2; }},
      {"previous token of a fresh slot",
       [](StepPlan& p) { p.token_ids[0] = kTokenOfPreviousStep; }},
      {"hole in the positions", [](StepPlan& p) { p.first_positions[0] = 1; }},
      {"null block", [](StepPlan& p) { p.new_block_ids[0] = kNullBlock; }},
      {"block out of range", [](StepPlan& p) { p.new_block_ids[0] = 20; }},
      {"too few blocks",
       [](StepPlan& p) {
         p.new_block_ids = {5};
         p.new_block_begin = {0, 1};
       }},
      {"blocks do not add up", [](StepPlan& p) { p.new_block_begin[1] = 1; }},
      {"too many rows",
       [](StepPlan& p) {
         p.token_ids.assign(65, 7);
         p.row_begin[1] = 65;
       }},
      {"biased token out of vocabulary",
       [](StepPlan& p) {
         p.slot_starts[0].sampling.logit_bias = {{50, 1}};
       }},
      {"bad word out of vocabulary",
       [](StepPlan& p) {
         p.slot_starts[0].sampling.bad_words = {{1}, {2, 50}};
       }},
      {"bad word without a token",
       [](StepPlan& p) { p.slot_starts[0].sampling.bad_words = {{}}; }},
      {"end token out of vocabulary",
       [](StepPlan& p) { p.slot_starts[0].sampling.end_token_ids = {-1}; }},
      {"a score that nobody asked for",
       [](StepPlan& p) {
         p.scored_rows = {0};
         p.scored_token_ids = {7};
       }},
      {"history out of vocabulary",
       [](StepPlan& p) { p.slot_starts[0].history = {50}; }},
  };
  for (const auto& [name, damage] : damages) {
    SlotTable slots(kLimits, kVocab);
    ResolvedStep step;
    StepPlan plan = FirstStep();
    ASSERT_TRUE(slots.Resolve(plan, step).ok());
    SlotTable fresh(kLimits, kVocab);
    damage(plan);
    EXPECT_EQ(fresh.Resolve(plan, step).code(),
              absl::StatusCode::kInvalidArgument)
        << name;
  }
}

TEST(SlotTableTest, ASlotMayStartBehindCachedPositions) {
  StepPlan plan = FirstStep();
  plan.slot_starts[0].num_cached_tokens = 64;
  plan.first_positions = {64};
  plan.new_block_begin = {0, 4};
  plan.new_block_ids = {5, 9, 11, 3};
  SlotTable slots(kLimits, kVocab);
  ResolvedStep step;
  ASSERT_TRUE(slots.Resolve(plan, step).ok());
  EXPECT_EQ(step.block_ids, (std::vector<int32_t>{5, 9, 11, 3}));
  EXPECT_EQ(step.sample_positions, (std::vector<int64_t>{104}));
}

// Slots 2 and 3 start, with five rows and a block each.
StepPlan TwoSequences() {
  StepPlan plan{.epoch = 1, .step = 1};
  plan.slot_starts = {SlotStart{.slot = 2}, SlotStart{.slot = 3}};
  plan.token_ids.assign(10, 7);
  plan.row_begin = {0, 5, 10};
  plan.slots = {2, 3};
  plan.first_positions = {0, 0};
  plan.samples = {1, 1};
  plan.new_block_begin = {0, 1, 2};
  plan.new_block_ids = {5, 9};
  return plan;
}

TEST(SlotTableTest, EveryDamageBetweenTwoSequencesIsRefused) {
  const std::map<std::string, std::function<void(StepPlan&)>> damages = {
      {"a slot used twice",
       [](StepPlan& p) {
         p.slots = {2, 2};
         p.slot_starts.pop_back();
       }},
      {"descending row_begin", [](StepPlan& p) { p.row_begin[1] = 12; }},
      {"negative row_begin", [](StepPlan& p) { p.row_begin[1] = -1; }},
      {"a first sequence without rows",
       [](StepPlan& p) { p.row_begin[1] = 0; }},
      {"a second sequence without rows",
       [](StepPlan& p) { p.row_begin[1] = 10; }},
      {"descending new_block_begin",
       [](StepPlan& p) { p.new_block_begin[1] = 3; }},
      {"negative new_block_begin",
       [](StepPlan& p) { p.new_block_begin[1] = -1; }},
      {"the blocks of the other sequence",
       [](StepPlan& p) { p.new_block_begin[1] = 2; }},
      {"a negative prompt",
       [](StepPlan& p) { p.slot_starts[1].num_prompt_tokens = -1; }},
      {"a negative number of cached positions",
       [](StepPlan& p) { p.slot_starts[1].num_cached_tokens = -32; }},
      {"part of a cached block",
       [](StepPlan& p) { p.slot_starts[1].num_cached_tokens = 31; }},
      {"cached positions before the first row",
       [](StepPlan& p) { p.slot_starts[1].num_cached_tokens = 32; }},
      {"more cached positions than blocks",
       [](StepPlan& p) {
         p.slot_starts[1].num_cached_tokens = 64;
         p.first_positions[1] = 64;
       }},
      {"two starts of one slot",
       [](StepPlan& p) { p.slot_starts[1].slot = 2; }},
      {"three starts of two slots",
       [](StepPlan& p) { p.slot_starts.push_back(p.slot_starts[0]); }},
      {"a start without rows", [](StepPlan& p) { p.slot_starts[1].slot = 1; }},
      {"a start of a negative slot",
       [](StepPlan& p) { p.slot_starts[1].slot = -1; }},
  };
  ResolvedStep step;
  SlotTable good(kLimits, kVocab);
  ASSERT_TRUE(good.Resolve(TwoSequences(), step).ok());
  for (const auto& [name, damage] : damages) {
    StepPlan plan = TwoSequences();
    damage(plan);
    SlotTable slots(kLimits, kVocab);
    EXPECT_EQ(slots.Resolve(plan, step).code(),
              absl::StatusCode::kInvalidArgument)
        << name;
  }
}

TEST(SlotTableTest, ARestartedSlotHasNoTokenOfThePreviousStep) {
  SlotTable slots(kLimits, kVocab);
  ResolvedStep step;
  ASSERT_TRUE(slots.Resolve(FirstStep(), step).ok());
  slots.Commit(step, std::vector<TokenId>{31});
  StepPlan restart = FirstStep();
  restart.token_ids[0] = kTokenOfPreviousStep;
  EXPECT_EQ(slots.Resolve(restart, step).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SlotTableTest, ASequenceMayNotRunBeyondTheContext) {
  EngineLimits limits = kLimits;
  limits.max_context_tokens = 40;
  SlotTable slots(limits, kVocab);
  ResolvedStep step;
  ASSERT_TRUE(slots.Resolve(FirstStep(), step).ok());
  slots.Commit(step, std::vector<TokenId>{31});
  EXPECT_FALSE(slots.Resolve(DecodeStep(), step).ok());
}

TEST(SlotTableTest, CountsForPenaltiesEqualANaiveCount) {
  std::mt19937 random(5);
  for (int round = 0; round < 50; ++round) {
    StepPlan plan = FirstStep();
    SlotStart& start = plan.slot_starts[0];
    start.sampling.presence_penalty = 1;
    start.num_prompt_tokens = static_cast<int32_t>(1 + random() % 20);
    std::map<TokenId, int32_t> naive;
    const int num_history =
        start.num_prompt_tokens + static_cast<int>(random() % 20);
    for (int i = 0; i < num_history; ++i) {
      const TokenId token = static_cast<TokenId>(random() % kVocab);
      start.history.push_back(token);
      naive[token] += i >= start.num_prompt_tokens;
    }
    plan.token_ids = start.history;
    plan.row_begin = {0, num_history};
    SlotTable slots(kLimits, kVocab);
    ResolvedStep step;
    ASSERT_TRUE(slots.Resolve(plan, step).ok());
    for (int i = 0; i < 24; ++i) {
      const SampleRow row = slots.RowToSample(2, num_history + i);
      std::map<TokenId, int32_t> ours;
      for (size_t j = 0; j < row.seen_ids.size(); ++j) {
        if (j > 0) {
          ASSERT_LT(row.seen_ids[j - 1], row.seen_ids[j]);
        }
        ours[row.seen_ids[j]] = row.output_counts[j];
      }
      ASSERT_EQ(ours, naive);
      // What was drawn counts when it has its row, unless another token was
      // forced in its place.
      TokenId token = static_cast<TokenId>(random() % kVocab);
      slots.Commit(step, std::vector<TokenId>{token});
      StepPlan next = DecodeStep();
      next.first_positions = {num_history + i};
      if (random() % 3 == 0) {
        token = static_cast<TokenId>(random() % kVocab);
        next.token_ids = {token};
      }
      ASSERT_TRUE(slots.Resolve(next, step).ok());
      ++naive[token];
    }
  }
}

// Slot 2 wants scores, and slot 3 with a prompt of 10 tokens behind it, too.
StepPlan ScoredStep() {
  StepPlan plan = FirstStep();
  plan.slot_starts[0].sampling.num_prompt_logprobs = 2;
  plan.slot_starts.push_back(SlotStart{.slot = 3});
  plan.slot_starts[1].sampling.num_prompt_logprobs = 0;
  plan.token_ids.assign(50, 7);
  plan.row_begin = {0, 40, 50};
  plan.slots = {2, 3};
  plan.first_positions = {0, 0};
  plan.samples = {1, 1};
  plan.new_block_begin = {0, 2, 3};
  plan.new_block_ids = {5, 9, 11};
  plan.scored_rows = {0, 39, 40, 48};
  plan.scored_token_ids = {1, 2, 3, 4};
  return plan;
}

TEST(SlotTableTest, ScoredRowsAreThoseOfTheirSlots) {
  SlotTable slots(kLimits, kVocab);
  ResolvedStep step;
  const absl::Status status = slots.Resolve(ScoredStep(), step);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(step.score_rows, (std::vector<int32_t>{0, 39, 40, 48}));
  EXPECT_EQ(step.score_slots, (std::vector<int32_t>{2, 2, 3, 3}));
  const SampleRow row = slots.RowToScore(2, 17);
  EXPECT_EQ(row.given_token_id, 17);
  EXPECT_EQ(row.params->num_top_logprobs, 2);
  EXPECT_EQ(slots.RowToScore(3, 17).params->num_top_logprobs, 0);
}

TEST(SlotTableTest, EveryDamageOfScoredRowsIsRefused) {
  const std::map<std::string, std::function<void(StepPlan&)>> damages = {
      {"no token", [](StepPlan& p) { p.scored_token_ids.pop_back(); }},
      {"no row", [](StepPlan& p) { p.scored_rows.pop_back(); }},
      {"a row twice", [](StepPlan& p) { p.scored_rows[1] = 0; }},
      {"descending rows", [](StepPlan& p) { p.scored_rows[2] = 38; }},
      {"a negative row", [](StepPlan& p) { p.scored_rows[0] = -1; }},
      {"a row behind the last", [](StepPlan& p) { p.scored_rows[3] = 50; }},
      {"a negative token", [](StepPlan& p) { p.scored_token_ids[0] = -1; }},
      {"a token out of vocabulary",
       [](StepPlan& p) { p.scored_token_ids[3] = 50; }},
      {"a slot that asked for none",
       [](StepPlan& p) { p.slot_starts[1].sampling.num_prompt_logprobs = -1; }},
  };
  ResolvedStep step;
  for (const auto& [name, damage] : damages) {
    StepPlan plan = ScoredStep();
    damage(plan);
    SlotTable slots(kLimits, kVocab);
    EXPECT_EQ(slots.Resolve(plan, step).code(),
              absl::StatusCode::kInvalidArgument)
        << name;
  }
}

TEST(SlotTableTest, BannedTokensEqualASearchOfTheWholeHistory) {
  std::mt19937 random(11);
  const auto token = [&] { return static_cast<TokenId>(random() % 3); };
  for (int round = 0; round < 100; ++round) {
    // Behind cached positions, after a preemption, with few different tokens.
    StepPlan plan = FirstStep();
    SlotStart& start = plan.slot_starts[0];
    start.num_cached_tokens = round % 2 == 0 ? 32 : 0;
    start.num_prompt_tokens = static_cast<int32_t>(1 + random() % 39);
    start.sampling.min_tokens = static_cast<int64_t>(random() % 50);
    start.sampling.end_token_ids = {40, 41};
    for (int i = 0; i < 20; ++i) {
      auto& word = start.sampling.bad_words.emplace_back();
      for (uint64_t n = random() % 5 + 1; n > 0; --n) word.push_back(token());
      word.back() = static_cast<TokenId>(10 + i);
    }
    start.sampling.bad_words.push_back({0, 0});
    for (int i = 0; i < 40; ++i) start.history.push_back(token());
    plan.token_ids.assign(start.history.begin() + start.num_cached_tokens,
                          start.history.end());
    plan.row_begin = {0, plan.num_rows()};
    plan.first_positions = {start.num_cached_tokens};
    std::vector<TokenId> history = start.history;
    SlotTable slots(kLimits, kVocab);
    ResolvedStep step;
    ASSERT_TRUE(slots.Resolve(plan, step).ok());
    for (int i = 0; i < 20; ++i) {
      std::set<TokenId> naive;
      for (const auto& word : start.sampling.bad_words) {
        std::vector<TokenId> end = history;
        end.push_back(word.back());
        if (word.size() <= end.size() &&
            std::equal(word.rbegin(), word.rend(), end.rbegin())) {
          naive.insert(word.back());
        }
      }
      if (std::ssize(history) - start.num_prompt_tokens <
          start.sampling.min_tokens) {
        naive.insert({40, 41});
      }
      const SampleRow row = slots.RowToSample(2, std::ssize(history));
      ASSERT_EQ(std::set<TokenId>(row.banned_ids.begin(), row.banned_ids.end()),
                naive);
      history.push_back(token());
      slots.Commit(step, std::vector<TokenId>{history.back()});
      StepPlan next = DecodeStep();
      next.first_positions = {40 + i};
      ASSERT_TRUE(slots.Resolve(next, step).ok());
    }
  }
}

TEST(SlotTableTest, ANewOccupantStartsFromNothing) {
  SlotTable slots(kLimits, kVocab);
  ResolvedStep step;
  ASSERT_TRUE(slots.Resolve(FirstStep(), step).ok());
  slots.Commit(step, std::vector<TokenId>{31});
  StepPlan second = FirstStep();
  second.new_block_ids = {11, 12};
  ASSERT_TRUE(slots.Resolve(second, step).ok());
  EXPECT_EQ(step.block_ids, (std::vector<int32_t>{11, 12}));
  EXPECT_EQ(step.sample_positions, (std::vector<int64_t>{40}));
}

}  // namespace
}  // namespace witan
