// What a benchmark sends, and when: a function of options and seed, held
// against the laws that the options name.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "base/limits.h"
#include "cli/bench/distribution.h"
#include "cli/bench/plan.h"
#include "cli/bench/workload.h"

namespace witan::bench {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr ModelFacts kModel = {.vocab_size = 320, .max_context_tokens = 4096};

// Standard deviations that a mean may be off. The draws are fixed by their
// keys, so this is about the law, never about luck of the day.
constexpr double kSigmas = 4;

using Settings = std::map<std::string, std::string>;

Workload WorkloadOf(const Settings& settings, uint64_t seed = 1,
                    double duration_s = 0) {
  const auto workload = MakeWorkload(
      {.settings = settings, .duration_s = duration_s, .seed = seed});
  EXPECT_TRUE(workload.ok()) << workload.status();
  return workload.value_or(Workload{});
}

Plan PlanOf(const Settings& settings, uint64_t seed = 1,
            double duration_s = 0) {
  auto plan = Plan::Make(WorkloadOf(settings, seed, duration_s), kModel);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

std::string ErrorOf(const WorkloadOptions& options) {
  return MakeWorkload(options).status().ToString();
}

// --- Distributions ----------------------------------------------------------

struct Moments {
  double mean = 0;
  double deviation = 0;
};

Moments MomentsOf(const std::string& text, int count) {
  const auto distribution = Distribution::Parse(text);
  EXPECT_TRUE(distribution.ok()) << distribution.status();
  double sum = 0;
  double squares = 0;
  Random random({7});
  for (int i = 0; i < count; ++i) {
    const double value = static_cast<double>(distribution->Draw(random));
    sum += value;
    squares += value * value;
  }
  const double mean = sum / count;
  return {mean, std::sqrt(squares / count - mean * mean)};
}

TEST(BenchDistributionTest, EachFormHasTheMomentsOfItsLaw) {
  constexpr int kDraws = 20000;
  // Bounds so wide that clipping moves nothing; rounding adds a variance of
  // 1/12.
  const struct {
    const char* text;
    double mean;
    double deviation;
  } laws[] = {
      {"128", 128, 0},
      {"uniform:64-256", 160, std::sqrt((193.0 * 193 - 1) / 12)},
      {"normal:500,50,1-1000", 500, 50},
      {"lognormal:200,0.5,1-100000", 200 * std::exp(0.125),
       200 * std::exp(0.125) * std::sqrt(std::exp(0.25) - 1)},
      {"exponential:300,1-100000", 300, 300},
  };
  for (const auto& law : laws) {
    const Moments seen = MomentsOf(law.text, kDraws);
    EXPECT_NEAR(seen.mean, law.mean,
                kSigmas * law.deviation / std::sqrt(kDraws) + 1e-9)
        << law.text;
    // The deviation of heavy tails converges slowly.
    EXPECT_NEAR(seen.deviation, law.deviation, 0.05 * law.deviation + 0.01)
        << law.text;
  }
}

TEST(BenchDistributionTest, DrawsBeyondABoundBecomeTheBound) {
  constexpr int kDraws = 20000;
  const auto law = Distribution::Parse("exponential:100,20-150");
  ASSERT_TRUE(law.ok());
  EXPECT_THAT(std::pair(law->min(), law->max()), Pair(20, 150));
  std::map<int64_t, int> counts;
  Random random({3});
  for (int i = 0; i < kDraws; ++i) ++counts[law->Draw(random)];
  EXPECT_EQ(counts.begin()->first, 20);
  EXPECT_EQ(counts.rbegin()->first, 150);
  // Rounded to the bound is what lies beyond it, and half a token before it.
  const double below = 1 - std::exp(-0.205);
  const double above = std::exp(-1.495);
  for (const auto& [bound, share] :
       {std::pair(20, below), std::pair(150, above)}) {
    EXPECT_NEAR(counts[bound] / static_cast<double>(kDraws), share,
                kSigmas * std::sqrt(share * (1 - share) / kDraws))
        << bound;
  }
}

TEST(BenchDistributionTest, EveryDistributionHasAMaximum) {
  const std::pair<const char*, int64_t> maxima[] = {
      {"77", 77},
      {"uniform:3-9", 9},
      {"normal:100,10", 140},
      {"lognormal:100,0.25", 272},  // 100 e = 271.8
      {"exponential:100", 800},
      {"normal:100,10,1-120", 120}};
  for (const auto& [text, max] : maxima) {
    EXPECT_EQ(Distribution::Parse(text)->max(), max) << text;
  }
}

TEST(BenchDistributionTest, WhatIsNoDistributionIsQuoted) {
  for (const char* text : {"",
                           "0",
                           "-3",
                           "1.5",
                           "12x",
                           "uniform:5",
                           "uniform:9-3",
                           "uniform:0-3",
                           "uniform:1-2-3",
                           "normal:5",
                           "normal:,5",
                           "normal:5,-1",
                           "normal:0,1",
                           "normal:nan,1",
                           "lognormal:5,11",
                           "exponential:",
                           "exponential:5,6",
                           "exponential:5,9-3",
                           "poisson:4",
                           "99999999999999999999"}) {
    const auto parsed = Distribution::Parse(text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
  EXPECT_THAT(Distribution::Parse("zipf:3").status().ToString(),
              AllOf(HasSubstr("\"zipf:3\" is not a distribution"),
                    HasSubstr("uniform:MIN-MAX")));
}

// --- Arrivals ---------------------------------------------------------------

TEST(BenchArrivalsTest, ArrivalsPerSecondHaveTheMeanAndVarianceOfPoisson) {
  constexpr double kRate = 20;
  constexpr int kSeconds = 2000;
  const Plan plan = PlanOf({{"rate", "20"}}, 1, kSeconds);
  std::vector<int> counts(kSeconds);
  for (const PlannedRequest& request : plan.open_loop()) {
    ++counts[static_cast<size_t>(request.due_us / kMicrosPerSecond)];
  }
  double sum = 0;
  double squares = 0;
  for (const int count : counts) {
    sum += count;
    squares += count * count;
  }
  const double mean = sum / kSeconds;
  const double variance = squares / kSeconds - mean * mean;
  EXPECT_NEAR(mean, kRate, kSigmas * std::sqrt(kRate / kSeconds));
  // Var(s^2) of a Poisson law is (R + 2 R^2) / n.
  EXPECT_NEAR(variance, kRate,
              kSigmas * std::sqrt((kRate + 2 * kRate * kRate) / kSeconds));
}

TEST(BenchArrivalsTest, GapsAreExponential) {
  constexpr double kRate = 4;
  constexpr size_t kRequests = 5000;
  const Plan plan = PlanOf({{"rate", "4"}, {"num-requests", "5000"}}, 9);
  ASSERT_EQ(plan.open_loop().size(), kRequests);
  std::vector<double> gaps;
  Micros last = 0;
  for (const PlannedRequest& request : plan.open_loop()) {
    gaps.push_back(static_cast<double>(request.due_us - last) / 1e6);
    last = request.due_us;
  }
  std::sort(gaps.begin(), gaps.end());
  double distance = 0;  // of Kolmogorov and Smirnov
  for (size_t i = 0; i < kRequests; ++i) {
    const double expected = 1 - std::exp(-kRate * gaps[i]);
    const double seen = static_cast<double>(i) / kRequests;
    distance = std::max(distance, std::abs(expected - seen));
  }
  // Exceeded by one law in a thousand that is exponential.
  EXPECT_LT(distance, 1.95 / std::sqrt(kRequests));
}

TEST(BenchArrivalsTest, BurstsComeTogetherAtThePoissonRate) {
  constexpr int kBursts = 2000;
  const Plan plan =
      PlanOf({{"rate", "5"}, {"burst", "8"}, {"num-requests", "16004"}}, 2);
  std::map<Micros, int> bursts;
  for (const PlannedRequest& request : plan.open_loop()) {
    ++bursts[request.due_us];
  }
  ASSERT_EQ(bursts.size(), kBursts + 1u);
  EXPECT_EQ(bursts.rbegin()->second, 4);  // num-requests ends the last one
  bursts.erase(std::prev(bursts.end()));
  for (const auto& [due, count] : bursts) EXPECT_EQ(count, 8);
  const double seconds = static_cast<double>(bursts.rbegin()->first) / 1e6;
  EXPECT_NEAR(seconds, kBursts / 5.0, kSigmas * std::sqrt(kBursts) / 5.0);
}

TEST(BenchArrivalsTest, AnInfiniteRateIsAllAtOnceAndAStartIsWaitedFor) {
  const Plan plan =
      PlanOf({{"rate", "inf"}, {"num-requests", "50"}, {"start-s", "1.5"}});
  EXPECT_EQ(plan.num_requests(), 50);
  for (const PlannedRequest& request : plan.open_loop()) {
    EXPECT_EQ(request.due_us, 1500000);
  }
}

TEST(BenchArrivalsTest, ClassesArriveByTheirOwnLawsInOneOrder) {
  const auto workload =
      MakeWorkload({.settings = {{"output-tokens", "9"}},
                    .classes = {"chat:rate=10,prompt-tokens=normal:128,32",
                                "bursts:rate=0.5,burst=4,prompt-tokens=1024",
                                "decoders:clients=32,output-tokens=200"},
                    .duration_s = 100,
                    .seed = 5});
  ASSERT_TRUE(workload.ok()) << workload.status();
  const auto plan = Plan::Make(*workload, kModel);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->num_requests(), std::nullopt);  // clients go on until the end
  std::map<int, int> counts;
  Micros last = 0;
  for (const PlannedRequest& request : plan->open_loop()) {
    EXPECT_LE(last, request.due_us);
    EXPECT_LT(request.due_us, 100 * kMicrosPerSecond);
    EXPECT_EQ(request.output_tokens, 9);
    last = request.due_us;
    ++counts[request.class_index];
  }
  EXPECT_NEAR(counts[0], 1000, kSigmas * std::sqrt(1000));
  EXPECT_NEAR(counts[1] / 4.0, 50, kSigmas * std::sqrt(50));
  EXPECT_EQ(counts.contains(2), false);
  EXPECT_EQ(plan->ClosedLoopRequest(2, 17).output_tokens, 200);
}

// --- Requests ---------------------------------------------------------------

std::vector<std::vector<int32_t>> PromptsOf(const Plan& plan) {
  std::vector<std::vector<int32_t>> prompts;
  for (const PlannedRequest& request : plan.open_loop()) {
    prompts.push_back(plan.TokenIds(request));
  }
  return prompts;
}

TEST(BenchPlanTest, EqualSeedsGiveEqualLoadsAndOtherSeedsOthers) {
  const Settings settings = {{"rate", "50"},
                             {"num-requests", "100"},
                             {"prompt-tokens", "lognormal:40,0.5"},
                             {"temperature", "0.7"}};
  const Plan one = PlanOf(settings, 1);
  const Plan again = PlanOf(settings, 1);
  const Plan other = PlanOf(settings, 2);
  EXPECT_EQ(PromptsOf(one), PromptsOf(again));
  EXPECT_NE(PromptsOf(one), PromptsOf(other));
  std::set<uint64_t> seeds;
  for (size_t i = 0; i < one.open_loop().size(); ++i) {
    EXPECT_EQ(one.open_loop()[i].due_us, again.open_loop()[i].due_us);
    EXPECT_EQ(one.open_loop()[i].seed, again.open_loop()[i].seed);
    seeds.insert(one.open_loop()[i].seed);
  }
  EXPECT_EQ(seeds.size(), one.open_loop().size());
}

TEST(BenchPlanTest, PromptsHaveTheirLengthAndAllTokensOfTheVocabulary) {
  const Plan plan = PlanOf({{"rate", "inf"},
                            {"num-requests", "200"},
                            {"prompt-tokens", "uniform:10-90"}});
  std::map<int32_t, int> counts;
  int total = 0;
  for (const PlannedRequest& request : plan.open_loop()) {
    const std::vector<int32_t> ids = plan.TokenIds(request);
    EXPECT_EQ(static_cast<int64_t>(ids.size()), request.prompt_tokens);
    for (const int32_t id : ids) ++counts[id];
    total += static_cast<int>(ids.size());
  }
  EXPECT_EQ(static_cast<int64_t>(counts.size()), kModel.vocab_size);
  EXPECT_EQ(counts.begin()->first, 0);
  EXPECT_EQ(counts.rbegin()->first, kModel.vocab_size - 1);
  // Chi-squared with 319 degrees of freedom: mean 319, deviation 25.3.
  const double expected = total / static_cast<double>(kModel.vocab_size);
  double chi_squared = 0;
  for (const auto& [id, count] : counts) {
    chi_squared += (count - expected) * (count - expected) / expected;
  }
  EXPECT_NEAR(chi_squared, 319, kSigmas * 25.3);
}

TEST(BenchPlanTest, RequestsOfOnePrefixBeginAlikeAndEndDifferently) {
  const Plan plan = PlanOf({{"rate", "inf"},
                            {"num-requests", "60"},
                            {"prompt-tokens", "20"},
                            {"shared-prefix-tokens", "50"},
                            {"num-prefixes", "4"},
                            {"tenant", "acme"},
                            {"tenant-per-prefix", "true"}});
  std::map<int64_t, std::vector<int32_t>> prefixes;
  std::set<std::vector<int32_t>> tails;
  for (const PlannedRequest& request : plan.open_loop()) {
    const std::vector<int32_t> ids = plan.TokenIds(request);
    ASSERT_EQ(ids.size(), 70u);
    ASSERT_TRUE(request.prefix.has_value());
    EXPECT_EQ(request.tenant, "acme-" + std::to_string(*request.prefix));
    const std::vector<int32_t> prefix(ids.begin(), ids.begin() + 50);
    EXPECT_EQ(prefixes.emplace(*request.prefix, prefix).first->second, prefix);
    tails.insert({ids.begin() + 50, ids.end()});
  }
  EXPECT_EQ(prefixes.size(), 4u);
  std::set<std::vector<int32_t>> different;
  for (const auto& [index, prefix] : prefixes) different.insert(prefix);
  EXPECT_EQ(different.size(), 4u);
  EXPECT_EQ(tails.size(), 60u);
}

TEST(BenchPlanTest, SkewedPrefixesFollowZipfsLaw) {
  constexpr int kRequests = 20000;
  const Plan plan = PlanOf({{"rate", "inf"},
                            {"num-requests", "20000"},
                            {"prompt-tokens", "1"},
                            {"shared-prefix-tokens", "1"},
                            {"num-prefixes", "5"},
                            {"prefix-skew", "1.2"}});
  std::map<int64_t, int> counts;
  for (const PlannedRequest& request : plan.open_loop()) {
    ++counts[*request.prefix];
  }
  double sum = 0;
  for (int k = 1; k <= 5; ++k) sum += std::pow(k, -1.2);
  for (int k = 1; k <= 5; ++k) {
    const double share = std::pow(k, -1.2) / sum;
    EXPECT_NEAR(counts[k - 1], kRequests * share,
                kSigmas * std::sqrt(kRequests * share * (1 - share)));
  }
}

TEST(BenchPlanTest, WarmUpSharesPrefixesButNoPrompt) {
  const Plan plan = PlanOf({{"clients", "2"},
                            {"shared-prefix-tokens", "30"},
                            {"prompt-tokens", "10"}});
  const auto warm = plan.TokenIds(plan.WarmupRequest(0));
  const auto measured = plan.TokenIds(plan.ClosedLoopRequest(0, 0));
  EXPECT_TRUE(std::equal(warm.begin(), warm.begin() + 30, measured.begin()));
  EXPECT_NE(warm, measured);
  EXPECT_TRUE(plan.WarmupRequest(0).is_warmup);
}

TEST(BenchPlanTest, APromptSharesItsPrefixAndNothingElse) {
  const Plan alone = PlanOf({{"clients", "2"}, {"prompt-tokens", "10"}});
  EXPECT_EQ(alone.SharedTokens(alone.ClosedLoopRequest(0, 3)), 0);
  const Plan plan = PlanOf({{"clients", "2"},
                            {"shared-prefix-tokens", "30"},
                            {"prompt-tokens", "10"}});
  EXPECT_EQ(plan.SharedTokens(plan.ClosedLoopRequest(0, 3)), 30);
}

TEST(BenchPlanTest, WhatMayExceedTheContextIsRefusedBeforeItIsSent) {
  const Workload fits = WorkloadOf(
      {{"prompt-tokens", "exponential:500"}, {"output-tokens", "96"}});
  EXPECT_TRUE(Plan::Make(fits, kModel).ok());  // 8 * 500 + 96
  const Workload exceeds = WorkloadOf({{"prompt-tokens", "exponential:500"},
                                       {"output-tokens", "96"},
                                       {"shared-prefix-tokens", "1"}});
  EXPECT_THAT(
      Plan::Make(exceeds, kModel).status().ToString(),
      HasSubstr("class all: a shared prefix of 1, a prompt of up to 4000 and "
                "an output of up to 96 tokens exceed the model's context of "
                "4096"));
  EXPECT_THAT(Plan::Make(WorkloadOf({{"rate", "1000000"}}, 1, 2), kModel)
                  .status()
                  .ToString(),
              HasSubstr("more than 1048576 requests"));
}

// --- Options ----------------------------------------------------------------

TEST(BenchOptionsTest, AClassKeepsTheCommasOfItsDistributions) {
  const auto parsed = ParseClass(
      "long:prompt-tokens=normal:128,32,1-256,rate=2,output-tokens=5");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->first, "long");
  EXPECT_THAT(parsed->second,
              ElementsAre(Pair("output-tokens", "5"),
                          Pair("prompt-tokens", "normal:128,32,1-256"),
                          Pair("rate", "2")));
}

TEST(BenchOptionsTest, AClassTakesWhatItDoesNotNameFromTheOptions) {
  const auto workload = MakeWorkload(
      {.settings = {{"rate", "3"}, {"burst", "2"}, {"priority", "-4"}},
       .classes = {"a:prompt-tokens=5", "b:clients=2,priority=6"}});
  ASSERT_TRUE(workload.ok()) << workload.status();
  const TrafficClass& a = workload->classes[0];
  const TrafficClass& b = workload->classes[1];
  EXPECT_THAT(std::tuple(a.rate, a.burst, a.num_clients, a.priority),
              std::tuple(3, 2, 0, -4));
  EXPECT_THAT(std::tuple(b.rate, b.burst, b.num_clients, b.priority),
              std::tuple(0, 1, 2, 6));
  EXPECT_EQ(a.num_requests, 100);
}

TEST(BenchOptionsTest, WithoutAWordOneClientSendsOneHundredRequests) {
  const Workload workload = WorkloadOf({});
  ASSERT_EQ(workload.classes.size(), 1u);
  EXPECT_EQ(workload.classes[0].num_clients, 1);
  EXPECT_EQ(workload.classes[0].num_requests, 100);
  EXPECT_EQ(WorkloadOf({}, 1, 10).classes[0].num_requests, 0);
}

TEST(BenchOptionsTest, WhatIsWrongIsNamedWithItsValueAndWhatIsAllowed) {
  const std::pair<WorkloadOptions, const char*> wrong[] = {
      {{.settings = {{"rate", "fast"}}},
       "--rate=fast: must be a number above 0, at most 1000000, or inf"},
      {{.settings = {{"rate", "0"}}}, "--rate=0"},
      {{.settings = {{"rate", "nan"}}}, "--rate=nan"},
      {{.settings = {{"clients", "0"}}},
       "--clients=0: \"0\" is not a whole number from 1 to 65536"},
      {{.settings = {{"rate", "1"}, {"clients", "1"}}},
       "a load is open or closed, not both"},
      {{.settings = {{"clients", "1"}, {"burst", "3"}}},
       "burst=3: only arrivals of a rate"},
      {{.settings = {{"rate", "1"}, {"think-time-ms", "3"}}},
       "think-time-ms=3: only clients think"},
      {{.settings = {{"rate", "inf"}}, .duration_s = 3}, "never ends"},
      {{.settings = {{"num-prefixes", "3"}}}, "need shared-prefix-tokens"},
      {{.settings = {{"priority", "11"}}}, "--priority=11"},
      {{.settings = {{"tenant", "a b"}}}, "--tenant=a b"},
      {{.settings = {{"tenant", std::string(kMaxTenantBytes, 'x')},
                     {"shared-prefix-tokens", "1"},
                     {"tenant-per-prefix", "true"}}},
       "tenant: has 66 characters"},
      {{.settings = {{"start-s", "5"}}, .duration_s = 5},
       "start-s=5 is not before the end"},
      {{.settings = {{"temperature", "101"}}}, "--temperature=101"},
      {{.classes = {"x"}}, "--class x: must be NAME:KEY=VALUE"},
      {{.classes = {":rate=1"}}, "must be NAME:KEY=VALUE"},
      {{.classes = {"x:rate"}}, "\"rate\" is not KEY=VALUE"},
      {{.classes = {"x:rate=1,rate=2"}}, "--class x names rate twice"},
      {{.classes = {"x:rate=1", "x:rate=2"}}, "--class names x twice"},
      {{.classes = {"x:prompt-token=1"}},
       "--class x: there is no \"prompt-token\"; did you mean prompt-tokens?"},
      {{.classes = {"x:output-tokens=0"}}, "--class x: output-tokens=0"},
      {{.settings = {{"rate", "1"}}, .trace = "{}"},
       "--rate and --replay: a trace says that itself"},
      {{.classes = {"x:rate=1"}, .trace = "{}"}, "--class and --replay"},
  };
  for (const auto& [options, message] : wrong) {
    EXPECT_THAT(ErrorOf(options),
                AllOf(HasSubstr("INVALID_ARGUMENT"), HasSubstr(message)));
  }
  WorkloadOptions many;
  for (int i = 0; i <= kMaxBenchClasses; ++i) {
    many.classes.push_back("c" + std::to_string(i) + ":clients=1");
  }
  EXPECT_THAT(ErrorOf(many), HasSubstr("given 65 times; at most 64"));
}

TEST(BenchOptionsTest, EverySettingSaysWhatItDoesAndTakesItsDefault) {
  for (const ClassSetting& setting : ClassSettings()) {
    TrafficClass traffic;
    EXPECT_STRNE(setting.help, "") << setting.name;
    if (*setting.default_value == '\0') continue;
    EXPECT_TRUE(setting.apply(setting.default_value, &traffic).ok())
        << setting.name;
  }
}

}  // namespace
}  // namespace witan::bench
