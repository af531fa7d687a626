// Tokens are drawn from the distributions that transformers' logits processors
// make (data/make_sampling_cases.py): token by token, where the noise added to
// their log-probabilities decides clearly, and by a chi-square test.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/kernels.h"
#include "worker/slots.h"

namespace witan {
namespace {

constexpr int kNumSeeds = 4000;
// Of the two best scores; fp32 logits and a noise of 2 ulp cannot tell less.
constexpr double kClearMargin = 1e-4;

std::vector<nlohmann::json> Cases() {
  std::ifstream file(WITAN_SOURCE_DIR "/tests/worker/data/sampling_cases.json");
  return nlohmann::json::parse(file).get<std::vector<nlohmann::json>>();
}

SamplingParams ParamsOf(const nlohmann::json& c) {
  SamplingParams params;
  params.temperature = c["temperature"];
  params.top_k = c["top_k"];
  params.top_p = c["top_p"];
  params.min_p = c["min_p"];
  params.repetition_penalty = c["repetition_penalty"];
  params.bad_words = c["bad_words"].get<std::vector<std::vector<TokenId>>>();
  params.min_tokens = c["min_tokens"];
  params.end_token_ids = c["end_token_ids"].get<std::vector<TokenId>>();
  return params;
}

// The first step of a sequence that was preempted after its output so far.
StepPlan PlanOf(const nlohmann::json& c, const SamplingParams& params) {
  const auto prompt = c["prompt"].get<std::vector<TokenId>>();
  const auto output = c["output"].get<std::vector<TokenId>>();
  StepPlan plan{.epoch = 1, .step = 1};
  plan.token_ids = prompt;
  plan.token_ids.insert(plan.token_ids.end(), output.begin(), output.end());
  SlotStart start{.slot = 0, .sampling = params};
  start.num_prompt_tokens = static_cast<int32_t>(prompt.size());
  if (params.uses_history()) start.history = plan.token_ids;
  plan.slot_starts = {start};
  plan.row_begin = {0, plan.num_rows()};
  plan.slots = {0};
  plan.first_positions = {0};
  plan.samples = {1};
  plan.new_block_begin = {0, 1};
  plan.new_block_ids = {1};
  return plan;
}

// The token that `c` and the noise choose; none where it is too close.
std::optional<TokenId> ExpectedToken(const nlohmann::json& c,
                                     const std::vector<float>& noise) {
  double best = -INFINITY;
  double second = -INFINITY;
  TokenId best_id = 0;
  for (size_t i = 0; i < noise.size(); ++i) {
    const double p = c["probabilities"][i];
    if (p == 0) continue;
    const double score = std::log(p) + noise[i];
    if (score > best) {
      second = best;
      best = score;
      best_id = static_cast<TokenId>(i);
    } else {
      second = std::max(second, score);
    }
  }
  if (best - second < kClearMargin) return std::nullopt;
  return best_id;
}

// A bound that a chi-square variable exceeds once in a million times
// (Wilson and Hilferty 1931; 4.7534 is that quantile of a normal one).
double ChiSquareBound(int64_t degrees) {
  const double a = 2.0 / (9.0 * static_cast<double>(degrees));
  return static_cast<double>(degrees) *
         std::pow(1 - a + 4.7534 * std::sqrt(a), 3);
}

void ExpectFrequencies(const nlohmann::json& c,
                       const std::vector<int64_t>& counts) {
  double statistic = 0;
  double rare_expected = 0;
  int64_t rare_count = 0;
  int64_t degrees = -1;
  const auto add = [&](double expected, int64_t count) {
    const double difference = static_cast<double>(count) - expected;
    statistic += difference * difference / expected;
    ++degrees;
  };
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = c["probabilities"][i].get<double>() * kNumSeeds;
    if (expected >= 5) {
      add(expected, counts[i]);
    } else {
      rare_expected += expected;
      rare_count += counts[i];
    }
  }
  if (rare_expected >= 5) add(rare_expected, rare_count);
  if (degrees > 0) {
    EXPECT_LT(statistic, ChiSquareBound(degrees)) << degrees << " degrees";
  }
}

TEST(SamplingTest, DrawsFromTheDistributionsOfTransformers) {
  auto backend = MakeCpuBackend({});
  ASSERT_TRUE(backend.ok()) << backend.status();
  int64_t num_unclear = 0;
  const std::vector<nlohmann::json> cases = Cases();
  ASSERT_GT(cases.size(), 30u);
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    const nlohmann::json& c = cases[i];
    const auto logits = c["logits"].get<std::vector<float>>();
    const int64_t vocab_size = std::ssize(logits);
    std::vector<int64_t> counts(logits.size());
    for (int seed = 0; seed < kNumSeeds; ++seed) {
      SamplingParams params = ParamsOf(c);
      params.seed = static_cast<uint64_t>(seed);
      const StepPlan plan = PlanOf(c, params);
      SlotTable slots({.max_context_tokens = 64,
                       .max_step_tokens = 64,
                       .max_sequences = 1,
                       .num_blocks = 2},
                      vocab_size);
      ResolvedStep step;
      const absl::Status status = slots.Resolve(plan, step);
      ASSERT_TRUE(status.ok()) << status;
      const SampleRow row = slots.RowToSample(0, step.sample_positions[0]);
      std::vector<SampledToken> tokens(1);
      (*backend)->Sample(
          ConstTensorView(logits.data(), DType::kF32, 1, vocab_size), {&row, 1},
          tokens);
      (*backend)->Synchronize();
      std::vector<float> noise(logits.size());
      PortableKernels().gumbel(params.seed, static_cast<uint32_t>(row.position),
                               0, 0, vocab_size, noise.data());
      const std::optional<TokenId> expected = ExpectedToken(c, noise);
      num_unclear += expected ? 0 : 1;
      ASSERT_EQ(tokens[0].token_id, expected.value_or(tokens[0].token_id))
          << "seed " << seed;
      ++counts[static_cast<size_t>(tokens[0].token_id)];
    }
    ExpectFrequencies(c, counts);
  }
  EXPECT_LT(num_unclear, 100);
}

}  // namespace
}  // namespace witan
