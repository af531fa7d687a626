// Sampling against a naive sampler written from the contract.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/kernels.h"
#include "tests/kernels/every_path.h"

namespace witan {
namespace {

using Words = std::array<uint32_t, 4>;

// Philox4x32-10 as the paper writes it, one counter at a time.
Words Philox(Words counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
    const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
    counter = {high(product1) ^ counter[1] ^ key[0], low(product1),
               high(product0) ^ counter[3] ^ key[1], low(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

TEST(PhiloxTest, MatchesTheVectorsOfRandom123) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(Philox({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

double Gumbel(uint64_t seed, int64_t position, int choice, TokenId id) {
  const Words words =
      Philox({static_cast<uint32_t>(id / 4), static_cast<uint32_t>(position),
              static_cast<uint32_t>(choice), 0},
             {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const double u =
      ((words[static_cast<size_t>(id % 4)] >> 9) + 0.5) / 8388608.0;
  return -std::log(-std::log(u));
}

class SamplerTest : public EveryPath {
 protected:
  SampledToken SampleOne(const std::vector<float>& logits,
                         const SampleRow& row) {
    std::vector<SampledToken> tokens(1);
    backend_->Sample(ConstTensorView(logits.data(), DType::kF32, 1,
                                     static_cast<int64_t>(logits.size())),
                     {&row, 1}, tokens);
    return tokens[0];
  }
  std::vector<float> RandomLogits(int n, double deviation = 3) {
    std::normal_distribution<float> normal(0, static_cast<float>(deviation));
    std::vector<float> logits(static_cast<size_t>(n));
    for (float& x : logits) x = normal(random_);
    return logits;
  }
  std::unique_ptr<Backend> backend_ = MakeBackendOfParam();
  std::mt19937 random_{3};
};
WITAN_EVERY_PATH(SamplerTest);

TEST_P(SamplerTest, DrawsTheNoiseOfPhilox) {
  const CpuKernels& kernels =
      GetParam().path == CpuPath::kPortable ? PortableKernels()
      : GetParam().path == CpuPath::kAvx2   ? Avx2Kernels()
                                            : Avx512Kernels();
  for (const uint64_t seed :
       {uint64_t{0}, ~uint64_t{0}, uint64_t{0x1234567890abcdef}}) {
    std::vector<float> noise(333);
    kernels.gumbel(seed, 4000000000u, 7, 128, 333, noise.data());
    for (int i = 0; i < 333; ++i) {
      const double exact = Gumbel(seed, 4000000000u, 7, 128 + i);
      // Both logarithms to 2 ulp; the outer one turns the inner one's relative
      // error into an absolute one.
      EXPECT_NEAR(noise[static_cast<size_t>(i)], exact,
                  (std::abs(exact) + 1) * 4 * 0x1p-24);
    }
  }
}

// What the contract says, in doubles and with full sorts. `margin` is how
// clear each decision was; below about 1e-5 fp32 may decide otherwise.
struct Naive {
  TokenId token;
  double margin;
};
Naive NaiveSample(const std::vector<float>& logits, const SampleRow& row) {
  const SamplingParams& p = *row.params;
  std::vector<double> z(logits.begin(), logits.end());
  for (size_t i = 0; i < row.seen_ids.size(); ++i) {
    double& x = z[static_cast<size_t>(row.seen_ids[i])];
    x = x > 0 ? x / p.repetition_penalty : x * p.repetition_penalty;
    if (row.output_counts[i] > 0) x -= p.presence_penalty;
    x -= p.frequency_penalty * row.output_counts[i];
  }
  for (const LogitBias& b : p.logit_bias) {
    z[static_cast<size_t>(b.token_id)] += b.bias;
  }
  std::vector<size_t> ids;
  for (size_t i = 0; i < z.size(); ++i) ids.push_back(i);
  double margin = 1;
  if (p.temperature > 0) {
    for (double& x : z) x /= p.temperature;
    std::stable_sort(ids.begin(), ids.end(),
                     [&](size_t a, size_t b) { return z[a] > z[b]; });
    const auto truncate = [&](size_t n) {
      if (n >= ids.size()) return;
      margin = std::min(margin, std::abs(z[ids[n - 1]] - z[ids[n]]));
      ids.resize(n);
    };
    const double max = z[ids[0]];
    if (p.top_k > 0) truncate(static_cast<size_t>(p.top_k));
    if (p.min_p > 0) {
      size_t n = 0;
      for (; n < ids.size(); ++n) {
        const double relative = std::exp(z[ids[n]] - max) / p.min_p;
        margin = std::min(margin, std::abs(relative - 1));
        if (relative < 1) break;
      }
      ids.resize(n);
    }
    if (p.top_p < 1) {
      double total = 0, sum = 0;
      for (const size_t i : ids) total += std::exp(z[i] - max);
      size_t n = 0;
      while (n < ids.size()) {
        sum += std::exp(z[ids[n++]] - max);
        margin = std::min(margin, std::abs(sum / total - p.top_p));
        if (sum >= p.top_p * total) break;
      }
      ids.resize(n);
    }
    for (const size_t i : ids) {
      z[i] += Gumbel(p.seed, row.position, row.choice, static_cast<TokenId>(i));
    }
  }
  std::stable_sort(ids.begin(), ids.end(),
                   [&](size_t a, size_t b) { return z[a] > z[b]; });
  if (ids.size() > 1) margin = std::min(margin, z[ids[0]] - z[ids[1]]);
  return {static_cast<TokenId>(ids[0]), margin};
}

TEST_P(SamplerTest, AgreesWithTheNaiveSampler) {
  std::uniform_real_distribution<float> uniform(0, 1);
  int num_clear = 0;
  constexpr int kTrials = 400;
  for (int trial = 0; trial < kTrials; ++trial) {
    const int vocabulary = trial % 3 == 0 ? 37 : 500;
    const std::vector<float> logits = RandomLogits(vocabulary);
    SamplingParams p;
    p.seed = random_() * uint64_t{0x100000001};
    p.temperature = trial % 5 == 0 ? 0.0f : 0.1f + 2 * uniform(random_);
    if (trial % 2 == 0) p.top_k = static_cast<int32_t>(1 + random_() % 60);
    if (trial % 3 == 0) p.top_p = 0.05f + 0.9f * uniform(random_);
    if (trial % 4 == 1) p.min_p = 0.3f * uniform(random_);
    SampleRow row;
    row.params = &p;
    row.choice = trial % 3;
    row.position = static_cast<int64_t>(random_());
    std::vector<TokenId> seen;
    std::vector<int32_t> counts;
    if (trial % 7 == 0) {
      p.repetition_penalty = 1.3f;
      p.presence_penalty = 0.5f;
      p.frequency_penalty = 0.2f;
      for (int id = 0; id < vocabulary; id += 3) {
        seen.push_back(id);
        counts.push_back(id % 4);
      }
    }
    if (trial % 6 == 0) p.logit_bias = {{1, -100.0f}, {5, 2.5f}, {36, 1.0f}};
    row.seen_ids = seen;
    row.output_counts = counts;
    const Naive naive = NaiveSample(logits, row);
    if (naive.margin < 1e-4) continue;
    ++num_clear;
    ASSERT_EQ(SampleOne(logits, row).token_id, naive.token)
        << "trial " << trial << ", margin " << naive.margin;
  }
  EXPECT_GE(num_clear, kTrials * 9 / 10);
}

TEST_P(SamplerTest, DrawsEachTokenAsOftenAsItsProbability) {
  const std::vector<float> logits = {0.0f, 1.0f,  -1.0f, 2.0f,
                                     0.5f, -3.0f, 1.5f,  0.2f};
  SamplingParams p;
  p.temperature = 1.3f;
  p.seed = 99;
  SampleRow row;
  row.params = &p;
  double total = 0;
  for (const float x : logits) total += std::exp(x / 1.3);
  std::vector<int> counts(logits.size(), 0);
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    row.position = i;
    ++counts[static_cast<size_t>(SampleOne(logits, row).token_id)];
  }
  double chi_square = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double expected = kDraws * std::exp(logits[i] / 1.3) / total;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  // 7 degrees of freedom: exceeded with a probability below 1e-9 (Laurent and
  // Massart: 7 + 2 sqrt(7 t) + 2 t with t = 21).
  EXPECT_LT(chi_square, 7 + 2 * std::sqrt(7 * 21.0) + 2 * 21);
}

// Noise is made for all tokens or for each candidate alone, whichever costs
// less. What a filter leaves is here what has a logit at all, so that the
// unfiltered draw is the same.
TEST_P(SamplerTest, DrawsTheSameTokenHoweverManyCandidatesAreLeft) {
  constexpr int kVocabulary = 700;
  SamplingParams plain, filtered;
  SampleRow row;
  for (int num_candidates = 1; num_candidates <= kVocabulary;
       num_candidates += 1 + num_candidates / 4) {
    std::vector<float> logits = RandomLogits(kVocabulary);
    std::vector<size_t> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random_);
    for (size_t i = static_cast<size_t>(num_candidates); i < ids.size(); ++i) {
      logits[ids[i]] = -std::numeric_limits<float>::infinity();
    }
    plain.seed = filtered.seed = random_();
    filtered.top_k = num_candidates;
    for (row.position = 0; row.position < 20; ++row.position) {
      row.params = &plain;
      const TokenId expected = SampleOne(logits, row).token_id;
      row.params = &filtered;
      ASSERT_EQ(SampleOne(logits, row).token_id, expected)
          << num_candidates << " candidates, position " << row.position;
    }
  }
}

TEST_P(SamplerTest, BreaksTiesTowardsTheLowerId) {
  SamplingParams p;
  p.temperature = 0;
  p.num_top_logprobs = 3;
  SampleRow row;
  row.params = &p;
  const SampledToken token = SampleOne({1, 3, 2, 3, 3}, row);
  EXPECT_EQ(token.token_id, 1);
  ASSERT_EQ(token.top_logprobs.size(), 3u);
  EXPECT_EQ(token.top_logprobs[0].token_id, 1);
  EXPECT_EQ(token.top_logprobs[1].token_id, 3);
  EXPECT_EQ(token.top_logprobs[2].token_id, 4);
  // Of equal logits the filter keeps the lowest ids.
  p.temperature = 1;
  p.top_k = 2;
  for (row.position = 0; row.position < 50; ++row.position) {
    const TokenId id = SampleOne({1, 3, 2, 3, 3}, row).token_id;
    EXPECT_TRUE(id == 1 || id == 3) << id;
  }
}

TEST_P(SamplerTest, ReportsLogprobsOfTheRawLogits) {
  const std::vector<float> logits = RandomLogits(1000);
  SamplingParams p;
  p.temperature = 0.5f;
  p.top_k = 3;
  p.logit_bias = {{10, 100.0f}};
  p.num_top_logprobs = 20;
  SampleRow row;
  row.params = &p;
  const SampledToken token = SampleOne(logits, row);
  EXPECT_EQ(token.token_id, 10);
  double total = 0;
  for (const float x : logits) total += std::exp(static_cast<double>(x));
  const auto exact = [&](TokenId id) {
    return static_cast<double>(logits[static_cast<size_t>(id)]) -
           std::log(total);
  };
  // 1000 / 16 + 4 additions, exponentials to 2 ulp, and roundings of numbers
  // up to 30.
  const double tolerance = (70 + 4 + 4 * 30) * 0x1p-24;
  EXPECT_NEAR(token.logprob, exact(10), tolerance);
  std::vector<TokenId> order(1000);
  for (TokenId i = 0; i < 1000; ++i) order[static_cast<size_t>(i)] = i;
  std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  ASSERT_EQ(token.top_logprobs.size(), 20u);
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(token.top_logprobs[i].token_id, order[i]);
    EXPECT_NEAR(token.top_logprobs[i].logprob, exact(order[i]), tolerance);
  }
  p.num_top_logprobs = 0;
  EXPECT_TRUE(SampleOne(logits, row).top_logprobs.empty());
  EXPECT_EQ(SampleOne(logits, row).logprob, token.logprob);
  p.num_top_logprobs = -1;
  EXPECT_EQ(SampleOne(logits, row).logprob, 0);
}

TEST_P(SamplerTest, SurvivesLogitsThatAreNoNumbers) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  SamplingParams greedy;
  greedy.temperature = 0;
  greedy.num_top_logprobs = 2;
  SamplingParams plain = greedy;
  plain.temperature = 0.7f;
  SamplingParams filtered = plain;
  filtered.top_p = 0.9f;
  filtered.top_k = 3;
  filtered.min_p = 0.1f;
  for (const SamplingParams* p : {&greedy, &plain, &filtered}) {
    SampleRow row;
    row.params = p;
    EXPECT_EQ(SampleOne({nan, nan, nan}, row).token_id, 0);
    EXPECT_EQ(SampleOne({-infinity, -infinity}, row).token_id, 0);
    EXPECT_EQ(SampleOne({-infinity, -infinity}, row).logprob, -infinity);
    EXPECT_EQ(SampleOne({nan, -infinity, -5, nan}, row).token_id, 2);
    EXPECT_EQ(SampleOne({nan, -infinity, -5, nan}, row).logprob, 0);
    EXPECT_EQ(SampleOne({1, 2, infinity, 3}, row).token_id, 2);
    EXPECT_EQ(SampleOne({1, 2, infinity, 3}, row).logprob, 0);
  }
}

TEST(SamplerPathsTest, DrawTheSameTokensAndLogprobBits) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(8 * 3000);
  for (float& x : logits) x = normal(random);
  std::vector<SamplingParams> params(8);
  std::vector<SampleRow> rows(8);
  for (size_t i = 0; i < 8; ++i) {
    params[i].seed = i;
    params[i].top_p = i % 2 == 0 ? 1.0f : 0.9f;
    params[i].num_top_logprobs = 4;
    rows[i].params = &params[i];
  }
  std::vector<SampledToken> first;
  for (const CpuPath path : PathsOfThisCpu()) {
    for (const int num_threads : {1, 3}) {
      std::vector<SampledToken> tokens(8);
      MakeBackend(path, DType::kF32, num_threads)
          ->Sample(ConstTensorView(logits.data(), DType::kF32, 8, 3000), rows,
                   tokens);
      if (first.empty()) first = tokens;
      EXPECT_EQ(tokens, first) << NameOfPath(path);
    }
  }
}

}  // namespace
}  // namespace witan
