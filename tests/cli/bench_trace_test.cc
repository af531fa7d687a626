// Traces: both published formats, and every way in which a line can be wrong.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/limits.h"
#include "cli/bench/plan.h"
#include "cli/bench/trace.h"

namespace witan::bench {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kAll = 1000;
constexpr char kHeader[] = "TIMESTAMP,ContextTokens,GeneratedTokens\n";

std::string ErrorOf(const std::string& text) {
  return ParseTrace(text, kAll).status().ToString();
}

TEST(BenchTraceTest, ReadsJsonLines) {
  const auto trace = ParseTrace(
      "{\"timestamp\": 1000, \"input_length\": 1100, \"output_length\": 52, "
      "\"hash_ids\": [46, 47, 2354]}\r\n"
      "\n"
      "{\"timestamp\": 1000.25, \"input_length\": 7, \"output_length\": 1, "
      "\"type\": \"chat\", \"tenant\": \"t\", \"priority\": -3}",
      kAll);
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->entries.size(), 2u);
  const TraceEntry& first = trace->entries[0];
  EXPECT_EQ(first.at_us, 0);  // the first one is the beginning
  EXPECT_EQ(first.prompt_tokens, 1100);
  EXPECT_EQ(first.output_tokens, 52);
  EXPECT_THAT(first.block_ids, ElementsAre(46, 47, 2354));
  EXPECT_EQ(first.tenant, std::nullopt);
  const TraceEntry& second = trace->entries[1];
  EXPECT_EQ(second.at_us, 250);
  EXPECT_EQ(second.line, 3);
  EXPECT_EQ(second.tenant, "t");
  EXPECT_EQ(second.priority, -3);
  EXPECT_THAT(trace->ignored_fields, ElementsAre("type"));
}

TEST(BenchTraceTest, ReadsCsvWithTimesOfDay) {
  const auto trace = ParseTrace(std::string(kHeader) +
                                    "2024-02-28 23:59:59.9999990,374,44\n"
                                    "2024-02-29T00:00:00.5,396,109\n"
                                    "2024-03-01 00:00:00,1,1\n"
                                    "2024-03-01 01:00:00.000001+00:30,2,2\n"
                                    "2024-03-01 01:00:00Z,3,3\n",
                                kAll);
  ASSERT_TRUE(trace.ok()) << trace.status();
  std::vector<Micros> times;
  for (const TraceEntry& entry : trace->entries) times.push_back(entry.at_us);
  constexpr Micros kDay = Micros{86400} * kMicrosPerSecond;
  EXPECT_THAT(times, ElementsAre(0, 500001, kDay + 1,
                                 kDay + 1800 * kMicrosPerSecond + 2,
                                 kDay + 3600 * kMicrosPerSecond + 1));
  EXPECT_EQ(trace->entries[1].prompt_tokens, 396);
  EXPECT_EQ(trace->entries[1].output_tokens, 109);
}

TEST(BenchTraceTest, EntriesAreSortedByTimeAndCutByNumber) {
  const std::string text = std::string(kHeader) +
                           "2024-01-01 00:00:03,1,1\n2024-01-01 00:00:01,2,2\n"
                           "2024-01-01 00:00:03,3,3\n2024-01-01 00:00:00,4,4\n";
  const auto all = ParseTrace(text, kAll);
  ASSERT_TRUE(all.ok());
  std::vector<int64_t> order;
  for (const TraceEntry& entry : all->entries) {
    order.push_back(entry.prompt_tokens);
  }
  EXPECT_THAT(order, ElementsAre(4, 2, 1, 3));
  const auto cut = ParseTrace(text, 3);
  ASSERT_EQ(cut->entries.size(), 3u);
  EXPECT_EQ(cut->entries[0].prompt_tokens, 2);
}

TEST(BenchTraceTest, AWrongLineIsNamedWithItsFieldAndValue) {
  const std::string good =
      "{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3}\n";
  const auto second = [&](const std::string& line) {
    return ErrorOf(good + line);
  };
  const std::pair<std::string, const char*> wrong[] = {
      {ErrorOf(""), "has no entry"},
      {ErrorOf("\n\n"), "has no entry"},
      {ErrorOf(kHeader), "has no entry"},
      {ErrorOf("time,prompt,output\n"),
       "line 1: \"time,prompt,output\" is neither a JSON object nor the header "
       "TIMESTAMP,ContextTokens,GeneratedTokens"},
      {second("{\"timestamp\": 1"), "line 2: \"{\"timestamp\": 1\" is not a"},
      {second("[1]"), "line 2: \"[1]\" is not a JSON object"},
      {second("{\"input_length\": 2, \"output_length\": 3}"),
       "line 2: timestamp is missing; it is in milliseconds"},
      {second("{\"timestamp\": 1, \"output_length\": 3}"),
       "line 2: input_length is missing"},
      {second("{\"timestamp\": -1, \"input_length\": 2, \"output_length\": 3}"),
       "line 2: timestamp is -1; it must be a number of milliseconds from 0"},
      {second("{\"timestamp\": \"x\", \"input_length\": 2, "
              "\"output_length\": 3}"),
       "timestamp is \"x\""},
      {second("{\"timestamp\": 1e300, \"input_length\": 2, "
              "\"output_length\": 3}"),
       "timestamp is 1e+300"},
      {second("{\"timestamp\": 1, \"input_length\": 2.5, "
              "\"output_length\": 3}"),
       "input_length is 2.5; it must be a whole number from 0 to"},
      {second("{\"timestamp\": 1, \"input_length\": 18446744073709551615, "
              "\"output_length\": 3}"),
       "input_length is 18446744073709551615"},
      {second("{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3, "
              "\"hash_ids\": 4}"),
       "hash_ids is 4; it must be a list"},
      {second("{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3, "
              "\"hash_ids\": [-4]}"),
       "hash_ids is -4"},
      {second("{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3, "
              "\"tenant\": \"a b\"}"),
       "line 2: tenant: holds the byte 0x20"},
      {second("{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3, "
              "\"priority\": 11}"),
       "priority is 11; it must be a whole number from -10 to 10"},
      {second(std::string(kMaxTraceLineBytes + 1, ' ')),
       "line 2 has 1048577 bytes; at most 1048576 are read"},
  };
  for (const auto& [error, message] : wrong) {
    EXPECT_THAT(error,
                AllOf(HasSubstr("INVALID_ARGUMENT"), HasSubstr(message)));
  }
}

TEST(BenchTraceTest, AWrongRowIsNamedWithItsColumnAndValue) {
  const std::pair<const char*, const char*> wrong[] = {
      {"2024-01-01 00:00:00,1", "is not three columns"},
      {"2024-01-01 00:00:00,1,2,3", "is not three columns"},
      {"2024-13-01 00:00:00,1,2", "TIMESTAMP is 2024-13-01 00:00:00; it must"},
      {"2024-01-00 00:00:00,1,2", "TIMESTAMP is"},
      {"2024-01-01 24:00:00,1,2", "TIMESTAMP is"},
      {"2024-01-01 00:60:00,1,2", "TIMESTAMP is"},
      {"2024-01-01,1,2", "TIMESTAMP is"},
      {"2024-01-01 00:00:00+1,1,2", "TIMESTAMP is"},
      {"2024-01-01 00:00:00 x,1,2", "TIMESTAMP is"},
      {",1,2", "TIMESTAMP is"},
      {"2024-01-01 00:00:00,,2", "ContextTokens is \"\""},
      {"2024-01-01 00:00:00,x,2", "ContextTokens is \"x\""},
      {"2024-01-01 00:00:00,1,-2", "GeneratedTokens is -2"},
      {"2024-01-01 00:00:00,1,99999999999", "GeneratedTokens is 99999999999"},
  };
  for (const auto& [row, message] : wrong) {
    EXPECT_THAT(ErrorOf(std::string(kHeader) + row),
                AllOf(HasSubstr("line 2: "), HasSubstr(message)));
  }
  EXPECT_THAT(ErrorOf(std::string(kHeader) +
                      "2020-01-01 00:00:00,1,1\n2024-01-01 00:00:00,1,1\n"),
              HasSubstr("line 3: its time is more than 366 days after"));
}

TEST(BenchTraceTest, DamagedTracesAreReadOrRefusedButNeverMore) {
  const std::string texts[] = {
      "{\"timestamp\": 12, \"input_length\": 600, \"output_length\": 3, "
      "\"hash_ids\": [1, 2], \"tenant\": \"a\", \"priority\": 1}\n",
      std::string(kHeader) + "2024-01-01 00:00:00.25+01:00,12,3\n"};
  std::mt19937 random(11);
  int num_read = 0;
  int num_refused = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string text = texts[i % 2];
    for (int k = 0; k < 1 + i % 3; ++k) {
      text[random() % text.size()] = static_cast<char>(random() % 256);
    }
    auto trace = ParseTrace(text, kAll);
    if (trace.ok() && FitTrace({}, 4096, &*trace).ok()) {
      ++num_read;
    } else {
      ++num_refused;
    }
  }
  EXPECT_GT(num_read, 0);
  EXPECT_GT(num_refused, 0);
}

// --- Fitting ----------------------------------------------------------------

Trace OneEntry(int64_t prompt, int64_t output, std::vector<int64_t> ids = {}) {
  return {.entries = {{.prompt_tokens = prompt,
                       .output_tokens = output,
                       .block_ids = std::move(ids),
                       .line = 5}}};
}

TEST(BenchTraceTest, WhatCannotBeServedIsRefusedOrLeftOutAndCounted) {
  const std::tuple<Trace, const char*> wrong[] = {
      {OneEntry(0, 3), "line 5: its prompt has no token"},
      {OneEntry(3, 0), "line 5: its output has no token"},
      {OneEntry(90, 11),
       "line 5: its prompt of 90 and output of 11 tokens exceed the model's "
       "context of 100; leave such entries out with --replay-skip-unservable"},
      {OneEntry(20, 1, {1, 2, 3}),
       "its hash_ids name 3 blocks of 10 tokens, more than its prompt of 20"}};
  for (const auto& [trace, message] : wrong) {
    const TraceFit fit = {.block_tokens = 10};
    Trace strict = trace;
    EXPECT_THAT(FitTrace(fit, 100, &strict).status().ToString(),
                HasSubstr(message));
    Trace lenient = trace;
    lenient.entries.push_back(OneEntry(21, 1, {1, 2, 3}).entries.front());
    TraceFit skipping = fit;
    skipping.skip_unservable = true;
    const auto num_skipped = FitTrace(skipping, 100, &lenient);
    ASSERT_TRUE(num_skipped.ok()) << num_skipped.status();
    EXPECT_EQ(*num_skipped, 1);
    EXPECT_EQ(lenient.entries.size(), 1u);
    Trace alone = trace;
    EXPECT_THAT(FitTrace(skipping, 100, &alone).status().ToString(),
                HasSubstr("none of its 1 entries fits"));
  }
}

TEST(BenchTraceTest, SpeedAndScaleChangeTimesAndLengths) {
  Trace trace = OneEntry(1000, 10, {1, 2});
  trace.entries.push_back(trace.entries.front());
  trace.entries[1].at_us = 9000;
  const TraceFit fit = {.speed = 3, .length_scale = 0.125};
  ASSERT_TRUE(FitTrace(fit, 200, &trace).ok());
  EXPECT_EQ(trace.entries[1].at_us, 3000);
  EXPECT_EQ(trace.entries[1].prompt_tokens, 125);
  EXPECT_EQ(trace.entries[1].output_tokens, 2);  // 1.25, rounded up
  EXPECT_EQ(ScaledBlockTokens(fit), 64);
}

// Prompts of 40, 60 and 40 tokens in blocks of 16.
Plan PlanOfBlocks() {
  Workload workload;
  workload.classes.push_back({.name = "trace"});
  workload.trace_fit.block_tokens = 16;
  const auto trace = ParseTrace(
      "{\"timestamp\": 0, \"input_length\": 40, \"output_length\": 1, "
      "\"hash_ids\": [7, 8, 9]}\n"
      "{\"timestamp\": 5, \"input_length\": 60, \"output_length\": 2, "
      "\"hash_ids\": [7, 8, 9]}\n"
      "{\"timestamp\": 9, \"input_length\": 40, \"output_length\": 1, "
      "\"hash_ids\": [7, 10]}\n",
      kAll);
  EXPECT_TRUE(trace.ok()) << trace.status();
  workload.trace = *trace;
  auto plan = Plan::Make(workload, {100000, 128});
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

TEST(BenchTraceTest, EqualBlockIdsAreEqualTokens) {
  const Plan plan = PlanOfBlocks();
  ASSERT_EQ(plan.open_loop().size(), 3u);
  EXPECT_EQ(plan.open_loop()[2].due_us, 9000);
  std::vector<std::vector<int32_t>> ids;
  for (const PlannedRequest& request : plan.open_loop()) {
    ids.push_back(plan.TokenIds(request));
  }
  EXPECT_EQ(ids[0].size(), 40u);
  EXPECT_EQ(ids[1].size(), 60u);
  const auto common = [&](size_t a, size_t b) {
    const size_t length = std::min(ids[a].size(), ids[b].size());
    return std::mismatch(ids[a].begin(), ids[a].begin() + length,
                         ids[b].begin())
               .first -
           ids[a].begin();
  };
  EXPECT_EQ(common(0, 1), 40);  // block 9 is in the first one in part
  EXPECT_EQ(common(0, 2), 16);
}

TEST(BenchTraceTest, APromptSharesItsBlocksAsFarAsItReaches) {
  const Plan plan = PlanOfBlocks();
  std::vector<int64_t> shared;
  for (const PlannedRequest& request : plan.open_loop()) {
    shared.push_back(plan.SharedTokens(request));
  }
  EXPECT_THAT(shared, ElementsAre(40, 48, 32));
}

TEST(BenchTraceTest, WarmUpLeavesNoBlockOfTheTraceInACache) {
  const Plan plan = PlanOfBlocks();
  for (int64_t i = 0; i < 6; ++i) {
    const auto warm = plan.TokenIds(plan.WarmupRequest(i));
    EXPECT_EQ(warm.size(), i % 3 == 1 ? 60u : 40u);
    for (const PlannedRequest& request : plan.open_loop()) {
      // Of 100000 ids; blocks that began alike would go on alike.
      EXPECT_NE(warm.front(), plan.TokenIds(request).front());
    }
  }
}

}  // namespace
}  // namespace witan::bench
