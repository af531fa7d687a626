#ifndef WITAN_TESTS_EXACTNESS_RUNS_H_
#define WITAN_TESTS_EXACTNESS_RUNS_H_

// Runs of the engine that are to have the same bits.

#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

#include "tests/testing/engine.h"
#include "tests/testing/thread_cluster.h"

namespace witan {

// The first prompt has longest_prompt tokens, the others at most 40; greedy and
// sampled, ten tokens each.
inline std::vector<SequenceSpec> Specs(int count, int64_t longest_prompt,
                                       int64_t vocab_size) {
  std::mt19937 random(42);
  std::vector<SequenceSpec> specs;
  for (int i = 0; i < count; ++i) {
    SequenceSpec spec;
    spec.id = i + 1;
    const int64_t length = i == 0 ? longest_prompt : 1 + random() % 40;
    for (int64_t t = 0; t < length; ++t) {
      spec.prompt.push_back(static_cast<TokenId>(random() % vocab_size));
    }
    spec.stop.max_tokens = 10;
    spec.sampling.temperature = i % 2 == 0 ? 0.0f : 0.9f;
    spec.sampling.seed = i;
    spec.sampling.num_top_logprobs = 2;
    specs.push_back(std::move(spec));
  }
  return specs;
}

// How a run was done.
struct Premises {
  std::vector<GroupPrepared> prepared;
  SumCounts sums;                           // of rank 0
  int64_t num_pieces_of_other_threads = 0;  // of rank 0
};

// Runs all specs together.
inline EngineRun RunTogether(const ThreadClusterOptions& options,
                             const std::vector<SequenceSpec>& specs,
                             const EngineOptions& engine = {},
                             Premises* premises = nullptr,
                             const std::vector<int64_t>& arrival_steps = {}) {
  auto cluster = ThreadCluster::Start(options);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  if (!cluster.ok()) return {};
  EXPECT_EQ((*cluster)->prepared().size(),
            static_cast<size_t>(options.layout.num_ranks()));
  StepNumber step = 1;
  auto run =
      RunSequences(**cluster, options, engine, specs, arrival_steps, step);
  EXPECT_TRUE(run.ok()) << run.status();
  if (premises != nullptr) {
    const Worker& worker = (*cluster)->worker(0);
    *premises = {(*cluster)->prepared(), worker.sum_counts(),
                 worker.num_pieces_of_other_threads()};
  }
  return run.ok() ? *std::move(run) : EngineRun{};
}

inline void ExpectSame(const EngineRun& a, const EngineRun& b) {
  ASSERT_FALSE(a.outputs.empty());
  ASSERT_EQ(a.outputs.size(), b.outputs.size());
  for (const auto& [id, tokens] : a.outputs) {
    ASSERT_FALSE(tokens.empty());
    EXPECT_TRUE(SameBits(tokens, b.outputs.at(id))) << "sequence " << id;
  }
}

}  // namespace witan

#endif  // WITAN_TESTS_EXACTNESS_RUNS_H_
