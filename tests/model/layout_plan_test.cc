// Numbers by hand, from the shapes that the models' config.json give
// (tests/testing/published_configs) and the published numbers of weights.

#include "model/layout_plan.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "tests/testing/published_configs.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kGib = int64_t{1} << 30;
// A tenth of 80 GiB stays free.
constexpr int64_t kUsable = 72 * kGib;

LayoutQuestion Question(const ModelConfig& config, int64_t num_gpus) {
  return {.num_gpus = num_gpus,
          .gpu_memory_bytes = 80 * kGib,
          .context_tokens = config.max_context_tokens,
          .max_step_tokens = 512};
}

LayoutPlan PlanOf(const ModelConfig& config, const LayoutQuestion& question,
                  Layout layout) {
  const auto plans = PlanLayouts(config, question);
  EXPECT_TRUE(plans.ok()) << plans.status();
  for (const LayoutPlan& plan : *plans) {
    if (plan.layout == layout) return plan;
  }
  ADD_FAILURE() << "no tp=" << layout.tp << " ep=" << layout.ep;
  return {};
}

// --- Published models -------------------------------------------------------

// 32 layers, hidden 4096, 32 query and 8 KV heads of 128, 8 experts of 14336,
// vocabulary 32000, context 32768.
TEST(LayoutPlanTest, Mixtral8x7bOnTwoGpusByHand) {
  const ModelConfig config = PublishedConfig("Mixtral-8x7B-v0.1");
  const LayoutQuestion question = Question(config, 2);
  const LayoutPlan plan = PlanOf(config, question, {2, 2});
  // Both ranks have the embedding table, 65 norms and 32 routers.
  const int64_t repeated = 32000 * 4096 + 65 * 4096 + 32 * 8 * 4096;
  const int64_t weights = (46'702'792'704 + repeated) / 2 * 2;
  EXPECT_EQ(weights, 46'835'179'520);
  EXPECT_EQ(plan.memory.weights_bytes, weights);
  EXPECT_EQ(plan.kv_bytes_per_token(), 2 * 32 * 4 * 128 * 2);
  // Rows of a step: 512, with 1024 choices of experts. In the order of
  // model/memory_plan.cc, all that does not depend on the requests.
  const int64_t step = 512 * 4096 * 8 + 512 * 2048 * 8 + 512 * 512 * 8 +
                       512 * 8 * 4 + 1024 * 16 + 5 * 4 +
                       int64_t{1024} * 14336 * 10 + 1024 * 4096 * 2 +
                       32768 * 128 * 4;
  // Of a request: its row, its logits on rank 0, two block tables.
  const int64_t slot = 4096 * 8 + 32000 * 4 + 2 * 1024 * 4;
  // Two groups of two ranks, a buffer each for what is sent, twice, and what
  // either sends; the sampled tokens of a request.
  const int64_t sums = 2 * 4 * int64_t{512} * 4096 * 4;
  const int64_t tokens = 4 * 4;
  const int64_t block = 32 * 65536;
  const int64_t rest = kUsable - weights - step - sums;
  const int64_t num_requests = (rest - block) / (1024 * block + slot + tokens);
  EXPECT_EQ(num_requests, 14);
  EXPECT_EQ(plan.num_requests, 14);
  EXPECT_EQ(plan.num_replicas, 1);
  EXPECT_EQ(plan.rank, 0);  // it joins the logits
  EXPECT_EQ(plan.memory.workspace_bytes, step + 14 * slot);
  EXPECT_EQ(plan.memory.communication_bytes, sums + 14 * tokens);
  EXPECT_EQ(plan.memory.kv_bytes, (1 + 14 * 1024) * block);
  EXPECT_EQ(plan.num_blocks, (rest - 14 * (slot + tokens)) / block);
  EXPECT_EQ(plan.num_blocks, 14403);
  // Whole experts, 90 GB of them, do not fit beside each other.
  EXPECT_FALSE(PlanOf(config, question, {2, 1}).fits());
  EXPECT_FALSE(PlanOf(config, question, {1, 1}).fits());
  // Half of the experts and everything else: twice the KV per rank.
  const LayoutPlan experts_only = PlanOf(config, question, {1, 2});
  const int64_t experts = int64_t{32} * 8 * 3 * 4096 * 14336;
  EXPECT_EQ(experts_only.memory.weights_bytes,
            2 * (46'702'792'704 - experts / 2));
  EXPECT_EQ(experts_only.kv_bytes_per_token(), 131072);
  EXPECT_EQ(experts_only.num_requests, 6);
  const auto plans = PlanLayouts(config, question);
  EXPECT_EQ(BestLayout(*plans)->layout, (Layout{2, 2}));
}

// 56 layers, hidden 6144, 48 query and 8 KV heads of 128, 8 experts of 16384,
// vocabulary 32000, context 65536.
TEST(LayoutPlanTest, Mixtral8x22bOnEightGpusByHand) {
  const ModelConfig config = PublishedConfig("Mixtral-8x22B-v0.1");
  const LayoutQuestion question = Question(config, 8);
  const LayoutPlan plan = PlanOf(config, question, {8, 8});
  const int64_t repeated = 32000 * 6144 + 113 * 6144 + 56 * 8 * 6144;
  const int64_t weights = 2 * ((140'620'634'112 - repeated) / 8 + repeated);
  EXPECT_EQ(weights, 35'505'254'400);
  EXPECT_EQ(plan.memory.weights_bytes, weights);
  EXPECT_EQ(plan.kv_bytes_per_token(), 2 * 56 * 1 * 128 * 2);
  const int64_t step =
      512 * 6144 * 8 + 512 * 768 * 8 + 512 * 128 * 8 + 512 * 8 * 4 + 1024 * 16 +
      2 * 4 + int64_t{1024} * 16384 * 10 + 1024 * 6144 * 2 + 65536 * 128 * 4;
  const int64_t slot = 6144 * 8 + 32000 * 4 + 2 * 2048 * 4;
  const int64_t sums = 2 * 10 * int64_t{512} * 6144 * 4;
  const int64_t tokens = 10 * 4;
  const int64_t block = 32 * 28672;
  const int64_t rest = kUsable - weights - step - sums;
  EXPECT_EQ((rest - block) / (2048 * block + slot + tokens), 21);
  EXPECT_EQ(plan.num_requests, 21);
  EXPECT_EQ(
      plan.memory.total_bytes(),
      weights + step + sums + 21 * (slot + tokens) + (1 + 21 * 2048) * block);
  // Two copies on four GPUs each: 70.6 GB of weights leave 6 GB, and a request
  // takes 3.8.
  const LayoutPlan four = PlanOf(config, question, {4, 4});
  EXPECT_EQ(four.memory.weights_bytes,
            2 * ((140'620'634'112 - repeated) / 4 + repeated));
  EXPECT_EQ(four.kv_bytes_per_token(), 57344);
  EXPECT_EQ(four.num_replicas, 2);
  EXPECT_EQ(four.num_requests, 1);
  EXPECT_EQ(four.total_requests(), 2);
  const auto plans = PlanLayouts(config, question);
  EXPECT_EQ(BestLayout(*plans)->layout, (Layout{8, 8}));
}

// 80 layers, hidden 8192, 64 query and 8 KV heads of 128, dense FFN of 28672,
// vocabulary 128256, context 8192.
TEST(LayoutPlanTest, Llama3With70bByHand) {
  const ModelConfig config = PublishedConfig("Meta-Llama-3-70B");
  const LayoutQuestion question = Question(config, 8);
  const int64_t repeated = int64_t{128256} * 8192 + 161 * 8192;
  for (const auto& [tp, weights, kv] : {std::tuple(1, 141'107'412'992, 327680),
                                        std::tuple(2, 71'605'698'560, 163840),
                                        std::tuple(4, 36'854'841'344, 81920),
                                        std::tuple(8, 19'479'412'736, 40960)}) {
    const LayoutPlan plan = PlanOf(config, question, {tp, 1});
    EXPECT_EQ(weights, 2 * ((70'553'706'496 - repeated) / tp + repeated));
    EXPECT_EQ(plan.memory.weights_bytes, weights) << tp;
    EXPECT_EQ(plan.kv_bytes_per_token(), kv) << tp;
    EXPECT_EQ(plan.num_replicas, 8 / tp);
    EXPECT_EQ(plan.fits(), tp > 1);
  }
  // A dense model has no experts to share: one layout for each tp.
  EXPECT_EQ(PlanLayouts(config, question)->size(), 8u);
}

// 126 layers, hidden 16384, 128 query and 8 KV heads of 128, dense FFN of
// 53248, vocabulary 128256, context 131072.
TEST(LayoutPlanTest, Llama31With405bNeedsLargerGpusAndNotMoreOfThem) {
  const ModelConfig config = PublishedConfig("Llama-3.1-405B");
  LayoutQuestion question = Question(config, 8);
  const int64_t repeated = int64_t{128256} * 16384 + 253 * 16384;
  const int64_t weights = 2 * ((405'853'388'800 - repeated) / 8 + repeated);
  EXPECT_EQ(weights, 105'147'957'248);
  const LayoutPlan plan = PlanOf(config, question, {8, 1});
  EXPECT_EQ(plan.memory.weights_bytes, weights);
  EXPECT_EQ(plan.kv_bytes_per_token(), 2 * 126 * 1 * 128 * 2);
  EXPECT_FALSE(plan.fits());
  EXPECT_EQ(plan.num_blocks, 0);
  EXPECT_EQ(BestLayout(*PlanLayouts(config, question)), nullptr);
  const LayoutRemedies remedies = FindRemedies(config, question);
  EXPECT_EQ(remedies.num_gpus, 0);
  EXPECT_EQ(remedies.context_tokens, 0);
  question.gpu_memory_bytes = remedies.gpu_memory_bytes;
  EXPECT_EQ(PlanOf(config, question, {8, 1}).num_requests, 1);
  --question.gpu_memory_bytes;
  EXPECT_FALSE(PlanOf(config, question, {8, 1}).fits());
  // 141 GiB leave 126.9: 31 GB beside the weights, and a request takes 8.5.
  question.gpu_memory_bytes = 141 * kGib;
  EXPECT_EQ(PlanOf(config, question, {8, 1}).num_requests, 3);
}

// 40 layers, hidden 5120, 40 query and 10 KV heads of 128, dense FFN of 17920,
// vocabulary 32064, context 131072.
TEST(LayoutPlanTest, KvHeadsThatQueryHeadsOfSeveralRanksTouchAreOnEachOfThem) {
  const ModelConfig config = PublishedConfig("Phi-3-medium-128k-instruct");
  const LayoutQuestion question = Question(config, 8);
  const int64_t repeated = 32064 * 5120 + 81 * 5120;
  const int64_t one_kv_head = int64_t{40} * 2 * 128 * 5120;
  const int64_t shared = 13'960'238'080 - repeated - 10 * one_kv_head;
  // Four query heads use a KV head. Of ten query heads the first rank's touch
  // KV heads 0, 1 and 2; of five it is 0 and 1.
  for (const auto& [tp, kv_heads] :
       {std::pair(1, 10), std::pair(2, 5), std::pair(4, 3), std::pair(8, 2)}) {
    const LayoutPlan plan = PlanOf(config, question, {tp, 1});
    EXPECT_EQ(plan.memory.weights_bytes,
              2 * (shared / tp + kv_heads * one_kv_head + repeated));
    EXPECT_EQ(plan.kv_bytes_per_token(), 2 * 40 * kv_heads * 128 * 2);
  }
  EXPECT_EQ(PlanOf(config, question, {1, 1}).memory.weights_bytes,
            27'920'476'160);
  EXPECT_EQ(PlanOf(config, question, {8, 1}).memory.weights_bytes,
            3'856'721'920);
}

// 94 layers, hidden 4096, 64 query and 4 KV heads of 128 with norms, 128
// experts of 1536, vocabulary 151936, context 40960.
TEST(LayoutPlanTest, Qwen3With235bHasFewerKvHeadsThanRanks) {
  const ModelConfig config = PublishedConfig("Qwen3-235B-A22B");
  const LayoutQuestion question = Question(config, 8);
  const int64_t repeated =
      int64_t{151936} * 4096 + 189 * 4096 + 94 * 2 * 128 + 94 * 128 * 4096;
  const int64_t one_kv_head = int64_t{94} * 2 * 128 * 4096;
  const int64_t shared = 235'093'634'560 - repeated - 4 * one_kv_head;
  const LayoutPlan plan = PlanOf(config, question, {8, 8});
  EXPECT_EQ(plan.memory.weights_bytes,
            2 * (shared / 8 + one_kv_head + repeated));
  EXPECT_EQ(plan.memory.weights_bytes, 60'048'694'272);
  EXPECT_EQ(plan.kv_bytes_per_token(), 2 * 94 * 1 * 128 * 2);
  // 16.6 GB beside the weights and about 0.7 of buffers; a request takes 1.97.
  EXPECT_EQ(plan.num_requests, 8);
  EXPECT_EQ(PlanOf(config, question, {4, 8}).kv_bytes_per_token(), 48128);
  EXPECT_EQ(PlanOf(config, question, {2, 8}).kv_bytes_per_token(), 96256);
}

TEST(LayoutPlanTest, RanksTogetherHoldTheModelAndWhatIsRepeated) {
  for (const char* name :
       {"Mixtral-8x7B-v0.1", "Mixtral-8x22B-v0.1", "Meta-Llama-3-70B",
        "Llama-3.1-405B", "Qwen3-235B-A22B"}) {
    const ModelConfig config = PublishedConfig(name);
    const int64_t whole = FindPublishedModel(name).num_parameters;
    const int64_t layers = config.num_layers;
    const int64_t hidden = config.hidden_size;
    const int64_t experts =
        layers * config.num_experts * 3 * hidden * config.intermediate_size;
    const int64_t everywhere =
        config.vocab_size * hidden + (2 * layers + 1) * hidden +
        layers * config.num_experts * hidden +
        (config.qk_norm ? layers * 2 * config.head_dim : 0);
    for (const Layout layout : {Layout{1, 1}, Layout{2, 1}, Layout{3, 1},
                                Layout{4, 2}, Layout{2, 8}, Layout{2, 3}}) {
      if (!CheckLayout(config, layout).ok()) continue;
      int64_t sum = 0;
      for (int rank = 0; rank < layout.num_ranks(); ++rank) {
        sum += WeightsBytes(config, MakeRankShard(config, layout, rank));
      }
      // Of 4 KV heads for 64 query heads the third is on two of three ranks,
      // which have 16, 24 and 24 query heads.
      int64_t more_kv_heads = 0;
      if (layout.tp == 3 && config.num_kv_heads == 4) more_kv_heads = 1;
      const int64_t num_ranks = layout.num_ranks();
      EXPECT_EQ(
          sum,
          2 * (num_ranks * everywhere + num_ranks / layout.ep * experts +
               num_ranks / layout.tp *
                   (whole - everywhere - experts +
                    more_kv_heads * layers * 2 * hidden * config.head_dim)))
          << name << " tp=" << layout.tp << " ep=" << layout.ep;
    }
  }
}

// --- What a worker allocates ------------------------------------------------

TEST(LayoutPlanTest, SaysWhatTheWorkersPlanSaysButForTheCpusOwn) {
  const ModelConfig config = TinyModelConfig();
  const LayoutQuestion question = {.num_gpus = 8,
                                   .gpu_memory_bytes = 8 << 20,
                                   .context_tokens = 100,
                                   .max_step_tokens = 16};
  const auto plans = PlanLayouts(config, question);
  ASSERT_TRUE(plans.ok()) << plans.status();
  for (const LayoutPlan& plan : *plans) {
    ASSERT_TRUE(plan.fits());
    const EngineLimits limits = {.max_context_tokens = 100,
                                 .max_step_tokens = 16,
                                 .max_sequences = plan.num_requests,
                                 .num_blocks = 1 + plan.num_requests * 4};
    constexpr int kThreads = 3;
    MemoryPlan workers =
        MakeMemoryPlan(config, plan.layout, plan.rank, limits, kThreads);
    workers.workspace_bytes -=
        CpuWorkspaceBytes(config, MakeRankShard(config, plan.layout, plan.rank),
                          limits, kThreads);
    EXPECT_EQ(plan.memory, workers);
  }
}

// One more request or one more block would be too much on some rank.
TEST(LayoutPlanTest, UsesMemoryToTheLastRequestAndTheLastBlock) {
  const ModelConfig config = TinyModelConfig();
  LayoutQuestion question = {
      .num_gpus = 8, .context_tokens = 100, .max_step_tokens = 16};
  for (const int64_t memory : {600'000, 700'000, 900'000, 1'200'000}) {
    question.gpu_memory_bytes = memory;
    const auto plans = PlanLayouts(config, question);
    ASSERT_TRUE(plans.ok()) << plans.status();
    for (const LayoutPlan& plan : *plans) {
      const auto most_bytes = [&](int64_t num_sequences, int64_t num_blocks) {
        const EngineLimits limits = {.max_context_tokens = 100,
                                     .max_step_tokens = 16,
                                     .max_sequences = num_sequences,
                                     .num_blocks = num_blocks};
        int64_t most = 0;
        for (int rank = 0; rank < plan.layout.num_ranks(); ++rank) {
          const RankShard shard = MakeRankShard(config, plan.layout, rank);
          const int64_t bytes =
              MakeMemoryPlan(config, plan.layout, rank, limits, 1)
                  .total_bytes() -
              CpuWorkspaceBytes(config, shard, limits, 1);
          most = std::max(most, bytes);
        }
        return most;
      };
      const int64_t usable = memory - memory / 10;
      // By trying every number.
      int64_t num_requests = 0;
      while (num_requests < 16 &&
             most_bytes(num_requests + 1, 4 * num_requests + 5) <= usable) {
        ++num_requests;
      }
      EXPECT_EQ(plan.num_requests, num_requests);
      const int64_t slots = std::max<int64_t>(num_requests, 1);
      if (plan.num_blocks > 0) {
        EXPECT_LE(most_bytes(slots, plan.num_blocks), usable);
      }
      EXPECT_GT(most_bytes(slots, plan.num_blocks + 1), usable);
      EXPECT_EQ(plan.memory.total_bytes(), most_bytes(slots, 1 + 4 * slots));
    }
  }
}

// --- Which layouts, and which is best ---------------------------------------

TEST(LayoutPlanTest, EveryPairWhoseRanksFitIsThereByNumberOfRanks) {
  const ModelConfig config = TinyModelConfig();
  LayoutQuestion question = {.num_gpus = 4,
                             .gpu_memory_bytes = kGib,
                             .context_tokens = 512,
                             .max_step_tokens = 512};
  std::vector<std::string> layouts;
  const auto few = PlanLayouts(config, question);
  ASSERT_TRUE(few.ok()) << few.status();
  for (const LayoutPlan& plan : *few) {
    layouts.push_back(fmt::format("{},{} {}x{}", plan.layout.tp, plan.layout.ep,
                                  plan.num_replicas, plan.layout.num_ranks()));
  }
  EXPECT_THAT(layouts, ElementsAre("1,1 4x1", "1,2 2x2", "2,1 2x2", "2,2 2x2",
                                   "1,3 1x3", "3,1 1x3", "3,3 1x3", "1,4 1x4",
                                   "2,4 1x4", "4,1 1x4", "4,2 1x4", "4,4 1x4"));
  question.num_gpus = kMaxWorkers;
  const auto all = PlanLayouts(config, question);
  EXPECT_EQ(all->size(), 64u);
  // A cluster has at most so many replicas.
  EXPECT_EQ(all->front().num_replicas, kMaxReplicas);
  EXPECT_EQ(all->back().layout.num_ranks(), 56);
  EXPECT_EQ(all->back().num_replicas, kMaxWorkers / 56);
}

TEST(LayoutPlanTest, ATpThatDividesNothingHasUnevenRanksAndIdleGpus) {
  const ModelConfig config = PublishedConfig("Mixtral-8x7B-v0.1");
  LayoutQuestion question = Question(config, 8);
  question.tp = 3;
  question.ep = 3;
  const auto plans = PlanLayouts(config, question);
  ASSERT_TRUE(plans.ok()) << plans.status();
  ASSERT_EQ(plans->size(), 1u);
  EXPECT_EQ(plans->front().num_replicas, 2);
  // Ranks own 2, 3 and 3 of 8 leaves; the second and the third need the most.
  EXPECT_NE(plans->front().rank, 0);
  const int64_t repeated = 32000 * 4096 + 65 * 4096 + 32 * 8 * 4096;
  EXPECT_EQ(plans->front().memory.weights_bytes,
            2 * ((46'702'792'704 - repeated) / 8 * 3 + repeated));
  EXPECT_EQ(plans->front().kv_bytes_per_token(), 2 * 32 * 3 * 128 * 2);
}

TEST(LayoutPlanTest, LayoutsThatCannotBeAreRefusedWithWhatCan) {
  const ModelConfig mixture = PublishedConfig("Mixtral-8x7B-v0.1");
  const ModelConfig dense = PublishedConfig("Meta-Llama-3-8B");
  const auto refusal = [](const ModelConfig& config, std::optional<int> tp,
                          std::optional<int> ep) {
    LayoutQuestion question = Question(config, 4);
    question.tp = tp;
    question.ep = ep;
    const auto plans = PlanLayouts(config, question);
    EXPECT_EQ(plans.status().code(), absl::StatusCode::kInvalidArgument);
    return plans.status().ToString();
  };
  for (const int value : {0, -1, 9, std::numeric_limits<int>::max(),
                          std::numeric_limits<int>::min()}) {
    EXPECT_THAT(
        refusal(mixture, value, {}),
        HasSubstr(fmt::format("tp={} is out of range; use 1 to 8", value)));
    EXPECT_THAT(
        refusal(mixture, {}, value),
        HasSubstr(fmt::format("ep={} is out of range; use 1 to 8", value)));
  }
  EXPECT_THAT(refusal(dense, {}, 2), HasSubstr("a LlamaForCausalLM has none"));
  EXPECT_THAT(refusal(mixture, 3, 2),
              HasSubstr("tp=3 ep=2 make 6 ranks, and there are 4 GPUs for one "
                        "rank each; use at least 6 GPUs"));
  EXPECT_THAT(refusal(mixture, 8, {}), HasSubstr("use at least 8 GPUs"));
}

LayoutPlan Candidate(int tp, int64_t num_replicas, int64_t num_requests,
                     int64_t weights_bytes) {
  return {.layout = {tp, 1},
          .num_replicas = num_replicas,
          .num_requests = num_requests,
          .memory = {.weights_bytes = weights_bytes}};
}

TEST(BestLayoutTest, HoldsTheMostRequestsThenHasTheFewestRanksAndBytes) {
  EXPECT_EQ(BestLayout({}), nullptr);
  EXPECT_EQ(BestLayout({Candidate(1, 4, 0, 1)}), nullptr);
  const auto best = [](const std::vector<LayoutPlan>& plans) {
    return BestLayout(plans) - plans.data();
  };
  // 8, 10 and 0 requests.
  EXPECT_EQ(best({Candidate(1, 4, 2, 1), Candidate(2, 2, 5, 9),
                  Candidate(4, 1, 0, 1)}),
            1);
  EXPECT_EQ(best({Candidate(2, 2, 4, 1), Candidate(1, 4, 2, 9)}), 1);
  EXPECT_EQ(best({Candidate(2, 2, 4, 9), Candidate(2, 2, 4, 8)}), 1);
  EXPECT_EQ(best({Candidate(2, 2, 4, 8), Candidate(2, 2, 4, 8)}), 0);
}

// --- Limits, absurd memory and remedies -------------------------------------

TEST(LayoutPlanTest, RequestsAreBoundedByTheRowsOfAStepAndTheEnginesLimits) {
  const ModelConfig config = TinyModelConfig();
  LayoutQuestion question = {.num_gpus = 1,
                             .gpu_memory_bytes = kMaxMemoryBytes,
                             .context_tokens = 1,
                             .max_step_tokens = 7};
  EXPECT_EQ(PlanOf(config, question, {1, 1}).num_requests, 7);
  EXPECT_EQ(PlanOf(config, question, {1, 1}).num_blocks, kMaxBlocks);
  question.max_step_tokens = kMaxStepTokens;
  EXPECT_EQ(PlanOf(config, question, {1, 1}).num_requests, kMaxStepSequences);
  // A cache has at most 2^24 blocks, one of them the null block: 31 requests
  // of 2^19 blocks.
  ModelConfig longest = config;
  longest.max_context_tokens = kMaxContextTokens;
  question.context_tokens = kMaxContextTokens;
  EXPECT_EQ(PlanOf(longest, question, {1, 1}).num_requests, 31);
}

TEST(LayoutPlanTest, NoMemoryFitsNothingAndNothingOverflows) {
  ModelConfig config = TinyModelConfig();
  LayoutQuestion question = {.num_gpus = 1,
                             .gpu_memory_bytes = 1,
                             .context_tokens = 1,
                             .max_step_tokens = 1};
  const LayoutPlan plan = PlanOf(config, question, {1, 1});
  EXPECT_FALSE(plan.fits());
  EXPECT_EQ(plan.num_blocks, 0);
  EXPECT_GT(plan.memory.total_bytes(), 1);
  config.num_layers = kMaxLayers;
  config.hidden_size = kMaxHiddenSize;
  config.intermediate_size = kMaxIntermediateSize;
  config.num_heads = config.num_kv_heads = kMaxAttentionHeads;
  config.head_dim = kMaxHeadDim;
  config.num_experts = 300;
  config.vocab_size = kMaxVocabSize;
  config.max_context_tokens = kMaxContextTokens;
  question.context_tokens = kMaxContextTokens;
  question.max_step_tokens = kMaxStepTokens;
  question.tp = question.ep = 1;
  EXPECT_GT(PlanOf(config, question, {1, 1}).memory.total_bytes(),
            kMaxMemoryBytes);
  EXPECT_GT(FindRemedies(config, question).gpu_memory_bytes, kMaxMemoryBytes);
}

// One GPU of 80 GiB for 93 GB of weights.
TEST(LayoutRemediesTest, EachOfThemIsTheLeastThatWouldDo) {
  const ModelConfig config = PublishedConfig("Mixtral-8x7B-v0.1");
  const auto fits = [&](const LayoutQuestion& question) {
    return BestLayout(*PlanLayouts(config, question)) != nullptr;
  };
  LayoutQuestion question = Question(config, 1);
  ASSERT_FALSE(fits(question));
  LayoutRemedies remedies = FindRemedies(config, question);
  EXPECT_EQ(remedies.num_gpus, 2);
  EXPECT_EQ(remedies.context_tokens, 0);
  LayoutQuestion larger = question;
  larger.gpu_memory_bytes = remedies.gpu_memory_bytes;
  EXPECT_TRUE(fits(larger));
  --larger.gpu_memory_bytes;
  EXPECT_FALSE(fits(larger));
  // 88.2 of 98 GiB hold the weights and some context.
  question.gpu_memory_bytes = 98 * kGib;
  ASSERT_FALSE(fits(question));
  remedies = FindRemedies(config, question);
  EXPECT_GT(remedies.context_tokens, 0);
  question.context_tokens = remedies.context_tokens;
  EXPECT_TRUE(fits(question));
  ++question.context_tokens;
  EXPECT_FALSE(fits(question));
  // What the question names stays.
  LayoutQuestion fixed = Question(config, 2);
  fixed.tp = 2;
  fixed.ep = 1;
  EXPECT_EQ(FindRemedies(config, fixed).num_gpus, 0);
}

TEST(CostPerMillionTokensTest, IsThePriceOfTheTimeThatTheyTake) {
  // A million tokens at 1000 a second take 1000 s, 0.2777 h, of 8 GPUs.
  EXPECT_DOUBLE_EQ(CostPerMillionTokens(8, 2.5, 1000), 8 * 2.5 / 3.6);
  EXPECT_DOUBLE_EQ(CostPerMillionTokens(1, 3600, 1e6), 1);
}

}  // namespace
}  // namespace witan
