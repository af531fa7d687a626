// What a request may ask for beyond sampled tokens: scores of its prompt, bad
// words, a minimum of tokens, and tokens that are forced. The scores are those
// of a naive softmax over the logits of a rank that computes one position after
// the other; and nothing depends on layout, batch, chunks, look-ahead, cache or
// preemption, bit for bit.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/testing/engine.h"
#include "tests/testing/one_rank.h"
#include "tests/testing/thread_cluster.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

constexpr int kNumSequences = 24;
constexpr SequenceId kForcesEvery = 3;

// Half of the prompts begin alike, so that they find each other's blocks.
std::vector<SequenceSpec> MakeSpecs(int64_t vocab_size) {
  std::vector<SequenceSpec> specs;
  for (int index = 0; index < kNumSequences; ++index) {
    std::mt19937 random(500 + index);
    SequenceSpec spec;
    spec.id = index + 1;
    const int64_t length = index == 0 ? 1 : 1 + random() % 120;
    for (int64_t i = 0; i < length; ++i) {
      spec.prompt.push_back(static_cast<TokenId>(
          index % 2 == 0 ? i * 7 % vocab_size : random() % vocab_size));
    }
    spec.stop.max_tokens = 4 + random() % 24;
    SamplingParams& sampling = spec.sampling;
    sampling.seed = 9 + index;
    sampling.temperature = index % 4 == 0 ? 0 : 1.2f;
    sampling.num_top_logprobs = index % 3 - 1;
    if (index % 3 != 1) sampling.num_prompt_logprobs = index % 5;
    if (index % 5 == 0) sampling.frequency_penalty = 0.7f;
    if (index % 4 == 1) {
      // So many that the histories meet some of them.
      for (int i = 0; i < 200; ++i) {
        const auto token = [&] {
          return static_cast<TokenId>(random() % vocab_size);
        };
        sampling.bad_words.push_back(i % 2 == 0
                                         ? std::vector<TokenId>{token()}
                                         : std::vector{token(), token()});
      }
    }
    if (index % 4 == 2) {
      for (TokenId id = 0; id < vocab_size; id += 2) {
        sampling.end_token_ids.push_back(id);
      }
      sampling.min_tokens = spec.stop.max_tokens / 2;
    }
    specs.push_back(std::move(spec));
  }
  return specs;
}

struct Case {
  Layout layout;
  int64_t chunk = 1 << 20;
  bool look_ahead = false;
  bool prefix_cache = false;
  int64_t num_blocks = 400;
  int64_t max_sequences = 64;
};

class RequestsTest : public ::testing::Test {
 protected:
  EngineRun Run(const Case& c, const std::vector<SequenceSpec>& specs) {
    const ThreadClusterOptions options{.model_directory = model_.directory(),
                                       .layout = c.layout,
                                       .max_step_tokens = 512,
                                       .max_sequences = c.max_sequences,
                                       .num_blocks = c.num_blocks};
    auto cluster = ThreadCluster::Start(options);
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    StepNumber step = 1;
    auto run = RunSequences(**cluster, options,
                            {.max_prefill_chunk_tokens = c.chunk,
                             .look_ahead = c.look_ahead,
                             .prefix_cache = c.prefix_cache,
                             .forces_every = kForcesEvery,
                             .vocab_size = model_.config().vocab_size},
                            specs, {}, step);
    EXPECT_TRUE(run.ok()) << run.status();
    return run.ok() ? *std::move(run) : EngineRun();
  }

  const TinyModel model_;
};

TEST_F(RequestsTest, NothingDependsOnLayoutBatchChunksCacheOrPreemption) {
  const std::vector<SequenceSpec> specs = MakeSpecs(model_.config().vocab_size);
  // Each alone, in one chunk, on one rank.
  EngineRun reference;
  for (const SequenceSpec& spec : specs) {
    EngineRun run = Run({.layout = {1, 1}}, {spec});
    reference.outputs.merge(run.outputs);
    reference.scores.merge(run.scores);
    reference.num_forced += run.num_forced;
  }
  EXPECT_GT(reference.num_forced, 5);
  const Case cases[] = {
      {.layout = {1, 1}, .chunk = 7, .look_ahead = true, .prefix_cache = true},
      {.layout = {2, 1}, .chunk = 64, .look_ahead = true},
      {.layout = {4, 2}, .chunk = 33, .prefix_cache = true},
      {.layout = {1, 8}, .look_ahead = true, .prefix_cache = true},
      // Few rows of logits at a time, and few blocks.
      {.layout = {2, 4},
       .chunk = 50,
       .look_ahead = true,
       .prefix_cache = true,
       .num_blocks = 7,
       .max_sequences = 6},
  };
  int64_t num_hits = 0;
  int64_t num_preemptions = 0;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.layout.tp * 1000 + c.chunk);
    const EngineRun run = Run(c, specs);
    num_hits += run.stats.num_prefix_hit_tokens;
    num_preemptions += run.stats.num_preemptions;
    EXPECT_EQ(run.num_forced, reference.num_forced);
    for (const SequenceSpec& spec : specs) {
      ASSERT_TRUE(
          SameBits(run.outputs.at(spec.id), reference.outputs.at(spec.id)))
          << spec.id;
      const auto scores = run.scores.find(spec.id);
      const bool has_scores =
          spec.sampling.num_prompt_logprobs >= 0 && spec.prompt.size() > 1;
      ASSERT_EQ(scores != run.scores.end(), has_scores) << spec.id;
      if (!has_scores) continue;
      ASSERT_EQ(scores->second.size(), spec.prompt.size() - 1) << spec.id;
      ASSERT_TRUE(SameBits(scores->second, reference.scores.at(spec.id)))
          << spec.id;
    }
  }
  EXPECT_GT(num_hits, 100);
  EXPECT_GT(num_preemptions, 0);
}

TEST_F(RequestsTest, ScoresAreTheLogSoftmaxOfTheLogitsOfEachPosition) {
  const std::vector<SequenceSpec> specs = MakeSpecs(model_.config().vocab_size);
  const EngineRun run = Run({.layout = {2, 2}, .chunk = 40}, specs);
  auto rank = OneRank::Create(model_.directory(), CpuPath::kAuto);
  ASSERT_TRUE(rank.ok()) << rank.status();
  for (const SequenceId id : {SequenceId{3}, SequenceId{7}, SequenceId{10}}) {
    const SequenceSpec& spec = specs[id - 1];
    auto logits = (*rank)->LogitsOfAllPositions(spec.prompt);
    ASSERT_TRUE(logits.ok()) << logits.status();
    const std::vector<SampledToken>& scores = run.scores.at(id);
    for (size_t i = 0; i < scores.size(); ++i) {
      const std::vector<float>& row = (*logits)[i];
      double sum = 0;
      for (const float x : row) sum += std::exp(static_cast<double>(x));
      const auto naive = [&](TokenId token) {
        return static_cast<double>(row[static_cast<size_t>(token)]) -
               std::log(sum);
      };
      ASSERT_EQ(scores[i].token_id, spec.prompt[i + 1]);
      ASSERT_NEAR(scores[i].logprob, naive(spec.prompt[i + 1]), 1e-5);
      ASSERT_EQ(std::ssize(scores[i].top_logprobs),
                spec.sampling.num_prompt_logprobs);
      if (scores[i].top_logprobs.empty()) continue;
      const auto best = std::max_element(row.begin(), row.end());
      ASSERT_EQ(scores[i].top_logprobs[0].token_id, best - row.begin());
      ASSERT_NEAR(scores[i].top_logprobs[0].logprob,
                  naive(scores[i].top_logprobs[0].token_id), 1e-5);
    }
  }
}

TEST_F(RequestsTest, BadWordsAndEarlyEndsDoNotCome) {
  const std::vector<SequenceSpec> specs = MakeSpecs(model_.config().vocab_size);
  const EngineRun run =
      Run({.layout = {1, 1}, .look_ahead = true, .prefix_cache = true}, specs);
  for (const SequenceSpec& spec : specs) {
    if (spec.id % kForcesEvery == 0) continue;  // what is forced may be both
    std::vector<TokenId> history = spec.prompt;
    const std::vector<SampledToken>& output = run.outputs.at(spec.id);
    for (size_t i = 0; i < output.size(); ++i) {
      history.push_back(output[i].token_id);
      for (const std::vector<TokenId>& word : spec.sampling.bad_words) {
        ASSERT_FALSE(history.size() >= word.size() &&
                     std::equal(word.begin(), word.end(),
                                history.end() - std::ssize(word)))
            << "sequence " << spec.id << ", token " << i;
      }
      if (static_cast<int64_t>(i) >= spec.sampling.min_tokens) continue;
      ASSERT_EQ(
          std::count(spec.sampling.end_token_ids.begin(),
                     spec.sampling.end_token_ids.end(), output[i].token_id),
          0)
          << "sequence " << spec.id << ", token " << i;
    }
  }
}

}  // namespace
}  // namespace witan
