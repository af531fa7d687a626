// Exactness beyond the regular case: group sizes that do not divide the
// leaves, heads and experts that do not divide the ranks, other weight dtypes,
// sliding windows, preemption, other transports and code paths.

#include <gtest/gtest.h>

#include <random>

#include "tests/exactness/runs.h"
#include "tests/testing/engine.h"
#include "tests/testing/thread_cluster.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

void ExpectSameForLayouts(const TinyModel& model,
                          const std::vector<Layout>& layouts,
                          CpuPath path = CpuPath::kAuto) {
  const auto specs = Specs(12, 100, model.config().vocab_size);
  ThreadClusterOptions options{
      .model_directory = model.directory(), .layout = {1, 1}, .cpu_path = path};
  const EngineRun reference = RunTogether(options, specs);
  for (const Layout layout : layouts) {
    SCOPED_TRACE("tp=" + std::to_string(layout.tp) +
                 " ep=" + std::to_string(layout.ep));
    options.layout = layout;
    ExpectSame(RunTogether(options, specs), reference);
  }
}

TEST(ModelsTest, GroupsOfThreeFiveSixAndSevenRanksComputeTheSame) {
  ExpectSameForLayouts(
      TinyModel(),
      {{3, 1}, {1, 3}, {3, 3}, {5, 5}, {6, 6}, {7, 7}, {3, 2}, {2, 3}, {6, 3}});
}

TEST(ModelsTest, RanksWithoutHeadsOrExpertsComputeTheSame) {
  TinyModelOptions options;
  options.config.num_heads = 3;
  options.config.num_kv_heads = 1;
  options.config.num_experts = 5;
  options.config.experts_per_token = 3;
  options.config.vocab_size = 321;
  ExpectSameForLayouts(TinyModel(options),
                       {{8, 8}, {4, 2}, {2, 4}, {5, 5}, {8, 1}, {1, 8}});
}

TEST(ModelsTest, Float32AndFloat16WeightsComputeTheSameOnAllLayouts) {
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    TinyModelOptions options;
    options.config.weights = dtype;
    ExpectSameForLayouts(TinyModel(options), {{2, 2}, {4, 1}, {8, 8}});
  }
}

TEST(ModelsTest, TheSecondOrderComputesTheSameOnAllLayoutsAndBothPaths) {
  const TinyModel model;
  ExpectSameForLayouts(model, {{2, 2}, {8, 4}}, CpuPath::kPortable);
  const auto specs = Specs(8, 100, model.config().vocab_size);
  ThreadClusterOptions options{.model_directory = model.directory(),
                               .layout = {2, 2},
                               .cpu_path = CpuPath::kPortable};
  const EngineRun portable = RunTogether(options, specs);
  options.cpu_path = CpuPath::kAvx2;
  ExpectSame(RunTogether(options, specs), portable);
}

TEST(ModelsTest, ASlidingWindowComputesTheSameInAnyChunks) {
  TinyModelOptions model_options;
  model_options.config.sliding_window = 37;
  model_options.config.windowed_layers = {true, true};
  const TinyModel model(model_options);
  const auto specs = Specs(4, 150, model.config().vocab_size);
  ThreadClusterOptions options{.model_directory = model.directory(),
                               .layout = {1, 1}};
  const EngineRun whole = RunTogether(options, specs);
  ExpectSame(RunTogether(options, specs, {.max_prefill_chunk_tokens = 11}),
             whole);
  options.layout = {4, 4};
  ExpectSame(RunTogether(options, specs), whole);
}

TEST(ModelsTest, ContextsOfSeveralSplitsComputeTheSameInAnyChunks) {
  const TinyModel model;
  const auto specs = Specs(3, 490, model.config().vocab_size);
  ThreadClusterOptions options{.model_directory = model.directory(),
                               .layout = {1, 1},
                               .max_context_tokens = 512,
                               .max_step_tokens = 600};
  const EngineRun whole = RunTogether(options, specs);
  EXPECT_GE(whole.max_rows_of_a_step, 490);
  ExpectSame(RunTogether(options, specs, {.max_prefill_chunk_tokens = 100}),
             whole);
  options.layout = {8, 2};
  ExpectSame(RunTogether(options, specs, {.max_prefill_chunk_tokens = 300}),
             whole);
}

TEST(ModelsTest, PreemptedSequencesContinueWithTheSameBits) {
  const TinyModel model;
  auto specs = Specs(10, 60, model.config().vocab_size);
  for (SequenceSpec& spec : specs) spec.stop.max_tokens = 90;
  ThreadClusterOptions options{.model_directory = model.directory(),
                               .layout = {2, 2}};
  const EngineRun reference = RunTogether(options, specs);
  EXPECT_EQ(reference.stats.num_preemptions, 0);
  options.num_blocks = 14;
  const EngineRun preempted = RunTogether(options, specs);
  EXPECT_GT(preempted.stats.num_preemptions, 0);
  ExpectSame(preempted, reference);
}

TEST(ModelsTest, EveryTransportAndBothReductionsComputeTheSame) {
  const TinyModel model;
  const auto specs = Specs(8, 100, model.config().vocab_size);
  ThreadClusterOptions options{.model_directory = model.directory(),
                               .layout = {1, 1}};
  const EngineRun reference = RunTogether(options, specs);
  options.layout = {4, 4};
  const std::pair<ThreadTransport, std::string> transports[] = {
      {ThreadTransport::kLocal, ""},
      {ThreadTransport::kSharedMemory, "witan-shm "},
      {ThreadTransport::kTcp, "witan-tcp "}};
  // 16 rows of a sum have 4 KiB: prompts are above, steps of decoding below.
  for (const int64_t one_shot_max_bytes : {0, 4 << 10, 1 << 30}) {
    for (const auto& [transport, endpoint] : transports) {
      SCOPED_TRACE(endpoint + std::to_string(one_shot_max_bytes));
      options.transport = transport;
      options.one_shot_max_bytes = one_shot_max_bytes;
      Premises premises;
      ExpectSame(RunTogether(options, specs, {}, &premises), reference);
      ASSERT_EQ(premises.prepared.size(), 4u);
      for (const GroupPrepared& rank : premises.prepared) {
        for (const std::string& of_group :
             {rank.endpoints.world, rank.endpoints.attention,
              rank.endpoints.expert}) {
          EXPECT_EQ(of_group.substr(0, endpoint.size()), endpoint);
          EXPECT_EQ(of_group.empty(), endpoint.empty());
        }
      }
      EXPECT_EQ(premises.sums.one_shot > 0, one_shot_max_bytes > 0);
      EXPECT_EQ(premises.sums.two_shot > 0, one_shot_max_bytes < 1 << 30);
    }
  }
}

TEST(ModelsTest, SeveralThreadsPerRankComputeTheSame) {
  const TinyModel model;
  const auto specs = Specs(8, 100, model.config().vocab_size);
  ThreadClusterOptions options{.model_directory = model.directory(),
                               .layout = {1, 1}};
  Premises premises;
  const EngineRun reference = RunTogether(options, specs, {}, &premises);
  EXPECT_EQ(premises.num_pieces_of_other_threads, 0);
  for (const int num_threads : {2, 3, 4}) {
    options.num_threads = num_threads;
    // On a busy machine the caller may be done before another thread comes.
    int64_t num_pieces_of_others = 0;
    for (int run = 0; run < 200 && num_pieces_of_others == 0; ++run) {
      ExpectSame(RunTogether(options, specs, {}, &premises), reference);
      num_pieces_of_others = premises.num_pieces_of_other_threads;
    }
    EXPECT_GT(num_pieces_of_others, 0);
  }
}

// Prompts with 100 tokens in common, some of them choices of one request, that
// come one after the other, so that most of them find the beginning cached.
TEST(ModelsTest, APrefixFromTheCacheChangesNoBit) {
  const TinyModel model;
  auto specs = Specs(16, 20, model.config().vocab_size);
  std::vector<int64_t> arrival_steps;
  std::mt19937 random(7);
  std::vector<TokenId> common(100);
  for (TokenId& token : common) {
    token = static_cast<TokenId>(random() % model.config().vocab_size);
  }
  for (size_t i = 0; i < specs.size(); ++i) {
    const int64_t num_common = i % 4 == 3 ? 70 : 100;
    specs[i].prompt.insert(specs[i].prompt.begin(), common.begin(),
                           common.begin() + num_common);
    if (i % 4 == 1) {  // another choice of the request before
      specs[i].prompt = specs[i - 1].prompt;
      specs[i].choice = 1;
    }
    specs[i].stop.max_tokens = 40;
    arrival_steps.push_back(static_cast<int64_t>(i / 2 * 5));
  }
  ThreadClusterOptions options{.model_directory = model.directory(),
                               .layout = {1, 1}};
  const EngineRun cold =
      RunTogether(options, specs, {.look_ahead = false, .prefix_cache = false});
  EXPECT_EQ(cold.stats.num_prefix_hit_tokens, 0);
  // A cache with room, and one in which blocks are evicted and sequences
  // preempted.
  for (const int64_t num_blocks : {1024, 24}) {
    for (const Layout layout : {Layout{1, 1}, Layout{2, 2}, Layout{3, 3}}) {
      SCOPED_TRACE(layout.tp);
      options.layout = layout;
      options.num_blocks = num_blocks;
      const EngineRun warm =
          RunTogether(options, specs, {.max_prefill_chunk_tokens = 33}, nullptr,
                      arrival_steps);
      ExpectSame(warm, cold);
      EXPECT_GT(warm.stats.num_prefix_hit_tokens, 10 * 64);
      EXPECT_GT(warm.stats.num_parked, 0);
      EXPECT_EQ(warm.stats.num_preemptions > 0, num_blocks == 24);
      EXPECT_EQ(warm.stats.num_prefix_evictions > 0, num_blocks == 24);
    }
  }
}

}  // namespace
}  // namespace witan
