// Rows with LoRA adapters: alone and among others, on every layout, in any
// chunks, preempted, and apart from each other in the prefix cache.

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/limits.h"
#include "tests/exactness/runs.h"
#include "tests/testing/tiny_adapter.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

struct Case {
  std::string architecture;
  DType dtype;
  friend void PrintTo(const Case& c, std::ostream* out) {
    *out << c.architecture << " in " << NameOf(c.dtype);
  }
};

class AdaptersTest : public testing::TestWithParam<Case> {
 protected:
  AdaptersTest()
      : model_({.config = ConfigOf(GetParam())}),
        adapters_{
            {model_.config(), {.rank = 8, .seed = 11}},
            {model_.config(),
             {.rank = 3,
              .alpha = 4,
              .rank_stabilised = true,
              .seed = 12,
              .dtype = DType::kBF16}},
            // Attention of the second layer only.
            {model_.config(),
             {.rank = 40, .seed = 13, .changes = [](const TensorSlice& w) {
                return w.layer == 1 && (w.role == TensorRole::kQuery ||
                                        w.role == TensorRole::kKey ||
                                        w.role == TensorRole::kValue);
              }}}} {
    options_.model_directory = model_.directory();
    options_.layout = {1, 1};
    for (const TinyAdapter& adapter : adapters_) {
      options_.adapters.push_back(adapter.directory());
    }
    specs_ = Specs(64, 60, model_.config().vocab_size);
    for (size_t i = 0; i < specs_.size(); ++i) {
      const int32_t index = static_cast<int32_t>(i % 4) - 1;
      specs_[i].adapter.index = index;
      if (index >= 0) {
        specs_[i].adapter.content_hash = std::to_string(index);
      }
    }
  }

  static ModelConfig ConfigOf(const Case& c) {
    ModelConfig config = TinyFamilyConfig(c.architecture);
    config.weights = c.dtype;
    return config;
  }

  std::vector<Layout> Layouts() const {
    if (!model_.config().has_experts()) return {{2, 1}, {3, 1}, {8, 1}};
    return {{2, 2}, {1, 4}, {3, 2}, {8, 8}};
  }

  TinyModel model_;
  TinyAdapter adapters_[3];
  ThreadClusterOptions options_;
  std::vector<SequenceSpec> specs_;
};

TEST_P(AdaptersTest, SixtyFourRowsWithFourAdaptersComputeTheSameOnAnyLayout) {
  const EngineRun reference = RunTogether(options_, specs_);
  EXPECT_EQ(reference.max_sequences_of_a_step, 64);
  for (const Layout layout : Layouts()) {
    SCOPED_TRACE("tp=" + std::to_string(layout.tp) +
                 " ep=" + std::to_string(layout.ep));
    options_.layout = layout;
    ExpectSame(RunTogether(options_, specs_), reference);
  }
}

TEST_P(AdaptersTest, ARowIsTheSameAloneAndInAnyChunks) {
  const EngineRun together = RunTogether(options_, specs_);
  ExpectSame(RunTogether(options_, specs_, {.max_prefill_chunk_tokens = 7}),
             together);
  for (size_t i = 0; i < 8; ++i) {
    const EngineRun alone = RunTogether(options_, {specs_[i]});
    EXPECT_TRUE(SameBits(alone.outputs.at(specs_[i].id),
                         together.outputs.at(specs_[i].id)))
        << "adapter " << specs_[i].adapter.index;
  }
}

TEST_P(AdaptersTest, ARowWithoutAnAdapterIsThatOfAClusterWithoutAny) {
  const EngineRun together = RunTogether(options_, specs_);
  options_.adapters.clear();
  std::vector<SequenceSpec> plain;
  for (const SequenceSpec& spec : specs_) {
    if (spec.adapter.index == kNoAdapter) plain.push_back(spec);
  }
  const EngineRun without = RunTogether(options_, plain);
  ASSERT_EQ(without.outputs.size(), 16u);
  for (const auto& [id, tokens] : without.outputs) {
    EXPECT_TRUE(SameBits(tokens, together.outputs.at(id)));
  }
}

TEST_P(AdaptersTest, EveryAdapterChangesTheTokensThatTheModelMakes) {
  auto specs = specs_;
  for (SequenceSpec& spec : specs) {
    spec.prompt = specs_.front().prompt;
    spec.sampling = specs_.front().sampling;
  }
  const EngineRun run =
      RunTogether(options_, {specs.begin(), specs.begin() + 4});
  for (size_t i = 0; i < 4; ++i) {
    for (size_t j = 0; j < i; ++j) {
      EXPECT_FALSE(
          SameBits(run.outputs.at(specs[i].id), run.outputs.at(specs[j].id)))
          << i << " and " << j;
    }
  }
}

TEST_P(AdaptersTest, PreemptionAndThePrefixCacheChangeNoBit) {
  // The same prompt under every adapter, twice.
  std::vector<SequenceSpec> specs;
  std::vector<int64_t> arrival_steps;
  for (int i = 0; i < 8; ++i) {
    SequenceSpec spec = specs_[static_cast<size_t>(i % 4)];
    spec.id = static_cast<SequenceId>(i + 1);
    spec.prompt = specs_.front().prompt;
    spec.stop.max_tokens = 30;
    specs.push_back(std::move(spec));
    arrival_steps.push_back(i < 4 ? 0 : 20);
  }
  const EngineRun cold = RunTogether(options_, specs, {.prefix_cache = false});
  EXPECT_EQ(cold.stats.num_preemptions, 0);
  options_.num_blocks = 9;
  const EngineRun warm =
      RunTogether(options_, specs, {}, nullptr, arrival_steps);
  EXPECT_GT(warm.stats.num_preemptions, 0);
  EXPECT_GT(warm.stats.num_prefix_hit_tokens, 0);
  ExpectSame(warm, cold);
}

// Ranks that own no head or no column of the FFN have no factors either.
TEST(AdaptersOfFewHeadsTest, RanksWithoutHeadsOrColumnsComputeTheSame) {
  TinyModelOptions options{.config = TinyFamilyConfig("LlamaForCausalLM")};
  options.config.num_heads = 3;
  options.config.num_kv_heads = 1;
  options.config.intermediate_size = 64;
  const TinyModel model(options);
  const TinyAdapter adapter(model.config(), {.rank = 4});
  ThreadClusterOptions cluster{.model_directory = model.directory(),
                               .layout = {1, 1},
                               .adapters = {adapter.directory()}};
  auto specs = Specs(12, 40, model.config().vocab_size);
  for (size_t i = 0; i < specs.size(); i += 2) specs[i].adapter.index = 0;
  const EngineRun reference = RunTogether(cluster, specs);
  for (const int tp : {2, 5, 8}) {
    SCOPED_TRACE(tp);
    cluster.layout = {tp, 1};
    ExpectSame(RunTogether(cluster, specs), reference);
  }
}

std::string TestName(const testing::TestParamInfo<Case>& info) {
  return info.param.architecture + "_" + std::string(NameOf(info.param.dtype));
}

INSTANTIATE_TEST_SUITE_P(
    Families, AdaptersTest,
    testing::Values(Case{"LlamaForCausalLM", DType::kBF16},
                    Case{"Phi3ForCausalLM", DType::kF32},
                    Case{"Qwen3ForCausalLM", DType::kF16},
                    Case{"MixtralForCausalLM", DType::kBF16},
                    Case{"Qwen3MoeForCausalLM", DType::kBF16}),
    TestName);

}  // namespace
}  // namespace witan
