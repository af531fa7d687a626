#include "model/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/cpu_memory.h"
#include "base/limits.h"
#include "base/status.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/testing/one_rank.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr EngineLimits kLimits = {.max_context_tokens = 100,
                                  .max_step_tokens = 16,
                                  .max_sequences = 4,
                                  .num_blocks = 10};

// Element by element: a weight counts when one of the rank's slices covers it,
// and once only, also where a tied output table lies inside the embedding.
int64_t NaiveWeightsBytes(const ModelConfig& config, const RankShard& shard) {
  int64_t bytes = 0;
  for (const TensorSlice& slice : SlicesOfRank(config, shard)) {
    const bool is_part_of_embedding =
        slice.role == TensorRole::kLmHead && config.tie_word_embeddings;
    for (int64_t row = slice.rows.begin; row < slice.rows.end; ++row) {
      for (int64_t column = slice.columns.begin; column < slice.columns.end;
           ++column) {
        if (!is_part_of_embedding) {
          bytes += config.weights == DType::kF32 ? 4 : 2;
        }
      }
    }
  }
  return bytes;
}

TEST(MemoryPlanTest, WeightsAreTheSumOfTheSlices) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const bool tied : {false, true}) {
      ModelConfig config = TinyModelConfig();
      config.weights = dtype;
      config.tie_word_embeddings = tied;
      for (int tp = 1; tp <= 8; ++tp) {
        for (const int ep : {1, 3, 8}) {
          const Layout layout{tp, ep};
          const int rank = layout.num_ranks() - 1;
          EXPECT_EQ(
              MakeMemoryPlan(config, layout, rank, kLimits, 1).weights_bytes,
              NaiveWeightsBytes(config, MakeRankShard(config, layout, rank)));
        }
      }
    }
  }
}

TEST(MemoryPlanTest, RanksOfAGroupHoldTheModelAndWhatIsReplicated) {
  const ModelConfig config = TinyModelConfig();
  const int64_t whole =
      MakeMemoryPlan(config, Layout{1, 1}, 0, kLimits, 1).weights_bytes;
  // 8 heads over 4 KV heads at most: with tp = ep = 2 nothing is shared but
  // embedding, norms and routers, once more.
  const int64_t replicated = 2 * (320 * 64 + (2 * 2 + 1) * 64 + 2 * 8 * 64);
  int64_t sum = 0;
  for (int rank = 0; rank < 2; ++rank) {
    sum += MakeMemoryPlan(config, Layout{2, 2}, rank, kLimits, 1).weights_bytes;
  }
  EXPECT_EQ(sum, whole + replicated);
}

TEST(MemoryPlanTest, KvBlocksHoldTheLocalHeadsOfEveryLayer) {
  ModelConfig config = TinyModelConfig();
  // 2 layers, K and V, 2 heads of 16, 32 positions, bf16.
  EXPECT_EQ(
      MakeMemoryPlan(config, Layout{1, 1}, 0, kLimits, 1).kv_bytes_per_block,
      2 * 2 * 2 * 16 * 32 * 2);
  EXPECT_EQ(MakeMemoryPlan(config, Layout{1, 1}, 0, kLimits, 1).kv_bytes,
            10 * 2 * 2 * 2 * 16 * 32 * 2);
  EXPECT_EQ(
      MakeMemoryPlan(config, Layout{4, 1}, 3, kLimits, 1).kv_bytes_per_block,
      2 * 2 * 1 * 16 * 32 * 2);
  // Activations of float16 weights are fp32 (numerics contract), and so is
  // the cache.
  config.weights = DType::kF16;
  EXPECT_EQ(
      MakeMemoryPlan(config, Layout{4, 1}, 3, kLimits, 1).kv_bytes_per_block,
      2 * 2 * 1 * 16 * 32 * 4);
  // A rank without query heads keeps no cache.
  config.num_heads = 2;
  EXPECT_EQ(
      MakeMemoryPlan(config, Layout{8, 1}, 0, kLimits, 1).kv_bytes_per_block,
      0);
}

TEST(MemoryPlanTest, WorkspaceIsTheListOfTheDecodersBuffers) {
  // Rank 0 of tp = 2, ep = 2: 4 query heads, 1 KV head, 4 experts; 16 rows, 32
  // choices of experts, 4 sequences of 100 positions (4 blocks). In the order
  // of worker/decoder.h and worker/moe.h.
  const int64_t decoder = 16 * 64 * 4 + 16 * 64 * 2 + 16 * 64 * 2  // [T, H]
                          + 16 * 64 * 4                            // query
                          + 16 * 16 * 4 + 16 * 16 * 4              // key, value
                          + 16 * 64 * 2 + 16 * 64 * 2  // rotated, attention
                          + 4 * 64 * 4 + 4 * 64 * 2 + 4 * 64 * 2  // sampled
                          + 4 * 320 * 4;                          // logits
  const int64_t experts = 16 * 8 * 4                   // router logits
                          + 32 * 4 + 32 * 4            // ids, weights
                          + 5 * 4                      // offsets
                          + 32 * 4 + 32 * 4            // source rows, slots
                          + 32 * 96 * 4 + 32 * 96 * 4  // gate, up
                          + 32 * 96 * 2                // activated
                          + 32 * 64 * 2;               // output
  // One thread; x of 32 rows of 4 experts, each with up to 3 empty rows.
  const int64_t backend = (32 + 4 * 3) * 96 * 4 + kThreadScratchBytes;
  const int64_t rope = 100 * 16 * 4;
  const int64_t block_tables = 2 * 4 * 4 * 4;
  const ModelConfig config = TinyModelConfig();
  EXPECT_EQ(
      MakeMemoryPlan(config, Layout{2, 2}, 0, kLimits, 1).workspace_bytes,
      decoder + experts + backend + rope + block_tables + 320 * (4 + 4 + 16));
  // Only world rank 0 joins logits and samples.
  EXPECT_EQ(MakeMemoryPlan(config, Layout{2, 2}, 1, kLimits, 1).workspace_bytes,
            decoder + experts + backend + rope + block_tables - 4 * 320 * 4);
}

TEST(MemoryPlanTest, KvBytesAreWhatTheBackendAsksFor) {
  ModelConfig config = TinyModelConfig();
  auto backend = MakeCpuBackend({.path = CpuPath::kPortable});
  ASSERT_TRUE(backend.ok());
  // Of 24 elements V takes 32.
  for (const int64_t head_dim : {2, 16, 24, 128}) {
    for (const DType dtype : {DType::kBF16, DType::kF32}) {
      config.head_dim = head_dim;
      config.weights = dtype;
      EXPECT_EQ(MakeMemoryPlan(config, Layout{1, 1}, 0, kLimits, 1).kv_bytes,
                2 * static_cast<int64_t>(
                        (*backend)->KvBytes(10, 2, head_dim, dtype)));
    }
  }
}

// The step with the most rows, and sampling with everything that is kept for
// it, in every thread.
TEST(MemoryPlanTest, TheBackendKeepsNoMoreThanIsPlannedForTheLargestStep) {
  for (const DType weights : {DType::kBF16, DType::kF32}) {
    TinyModelOptions options;
    options.config.weights = weights;
    const TinyModel model(options);
    for (const CpuPath path :
         {CpuPath::kPortable, CpuPath::kAvx2, CpuPath::kAvx512Bf16}) {
      for (const int num_threads : {1, 3}) {
        auto rank = OneRank::Create(model.directory(), path, num_threads);
        if (absl::IsFailedPrecondition(rank.status())) continue;  // lacks it
        ASSERT_TRUE(rank.ok()) << rank.status();
        const EngineLimits& limits = (*rank)->limits();
        std::vector<TokenId> tokens;
        for (int64_t i = 0; i < limits.max_step_tokens; ++i) {
          tokens.push_back(static_cast<TokenId>(i * i % 320));
        }
        const auto logits = (*rank)->LogitsOfLastPosition(tokens);
        ASSERT_TRUE(logits.ok()) << logits.status();
        SamplingParams params = {.top_p = 0.9f, .num_top_logprobs = 5};
        const std::vector<SampleRow> rows(20, SampleRow{.params = &params});
        std::vector<SampledToken> sampled(rows.size());
        std::vector<float> all_logits;
        for (size_t i = 0; i < rows.size(); ++i) {
          all_logits.insert(all_logits.end(), logits->begin(), logits->end());
        }
        auto& backend = dynamic_cast<CpuBackend&>((*rank)->backend());
        backend.Sample(ConstTensorView(all_logits.data(), DType::kF32, 20, 320),
                       rows, sampled);
        const int64_t planned = CpuWorkspaceBytes(
            model.config(), MakeRankShard(model.config(), Layout{1, 1}, 0),
            limits, num_threads);
        EXPECT_LE(backend.workspace_bytes(), planned);
        // The bound is close where nothing is left to the threads' luck.
        if (num_threads == 1 && weights == DType::kF32) {
          EXPECT_GE(backend.workspace_bytes(), planned * 9 / 10);
        }
      }
    }
  }
}

TEST(MemoryPlanTest, CommunicationHoldsTheLargestContributionsOfEachGroup) {
  ModelConfig config = TinyModelConfig();
  config.vocab_size = 160;
  const auto bytes = [&](Layout layout, const EngineLimits& limits) {
    return MakeMemoryPlan(config, layout, 0, limits, 1).communication_bytes;
  };
  const int64_t vector = 16 * 64 * 4;  // one fp32 [T, H]
  const int64_t tokens = 4 * 4;        // one int32 [S]
  // Two buffers to send from and one for every member's contribution.
  EXPECT_EQ(bytes({1, 1}, kLimits), 3 * vector + 3 * vector + 3 * tokens);
  EXPECT_EQ(bytes({4, 1}, kLimits), 6 * vector + 3 * vector + 6 * tokens);
  EXPECT_EQ(bytes({2, 8}, kLimits), 4 * vector + 10 * vector + 10 * tokens);
  // Of three ranks, the second owns leaves 2, 3 and 4: two subtrees.
  EXPECT_EQ(bytes({1, 3}, kLimits), 3 * vector + 5 * 2 * vector + 5 * tokens);
  // Of one row, the logits of four sequences and half the vocabulary are
  // longer than the sums.
  EngineLimits one_row = kLimits;
  one_row.max_step_tokens = 1;
  const int64_t logits = 4 * 80 * 4;
  EXPECT_EQ(bytes({2, 1}, one_row), 4 * logits + 3 * (64 * 4) + 4 * tokens);
}

std::vector<int32_t> OneThreadEach(Layout layout) {
  return std::vector<int32_t>(static_cast<size_t>(layout.num_ranks()), 1);
}

// Memory of each rank that holds exactly `num_blocks`.
std::vector<int64_t> MemoryFor(const ModelConfig& config, Layout layout,
                               int64_t num_blocks) {
  EngineLimits limits = kLimits;
  limits.num_blocks = num_blocks;
  std::vector<int64_t> memory;
  for (int rank = 0; rank < layout.num_ranks(); ++rank) {
    memory.push_back(
        MakeMemoryPlan(config, layout, rank, limits, 1).total_bytes());
  }
  return memory;
}

TEST(PlanNumBlocksTest, UsesMemoryToTheLastByteAndNoFurther) {
  ModelConfig config = TinyModelConfig();
  for (const Layout layout : {Layout{1, 1}, Layout{2, 2}, Layout{3, 2}}) {
    // 100 positions are 4 blocks; with the null block at least 5, and at most
    // 17 for four sequences.
    for (int64_t num_blocks = 5; num_blocks <= 17; ++num_blocks) {
      const std::vector<int64_t> memory = MemoryFor(config, layout, num_blocks);
      const auto exact =
          PlanNumBlocks(config, layout, kLimits, memory, OneThreadEach(layout));
      ASSERT_TRUE(exact.ok()) << exact.status();
      EXPECT_EQ(*exact, num_blocks);
      for (size_t rank = 0; rank < memory.size(); ++rank) {
        std::vector<int64_t> less = memory;
        --less[rank];
        const auto fewer =
            PlanNumBlocks(config, layout, kLimits, less, OneThreadEach(layout));
        if (num_blocks == 5) {
          ASSERT_EQ(fewer.status().code(),
                    absl::StatusCode::kResourceExhausted);
          EXPECT_THAT(
              std::string(MessageOf(fewer.status())),
              AllOf(HasSubstr(fmt::format("rank {} ", rank)),
                    HasSubstr(fmt::format("needs {} bytes", memory[rank])),
                    HasSubstr(fmt::format("has {};", less[rank])),
                    HasSubstr("one sequence of 100 tokens"),
                    HasSubstr("max_context_tokens")));
        } else {
          ASSERT_TRUE(fewer.ok()) << fewer.status();
          EXPECT_EQ(*fewer, num_blocks - 1);
        }
      }
    }
  }
}

TEST(PlanNumBlocksTest, NeverPlansMoreThanAllSequencesCanUse) {
  const ModelConfig config = TinyModelConfig();
  const std::vector<int64_t> plenty = {int64_t{1} << 50};
  const auto blocks_for = [&](int64_t context, int64_t sequences) {
    EngineLimits limits = kLimits;
    limits.max_context_tokens = context;
    limits.max_sequences = sequences;
    return *PlanNumBlocks(config, Layout{1, 1}, limits, plenty, {1});
  };
  EXPECT_EQ(blocks_for(1, 1), 2);
  EXPECT_EQ(blocks_for(32, 1), 2);
  EXPECT_EQ(blocks_for(33, 1), 3);
  EXPECT_EQ(blocks_for(64, 5), 11);
  EXPECT_EQ(blocks_for(kMaxContextTokens, kMaxStepSequences), kMaxBlocks);
}

TEST(PlanNumBlocksTest, ARankWithoutHeadsSetsNoBound) {
  ModelConfig config = TinyModelConfig();
  config.num_heads = 2;
  const Layout layout{4, 1};
  std::vector<int64_t> memory(4, int64_t{1} << 40);
  ASSERT_EQ(MakeMemoryPlan(config, layout, 0, kLimits, 1).kv_bytes_per_block,
            0);
  memory[0] = MakeMemoryPlan(config, layout, 0, kLimits, 1).total_bytes();
  EXPECT_EQ(
      *PlanNumBlocks(config, layout, kLimits, memory, OneThreadEach(layout)),
      17);
  --memory[0];
  EXPECT_FALSE(
      PlanNumBlocks(config, layout, kLimits, memory, OneThreadEach(layout))
          .ok());
}

TEST(PlanNumBlocksTest,
     AbsurdMemoryIsRefusedAndTheLargestModelDoesNotOverflow) {
  const ModelConfig config = TinyModelConfig();
  for (const int64_t memory :
       {int64_t{0}, int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
    EXPECT_FALSE(
        PlanNumBlocks(config, Layout{1, 1}, kLimits, {memory}, {1}).ok());
  }
  ModelConfig largest = config;
  largest.hidden_size = kMaxHiddenSize;
  largest.intermediate_size = kMaxIntermediateSize;
  largest.num_layers = kMaxLayers;
  largest.num_heads = kMaxAttentionHeads;
  largest.num_kv_heads = kMaxAttentionHeads;
  largest.head_dim = kMaxHeadDim;
  largest.num_experts = 300;
  largest.experts_per_token = kMaxExpertsPerToken;
  largest.vocab_size = kMaxVocabSize;
  largest.max_context_tokens = kMaxContextTokens;
  const EngineLimits limits = {.max_context_tokens = kMaxContextTokens,
                               .max_step_tokens = kMaxStepTokens,
                               .max_sequences = kMaxStepSequences,
                               .num_blocks = kMaxBlocks};
  const MemoryPlan plan =
      MakeMemoryPlan(largest, Layout{1, 1}, 0, limits, kMaxThreadsPerRank);
  for (const int64_t bytes :
       {plan.weights_bytes, plan.kv_bytes_per_block, plan.kv_bytes,
        plan.workspace_bytes, plan.communication_bytes, plan.total_bytes()}) {
    EXPECT_GT(bytes, 0);
  }
}

}  // namespace
}  // namespace witan
