#include "model/shard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <tuple>

#include "base/status.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelConfig SmallConfig(int64_t num_heads, int64_t num_kv_heads,
                        int64_t num_experts, int64_t vocab_size) {
  ModelConfig config = TinyModelConfig();
  config.hidden_size = 3;
  config.intermediate_size = 2;
  config.num_layers = 2;
  config.num_heads = num_heads;
  config.num_kv_heads = num_kv_heads;
  config.head_dim = 2;
  config.num_experts = num_experts;
  config.experts_per_token = 1;
  config.vocab_size = vocab_size;
  return config;
}

std::vector<ModelConfig> ManyConfigs() {
  std::vector<ModelConfig> configs;
  const std::pair<int64_t, int64_t> heads[] = {
      {6, 1}, {6, 2}, {7, 1}, {7, 7}, {8, 1}, {8, 2}, {8, 8}, {32, 2}, {32, 8}};
  for (const auto& [num_heads, num_kv_heads] : heads) {
    for (const int64_t num_experts : {1, 3, 8, 60}) {
      // Vocabularies below, at and between multiples of eight.
      const int64_t vocab_size = 5 + 3 * num_heads;
      configs.push_back(
          SmallConfig(num_heads, num_kv_heads, num_experts, vocab_size));
    }
  }
  return configs;
}

// A naive owner: which member of a group of `group_size` has unit `unit` of
// `num_units`, found by trying all leaves and members.
int NaiveOwner(int64_t unit, int64_t num_units, int group_size) {
  for (int64_t leaf = 0; leaf < 8; ++leaf) {
    if (unit < leaf * num_units / 8 || unit >= (leaf + 1) * num_units / 8) {
      continue;
    }
    for (int member = 0; member < group_size; ++member) {
      if (leaf >= member * 8 / group_size &&
          leaf < (member + 1) * 8 / group_size) {
        return member;
      }
    }
  }
  return -1;
}

// Whether `rank` needs one element of the model, by the rules in words.
bool NaiveOwns(const ModelConfig& config, Layout layout, int rank,
               const TensorSlice& tensor, int64_t row, int64_t column) {
  const int tp_index = rank % layout.tp;
  const int64_t dim = config.head_dim;
  const auto has_head = [&](int64_t head) {
    return NaiveOwner(head, config.num_heads, layout.tp) == tp_index;
  };
  switch (tensor.role) {
    case TensorRole::kQuery:
      return has_head(row / dim);
    case TensorRole::kOutput:
      return has_head(column / dim);
    case TensorRole::kKey:
    case TensorRole::kValue: {
      const int64_t queries = config.num_heads / config.num_kv_heads;
      for (int64_t i = 0; i < queries; ++i) {
        if (has_head(row / dim * queries + i)) return true;
      }
      return false;
    }
    case TensorRole::kLmHead:
      return NaiveOwner(row, config.vocab_size, layout.tp) == tp_index;
    case TensorRole::kExpertGate:
    case TensorRole::kExpertUp:
    case TensorRole::kExpertDown:
      return NaiveOwner(tensor.expert, config.num_experts, layout.ep) ==
             rank % layout.ep;
    default:
      return true;
  }
}

using TensorKey = std::tuple<TensorRole, int64_t, int64_t>;

std::vector<TensorSlice> AllTensors(const ModelConfig& config) {
  std::vector<TensorSlice> tensors = {
      WholeTensor(config, TensorRole::kEmbedding, -1, -1),
      WholeTensor(config, TensorRole::kFinalNorm, -1, -1),
      WholeTensor(config, TensorRole::kLmHead, -1, -1)};
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const TensorRole role :
         {TensorRole::kAttentionNorm, TensorRole::kQuery, TensorRole::kKey,
          TensorRole::kValue, TensorRole::kOutput, TensorRole::kFfnNorm,
          TensorRole::kRouter}) {
      tensors.push_back(WholeTensor(config, role, layer, -1));
    }
    for (int64_t expert = 0; expert < config.num_experts; ++expert) {
      for (const TensorRole role :
           {TensorRole::kExpertGate, TensorRole::kExpertUp,
            TensorRole::kExpertDown}) {
        tensors.push_back(WholeTensor(config, role, layer, expert));
      }
    }
  }
  return tensors;
}

// Paints the rank's slices and compares every element with the naive rules.
// Returns what is wrong first, or nothing.
std::string CheckRank(const ModelConfig& config, Layout layout, int rank,
                      const std::vector<TensorSlice>& tensors) {
  std::map<TensorKey, std::vector<int>> painted;
  for (const TensorSlice& tensor : tensors) {
    painted[{tensor.role, tensor.layer, tensor.expert}].resize(
        static_cast<size_t>(tensor.rows.size() * tensor.columns.size()));
  }
  for (const TensorSlice& slice :
       SlicesOfRank(config, MakeRankShard(config, layout, rank))) {
    const TensorSlice whole =
        WholeTensor(config, slice.role, slice.layer, slice.expert);
    if (slice.rows.size() <= 0 || slice.columns.size() <= 0) return "empty";
    const auto found = painted.find({slice.role, slice.layer, slice.expert});
    if (found == painted.end() || slice.rows.begin < 0 ||
        slice.rows.end > whole.rows.end || slice.columns.begin < 0 ||
        slice.columns.end > whole.columns.end) {
      return "outside of the model";
    }
    for (int64_t row = slice.rows.begin; row < slice.rows.end; ++row) {
      for (int64_t column = slice.columns.begin; column < slice.columns.end;
           ++column) {
        ++found->second[static_cast<size_t>(row * whole.columns.size() +
                                            column)];
      }
    }
  }
  for (const TensorSlice& tensor : tensors) {
    const auto& counts = painted[{tensor.role, tensor.layer, tensor.expert}];
    for (int64_t row = 0; row < tensor.rows.end; ++row) {
      for (int64_t column = 0; column < tensor.columns.end; ++column) {
        const int expected =
            NaiveOwns(config, layout, rank, tensor, row, column) ? 1 : 0;
        const int count =
            counts[static_cast<size_t>(row * tensor.columns.size() + column)];
        if (count != expected) {
          return fmt::format(
              "role {} layer {} expert {} element [{}, {}] is held {} times, "
              "not {}",
              static_cast<int>(tensor.role), tensor.layer, tensor.expert, row,
              column, count, expected);
        }
      }
    }
  }
  return "";
}

TEST(ShardPlanTest, EveryRankHoldsExactlyWhatTheRulesInWordsGiveIt) {
  for (const ModelConfig& config : ManyConfigs()) {
    const std::vector<TensorSlice> tensors = AllTensors(config);
    // tp alone, ep alone and both: slices depend on one of the two each.
    for (int group_size = 1; group_size <= 8; ++group_size) {
      for (const Layout layout : {Layout{group_size, 1}, Layout{1, group_size},
                                  Layout{group_size, group_size}}) {
        for (int rank = 0; rank < layout.num_ranks(); ++rank) {
          ASSERT_EQ(CheckRank(config, layout, rank, tensors), "")
              << "tp " << layout.tp << " ep " << layout.ep << " rank " << rank
              << " heads " << config.num_heads << " kv " << config.num_kv_heads
              << " experts " << config.num_experts;
        }
      }
    }
  }
}

// Counts owners of every unit within each group of one layout.
void ExpectGroupsTileTheModel(const ModelConfig& config, Layout layout) {
  const int num_ranks = layout.num_ranks();
  const auto groups = [&](int group_size, int64_t num_units) {
    return std::vector<std::vector<int>>(
        static_cast<size_t>(num_ranks / group_size),
        std::vector<int>(static_cast<size_t>(num_units)));
  };
  const auto count = [](std::vector<int>& owners, IndexRange range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      ++owners[static_cast<size_t>(i)];
    }
  };
  auto heads = groups(layout.tp, config.num_heads);
  auto kv_heads = groups(layout.tp, config.num_kv_heads);
  auto vocab_rows = groups(layout.tp, config.vocab_size);
  auto attention_leaves = groups(layout.tp, kNumLeaves);
  auto experts = groups(layout.ep, config.num_experts);
  auto expert_leaves = groups(layout.ep, kNumLeaves);
  for (int rank = 0; rank < num_ranks; ++rank) {
    const RankShard shard = MakeRankShard(config, layout, rank);
    const auto attention_group = static_cast<size_t>(rank / layout.tp);
    const auto expert_group = static_cast<size_t>(rank / layout.ep);
    ASSERT_EQ(shard.attention_group, rank / layout.tp);
    ASSERT_EQ(shard.expert_group, rank / layout.ep);
    count(heads[attention_group], shard.query_heads);
    count(kv_heads[attention_group], shard.kv_heads);
    count(vocab_rows[attention_group], shard.vocab_rows);
    count(attention_leaves[attention_group], shard.attention_leaves);
    count(experts[expert_group], shard.experts);
    count(expert_leaves[expert_group], shard.expert_leaves);
  }
  using ::testing::Each;
  EXPECT_THAT(heads, Each(Each(1)));
  EXPECT_THAT(kv_heads, Each(Each(::testing::Ge(1))));
  EXPECT_THAT(vocab_rows, Each(Each(1)));
  EXPECT_THAT(attention_leaves, Each(Each(1)));
  EXPECT_THAT(experts, Each(Each(1)));
  EXPECT_THAT(expert_leaves, Each(Each(1)));
}

TEST(ShardPlanTest, EveryGroupOfEveryLayoutTilesTheModelExactlyOnce) {
  for (const ModelConfig& config : ManyConfigs()) {
    for (int tp = 1; tp <= 8; ++tp) {
      for (int ep = 1; ep <= 8; ++ep) {
        const auto layout = MakeLayout(tp, ep);
        ASSERT_TRUE(layout.ok());
        ASSERT_EQ(layout->num_ranks(), std::lcm(tp, ep));
        ExpectGroupsTileTheModel(config, *layout);
      }
    }
  }
}

TEST(ShardPlanTest, LocalIndicesPointAtTheSameHeadsAndColumns) {
  for (const ModelConfig& config : ManyConfigs()) {
    for (int tp = 1; tp <= 8; ++tp) {
      for (int rank = 0; rank < tp; ++rank) {
        const RankShard shard = MakeRankShard(config, Layout{tp, 1}, rank);
        const std::vector<int32_t> kv_head_of = shard.KvHeadOf(config);
        ASSERT_EQ(static_cast<int64_t>(kv_head_of.size()),
                  shard.query_heads.size());
        for (size_t i = 0; i < kv_head_of.size(); ++i) {
          const int64_t head =
              shard.query_heads.begin + static_cast<int64_t>(i);
          EXPECT_EQ(kv_head_of[i] + shard.kv_heads.begin,
                    head * config.num_kv_heads / config.num_heads);
          EXPECT_LT(kv_head_of[i], shard.kv_heads.size());
        }
        const std::vector<IndexRange> columns =
            shard.AttentionLeafColumns(config);
        ASSERT_EQ(static_cast<int64_t>(columns.size()),
                  shard.attention_leaves.size());
        int64_t next = 0;
        for (size_t i = 0; i < columns.size(); ++i) {
          const IndexRange heads = LeafUnits(
              config.num_heads, static_cast<int>(shard.attention_leaves.begin) +
                                    static_cast<int>(i));
          EXPECT_EQ(columns[i].begin, next);
          EXPECT_EQ(columns[i].size(), heads.size() * config.head_dim);
          next = columns[i].end;
        }
        EXPECT_EQ(next, shard.query_heads.size() * config.head_dim);
      }
    }
  }
}

TEST(ShardPlanTest, ATiedOutputTableIsSlicedLikeAnUntiedOne) {
  ModelConfig config = SmallConfig(8, 2, 8, 37);
  const auto untied =
      SlicesOfRank(config, MakeRankShard(config, Layout{4, 2}, 1));
  config.tie_word_embeddings = true;
  EXPECT_EQ(SlicesOfRank(config, MakeRankShard(config, Layout{4, 2}, 1)),
            untied);
}

TEST(LayoutTest, RefusalsSayWhatWouldDo) {
  const auto error = [](int tp, int ep, int num_ranks) {
    const auto layout = MakeLayout(tp, ep, num_ranks);
    if (layout.ok()) return std::string("accepted");
    EXPECT_EQ(layout.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(MessageOf(layout.status()));
  };
  for (const int bad : {0, -1, 9, std::numeric_limits<int>::max(),
                        std::numeric_limits<int>::min()}) {
    EXPECT_THAT(error(bad, 1, 0), AllOf(HasSubstr(fmt::format("tp={}", bad)),
                                        HasSubstr("use 1 to 8")));
    EXPECT_THAT(error(1, bad, 0), HasSubstr(fmt::format("ep={}", bad)));
  }
  EXPECT_EQ(error(3, 1, 4),
            "tp=3 does not divide the 4 ranks; use 1, 2 or 4, or start 3 "
            "ranks");
  EXPECT_EQ(error(2, 3, 2),
            "ep=3 does not divide the 2 ranks; use 1 or 2, or start 6 ranks");
  EXPECT_EQ(error(2, 1, 7),
            "tp=2 does not divide the 7 ranks; use 1 or 7, or start 2 ranks");
  EXPECT_EQ(error(2, 1, 4),
            "tp=2 ep=1 make 2 ranks, not 4; use one of tp=1 ep=4, tp=2 ep=4, "
            "tp=4 ep=1, tp=4 ep=2, tp=4 ep=4, or start 2 ranks");
  EXPECT_EQ(error(1, 1, 11), "tp=1 ep=1 make 1 ranks, not 11; start 1 ranks");
  EXPECT_THAT(error(1, 1, -3), HasSubstr("-3 ranks"));
  EXPECT_EQ(error(2, 4, 4), "accepted");
  EXPECT_EQ(error(2, 2, 2), "accepted");
  EXPECT_EQ(error(7, 8, 56), "accepted");
}

TEST(WholeTensorTest, ShapesAreThoseThatACheckpointStores) {
  const ModelConfig config = TinyModelConfig();
  const auto shape = [&](TensorRole role) {
    return StoredShape(WholeTensor(config, role, 0, 0));
  };
  EXPECT_THAT(shape(TensorRole::kEmbedding), ElementsAre(320, 64));
  EXPECT_THAT(shape(TensorRole::kAttentionNorm), ElementsAre(64));
  EXPECT_THAT(shape(TensorRole::kQuery), ElementsAre(128, 64));
  EXPECT_THAT(shape(TensorRole::kKey), ElementsAre(32, 64));
  EXPECT_THAT(shape(TensorRole::kValue), ElementsAre(32, 64));
  EXPECT_THAT(shape(TensorRole::kOutput), ElementsAre(64, 128));
  EXPECT_THAT(shape(TensorRole::kFfnNorm), ElementsAre(64));
  EXPECT_THAT(shape(TensorRole::kRouter), ElementsAre(8, 64));
  EXPECT_THAT(shape(TensorRole::kExpertGate), ElementsAre(96, 64));
  EXPECT_THAT(shape(TensorRole::kExpertUp), ElementsAre(96, 64));
  EXPECT_THAT(shape(TensorRole::kExpertDown), ElementsAre(64, 96));
  EXPECT_THAT(shape(TensorRole::kFinalNorm), ElementsAre(64));
  EXPECT_THAT(shape(TensorRole::kLmHead), ElementsAre(320, 64));
}

}  // namespace
}  // namespace witan
