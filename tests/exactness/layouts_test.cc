// A request's tokens and the bits of their logprobs do not depend on the
// number of ranks, on what shares the batch, on how prompts are chunked or on
// look-ahead. Ranks are threads here; tests/e2e has them as processes.
//
// The reference is each sequence alone on one rank with its prompt in one
// chunk and no look-ahead. By default a pairwise covering array of the factors
// runs; WITAN_FULL=1 runs the full product.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <set>

#include "tests/testing/engine.h"
#include "tests/testing/test_paths.h"
#include "tests/testing/thread_cluster.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

constexpr int kNumSequences = 64;
constexpr int64_t kWhole = 1 << 20;
constexpr int64_t kLongestPrompt = 150;

// Prompts of mixed lengths, the shortest and the longest included; half greedy,
// half sampled with every parameter in use somewhere.
SequenceSpec MakeSpec(int index, bool sampled, int64_t vocab_size) {
  std::mt19937 random(1000 + index);
  SequenceSpec spec;
  spec.id = index + 1;
  const int64_t length = index == 0   ? 1
                         : index == 1 ? kLongestPrompt
                                      : 1 + random() % 70;
  for (int64_t i = 0; i < length; ++i) {
    spec.prompt.push_back(static_cast<TokenId>(random() % vocab_size));
  }
  spec.stop.max_tokens = 1 + random() % 12;
  spec.choice = index % 3;
  SamplingParams& sampling = spec.sampling;
  sampling.num_top_logprobs = index % 4;
  sampling.temperature = 0;
  if (sampled) {
    sampling.temperature = 0.7f + 0.1f * static_cast<float>(index % 8);
    sampling.seed = 77 + index;
    if (index % 3 == 0) sampling.top_p = 0.9f;
    if (index % 4 == 0) sampling.top_k = 20;
    if (index % 5 == 0) sampling.min_p = 0.02f;
  }
  if (index % 6 == 0) sampling.repetition_penalty = 1.3f;
  if (index % 7 == 0) sampling.presence_penalty = 0.5f;
  if (index % 8 == 0) sampling.frequency_penalty = 0.4f;
  if (index % 9 == 0) sampling.logit_bias = {{3, 1.5f}, {17, -2.0f}};
  return spec;
}

enum class Batch {
  kAlone,      // one sequence after the other
  kTogether,   // all 64 arrive at once
  kStaggered,  // two more arrive with every step
};
constexpr Batch kBatches[] = {Batch::kAlone, Batch::kTogether,
                              Batch::kStaggered};

struct Case {
  Layout layout;
  Batch batch = Batch::kAlone;
  int64_t chunk = kWhole;  // rows of a prompt in one step
  bool look_ahead = false;
  bool sampled = false;

  std::string Name() const {
    return "tp=" + std::to_string(layout.tp) +
           " ep=" + std::to_string(layout.ep) +
           " batch=" + std::to_string(static_cast<int>(batch)) +
           " chunk=" + std::to_string(chunk) +
           (look_ahead ? " look-ahead" : "") +
           (sampled ? " sampled" : " greedy");
  }
};

constexpr int kDegrees[] = {1, 2, 4, 8};
constexpr int64_t kChunks[] = {1, 7, 64, kWhole};

std::vector<Case> FullProduct() {
  std::vector<Case> cases;
  for (const int tp : kDegrees) {
    for (const int ep : kDegrees) {
      for (const int64_t chunk : kChunks) {
        for (const Batch batch : kBatches) {
          for (int bits = 0; bits < 4; ++bits) {
            cases.push_back(
                {{tp, ep}, batch, chunk, (bits & 1) != 0, (bits & 2) != 0});
          }
        }
      }
    }
  }
  return cases;
}

// Every pair of values of two factors that the case covers.
std::vector<std::string> PairsOf(const Case& c) {
  const std::string values[] = {
      "layout" + std::to_string(c.layout.tp) + "," +
          std::to_string(c.layout.ep),
      "batch" + std::to_string(static_cast<int>(c.batch)),
      "chunk" + std::to_string(c.chunk), "ahead" + std::to_string(c.look_ahead),
      "sampled" + std::to_string(c.sampled)};
  std::vector<std::string> pairs;
  for (size_t i = 0; i < std::size(values); ++i) {
    for (size_t j = i + 1; j < std::size(values); ++j) {
      pairs.push_back(values[i] + "|" + values[j]);
    }
  }
  return pairs;
}

// Greedily takes cases of the full product until every pair is covered.
std::vector<Case> PairwiseCover() {
  const std::vector<Case> all = FullProduct();
  std::set<std::string> open;
  for (const Case& c : all) {
    for (std::string& pair : PairsOf(c)) open.insert(std::move(pair));
  }
  std::vector<Case> chosen;
  while (!open.empty()) {
    const Case* best = nullptr;
    int best_count = 0;
    for (const Case& c : all) {
      int count = 0;
      for (const std::string& pair : PairsOf(c)) count += open.count(pair);
      if (count > best_count) {
        best = &c;
        best_count = count;
      }
    }
    for (const std::string& pair : PairsOf(*best)) open.erase(pair);
    chosen.push_back(*best);
  }
  return chosen;
}

bool RunsFullProduct() {
  const char* value = std::getenv("WITAN_FULL");
  return value != nullptr && std::string(value) == "1";
}

// Runs one case and compares it with the reference outputs.
class LayoutsTest : public ::testing::Test {
 protected:
  static ThreadClusterOptions ClusterOptions(const std::string& directory,
                                             Layout layout) {
    // Room for all prompts in one step, so that the 64 do meet in a batch.
    return {.model_directory = directory,
            .layout = layout,
            .max_step_tokens = 4096};
  }

  static std::vector<SequenceSpec> Specs(bool sampled, int64_t vocab_size) {
    std::vector<SequenceSpec> specs;
    for (int i = 0; i < kNumSequences; ++i) {
      specs.push_back(MakeSpec(i, sampled, vocab_size));
    }
    return specs;
  }

  // Each sequence alone, in one chunk, without look-ahead, on one rank.
  static std::map<SequenceId, std::vector<SampledToken>> Reference(
      const std::string& directory, const std::vector<SequenceSpec>& specs) {
    const ThreadClusterOptions options = ClusterOptions(directory, {1, 1});
    auto cluster = ThreadCluster::Start(options);
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    std::map<SequenceId, std::vector<SampledToken>> outputs;
    if (!cluster.ok()) return outputs;
    StepNumber step = 1;
    for (const SequenceSpec& spec : specs) {
      auto run = RunSequences(**cluster, options, {.look_ahead = false}, {spec},
                              {}, step);
      EXPECT_TRUE(run.ok()) << run.status();
      if (!run.ok()) return outputs;
      EXPECT_EQ(run->max_sequences_of_a_step, 1);
      outputs.merge(run->outputs);
    }
    return outputs;
  }

  static void ExpectSame(
      const EngineRun& run,
      const std::map<SequenceId, std::vector<SampledToken>>& reference,
      const std::string& name) {
    for (const auto& [id, tokens] : run.outputs) {
      ASSERT_TRUE(SameBits(tokens, reference.at(id)))
          << name << ": sequence " << id << " differs from the reference";
    }
  }

  // Steps and rows that a run has when every sequence begins with the step of
  // its arrival and then gets as many rows as `chunk` allows, to its end.
  static void ExpectShape(const EngineRun& run,
                          const std::vector<SequenceSpec>& specs,
                          const std::vector<int64_t>& arrival_steps,
                          int64_t chunk) {
    std::vector<int64_t> rows_of_step;
    for (size_t i = 0; i < specs.size(); ++i) {
      const int64_t length = static_cast<int64_t>(specs[i].prompt.size());
      std::vector<int64_t> rows;
      for (int64_t done = 0; done < length; done += rows.back()) {
        rows.push_back(std::min(chunk, length - done));
      }
      rows.insert(rows.end(), specs[i].stop.max_tokens - 1, 1);
      rows_of_step.resize(
          std::max(rows_of_step.size(), arrival_steps[i] + rows.size()));
      for (size_t k = 0; k < rows.size(); ++k) {
        rows_of_step[arrival_steps[i] + k] += rows[k];
      }
    }
    EXPECT_EQ(run.num_steps, static_cast<int64_t>(rows_of_step.size()));
    EXPECT_EQ(run.max_rows_of_a_step,
              *std::max_element(rows_of_step.begin(), rows_of_step.end()));
  }

  static void RunCase(
      const Case& c, const std::string& directory,
      const std::vector<SequenceSpec>& specs,
      const std::map<SequenceId, std::vector<SampledToken>>& reference) {
    SCOPED_TRACE(c.Name());
    const ThreadClusterOptions options = ClusterOptions(directory, c.layout);
    auto cluster = ThreadCluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    ASSERT_EQ((*cluster)->prepared().size(),
              static_cast<size_t>(c.layout.num_ranks()));
    const EngineOptions engine{.max_prefill_chunk_tokens = c.chunk,
                               .look_ahead = c.look_ahead};
    StepNumber step = 1;
    if (c.batch != Batch::kAlone) {
      std::vector<int64_t> arrival_steps;
      for (int i = 0; i < kNumSequences; ++i) {
        arrival_steps.push_back(c.batch == Batch::kStaggered ? i / 2 : 0);
      }
      auto run =
          RunSequences(**cluster, options, engine, specs, arrival_steps, step);
      ASSERT_TRUE(run.ok()) << run.status();
      EXPECT_EQ(run->outputs.size(), specs.size());
      if (c.batch == Batch::kTogether) {
        EXPECT_EQ(run->max_sequences_of_a_step, kNumSequences);
      } else {
        EXPECT_GE(run->max_sequences_of_a_step, 8);
        EXPECT_LT(run->max_sequences_of_a_step, kNumSequences);
      }
      EXPECT_EQ(run->stats.num_look_ahead_steps > 0, c.look_ahead);
      ExpectShape(*run, specs, arrival_steps, c.chunk);
      ExpectSame(*run, reference, c.Name());
      return;
    }
    for (const int index : {0, 1, 6, 27, 56}) {
      auto run =
          RunSequences(**cluster, options, engine, {specs[index]}, {}, step);
      ASSERT_TRUE(run.ok()) << run.status();
      EXPECT_EQ(run->max_sequences_of_a_step, 1);
      ExpectShape(*run, {specs[index]}, {0}, c.chunk);
      ExpectSame(*run, reference, c.Name());
    }
  }
};

TEST_F(LayoutsTest, TokensAndLogprobBitsDoNotDependOnLayoutBatchOrChunks) {
  const TinyModel model;
  const int64_t vocab_size = model.config().vocab_size;
  const std::vector<Case> cases =
      RunsFullProduct() ? FullProduct() : PairwiseCover();
  for (const bool sampled : {false, true}) {
    const std::vector<SequenceSpec> specs = Specs(sampled, vocab_size);
    const auto reference = Reference(model.directory(), specs);
    ASSERT_EQ(reference.size(), specs.size());
    for (const Case& c : cases) {
      if (c.sampled != sampled) continue;
      RunCase(c, model.directory(), specs, reference);
      if (HasFatalFailure()) return;
    }
  }
  RecordProperty("cases", static_cast<int>(cases.size()));
  std::printf("%zu of %zu cases of the full product ran\n", cases.size(),
              FullProduct().size());
}

TEST_F(LayoutsTest, EveryPairOfFactorValuesIsCovered) {
  std::set<std::string> all;
  for (const Case& c : FullProduct()) {
    for (const std::string& pair : PairsOf(c)) all.insert(pair);
  }
  std::set<std::string> covered;
  for (const Case& c : PairwiseCover()) {
    for (const std::string& pair : PairsOf(c)) covered.insert(pair);
  }
  EXPECT_EQ(covered, all);
  // 16 layouts x 4 chunk sizes is the largest pair, and a lower bound.
  EXPECT_GE(PairwiseCover().size(), 64u);
}

}  // namespace
}  // namespace witan
