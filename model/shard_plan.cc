#include "model/shard_plan.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "base/check.h"
#include "base/status.h"

namespace witan {
namespace {

// Units of the adjacent leaves [leaves.begin, leaves.end).
IndexRange UnitsOf(int64_t num_units, IndexRange leaves) {
  // LeafUnits(n, 8).begin is n, so that an empty range at the end works too.
  return {LeafUnits(num_units, static_cast<int>(leaves.begin)).begin,
          LeafUnits(num_units, static_cast<int>(leaves.end)).begin};
}

IndexRange Scaled(IndexRange range, int64_t factor) {
  return {range.begin * factor, range.end * factor};
}

// "tp=1 ep=4, tp=2 ep=4": the pairs whose world is n ranks.
std::string PairsText(int n) {
  std::vector<std::string> pairs;
  for (int tp = 1; tp <= kNumLeaves; ++tp) {
    for (int ep = 1; ep <= kNumLeaves; ++ep) {
      if (std::lcm(tp, ep) == n) {
        pairs.push_back(fmt::format("tp={} ep={}", tp, ep));
      }
    }
  }
  return fmt::format("{}", fmt::join(pairs, ", "));
}

}  // namespace

std::string DivisorsText(int n) {
  std::vector<int> divisors;
  for (int d = 1; d <= kNumLeaves; ++d) {
    if (n % d == 0) divisors.push_back(d);
  }
  if (divisors.size() == 1) return "1";
  const int last = divisors.back();
  divisors.pop_back();
  return fmt::format("{} or {}", fmt::join(divisors, ", "), last);
}

int Layout::num_ranks() const { return std::lcm(tp, ep); }

absl::StatusOr<Layout> MakeLayout(int tp, int ep, int num_ranks) {
  for (const auto& [name, value] : {std::pair("tp", tp), std::pair("ep", ep)}) {
    if (value < 1 || value > kNumLeaves) {
      return InvalidArgument("{}={} is out of range; use 1 to {}", name, value,
                             kNumLeaves);
    }
  }
  const Layout layout{tp, ep};
  if (num_ranks < 0) {
    return InvalidArgument("{} ranks are too few; use 1 or more", num_ranks);
  }
  if (num_ranks == 0 || layout.num_ranks() == num_ranks) return layout;
  for (const auto& [name, value] : {std::pair("tp", tp), std::pair("ep", ep)}) {
    if (num_ranks % value != 0) {
      return InvalidArgument(
          "{}={} does not divide the {} ranks; use {}, or start {} ranks", name,
          value, num_ranks, DivisorsText(num_ranks), layout.num_ranks());
    }
  }
  const std::string pairs = PairsText(num_ranks);
  return InvalidArgument(
      "tp={} ep={} make {} ranks, not {}; {}start {} ranks", tp, ep,
      layout.num_ranks(), num_ranks,
      pairs.empty() ? "" : fmt::format("use one of {}, or ", pairs),
      layout.num_ranks());
}

absl::Status CheckLayout(const ModelConfig& config, Layout layout) {
  if (layout.ep == 1 || config.has_experts()) return absl::OkStatus();
  return InvalidArgument(
      "ep={} ranks are to share experts, and a {} has none; use ep=1, and tp "
      "for the number of ranks",
      layout.ep, config.architecture);
}

IndexRange FfnColumns(const ModelConfig& config, IndexRange leaves) {
  const int64_t columns = config.has_experts() ? 0 : config.intermediate_size;
  const int64_t num_units = (columns + kFfnUnitColumns - 1) / kFfnUnitColumns;
  const IndexRange range = Scaled(UnitsOf(num_units, leaves), kFfnUnitColumns);
  return {std::min(range.begin, columns), std::min(range.end, columns)};
}

std::vector<int32_t> RankShard::KvHeadOf(const ModelConfig& config) const {
  const int64_t heads_per_kv_head = config.num_heads / config.num_kv_heads;
  std::vector<int32_t> kv_head_of;
  for (int64_t head = query_heads.begin; head < query_heads.end; ++head) {
    kv_head_of.push_back(
        static_cast<int32_t>(head / heads_per_kv_head - kv_heads.begin));
  }
  return kv_head_of;
}

std::vector<IndexRange> RankShard::AttentionLeafColumns(
    const ModelConfig& config) const {
  std::vector<IndexRange> columns;
  for (int64_t leaf = attention_leaves.begin; leaf < attention_leaves.end;
       ++leaf) {
    const IndexRange heads =
        LeafUnits(config.num_heads, static_cast<int>(leaf));
    columns.push_back(
        Scaled({heads.begin - query_heads.begin, heads.end - query_heads.begin},
               config.head_dim));
  }
  return columns;
}

std::vector<IndexRange> RankShard::FfnLeafColumns(
    const ModelConfig& config) const {
  std::vector<IndexRange> columns;
  for (int64_t leaf = attention_leaves.begin; leaf < attention_leaves.end;
       ++leaf) {
    const IndexRange whole = FfnColumns(config, {leaf, leaf + 1});
    columns.push_back(
        {whole.begin - ffn_columns.begin, whole.end - ffn_columns.begin});
  }
  return columns;
}

RankShard MakeRankShard(const ModelConfig& config, Layout layout, int rank) {
  WITAN_CHECK(rank >= 0 && rank < layout.num_ranks(), "rank {} of {}", rank,
              layout.num_ranks());
  RankShard shard;
  shard.rank = rank;
  shard.tp_index = rank % layout.tp;
  shard.ep_index = rank % layout.ep;
  shard.attention_group = rank / layout.tp;
  shard.expert_group = rank / layout.ep;
  shard.attention_leaves = LeavesOfMember(shard.tp_index, layout.tp);
  shard.expert_leaves = LeavesOfMember(shard.ep_index, layout.ep);
  shard.query_heads = UnitsOf(config.num_heads, shard.attention_leaves);
  const int64_t heads_per_kv_head = config.num_heads / config.num_kv_heads;
  const int64_t first_kv_head = shard.query_heads.begin / heads_per_kv_head;
  shard.kv_heads = {first_kv_head,
                    shard.query_heads.size() == 0
                        ? first_kv_head
                        : (shard.query_heads.end - 1) / heads_per_kv_head + 1};
  shard.ffn_columns = FfnColumns(config, shard.attention_leaves);
  shard.vocab_rows = UnitsOf(config.vocab_size, shard.attention_leaves);
  shard.experts = UnitsOf(config.num_experts, shard.expert_leaves);
  return shard;
}

TensorSlice WholeTensor(const ModelConfig& config, TensorRole role,
                        int64_t layer, int64_t expert) {
  const auto whole = [&](int64_t rows, int64_t columns) {
    return TensorSlice{role, layer, expert, {0, rows}, {0, columns}};
  };
  const int64_t hidden = config.hidden_size;
  switch (role) {
    case TensorRole::kEmbedding:
    case TensorRole::kLmHead:
      return whole(config.vocab_size, hidden);
    case TensorRole::kAttentionNorm:
    case TensorRole::kAttentionNormBias:
    case TensorRole::kOutputBias:
    case TensorRole::kFfnNorm:
    case TensorRole::kFfnNormBias:
    case TensorRole::kFinalNorm:
    case TensorRole::kFinalNormBias:
      return whole(1, hidden);
    case TensorRole::kQuery:
      return whole(config.num_heads * config.head_dim, hidden);
    case TensorRole::kKey:
    case TensorRole::kValue:
      return whole(config.num_kv_heads * config.head_dim, hidden);
    case TensorRole::kQueryBias:
      return whole(1, config.num_heads * config.head_dim);
    case TensorRole::kKeyBias:
    case TensorRole::kValueBias:
      return whole(1, config.num_kv_heads * config.head_dim);
    case TensorRole::kQueryNorm:
    case TensorRole::kKeyNorm:
      return whole(1, config.head_dim);
    case TensorRole::kOutput:
      return whole(hidden, config.num_heads * config.head_dim);
    case TensorRole::kRouter:
      return whole(config.num_experts, hidden);
    case TensorRole::kGate:
    case TensorRole::kUp:
    case TensorRole::kExpertGate:
    case TensorRole::kExpertUp:
      return whole(config.intermediate_size, hidden);
    case TensorRole::kDown:
    case TensorRole::kExpertDown:
      return whole(hidden, config.intermediate_size);
    case TensorRole::kLmHeadBias:
      return whole(1, config.vocab_size);
  }
  WITAN_CHECK(false, "unknown role {}", static_cast<int>(role));
}

std::vector<int64_t> StoredShape(const TensorSlice& slice) {
  switch (slice.role) {
    case TensorRole::kAttentionNorm:
    case TensorRole::kAttentionNormBias:
    case TensorRole::kQueryBias:
    case TensorRole::kKeyBias:
    case TensorRole::kValueBias:
    case TensorRole::kQueryNorm:
    case TensorRole::kKeyNorm:
    case TensorRole::kOutputBias:
    case TensorRole::kFfnNorm:
    case TensorRole::kFfnNormBias:
    case TensorRole::kFinalNorm:
    case TensorRole::kFinalNormBias:
    case TensorRole::kLmHeadBias:
      return {slice.columns.size()};
    default:
      return {slice.rows.size(), slice.columns.size()};
  }
}

bool HasRole(const ModelConfig& config, TensorRole role) {
  switch (role) {
    case TensorRole::kAttentionNormBias:
    case TensorRole::kFfnNormBias:
    case TensorRole::kFinalNormBias:
      return config.norm == NormKind::kLayer;
    case TensorRole::kQueryBias:
    case TensorRole::kKeyBias:
    case TensorRole::kValueBias:
      return config.qkv_bias;
    case TensorRole::kQueryNorm:
    case TensorRole::kKeyNorm:
      return config.qk_norm;
    case TensorRole::kOutputBias:
      return config.output_bias;
    case TensorRole::kGate:
    case TensorRole::kUp:
    case TensorRole::kDown:
      return !config.has_experts();
    case TensorRole::kRouter:
    case TensorRole::kExpertGate:
    case TensorRole::kExpertUp:
    case TensorRole::kExpertDown:
      return config.has_experts();
    case TensorRole::kLmHeadBias:
      return config.lm_head_bias;
    default:
      return true;
  }
}

std::vector<TensorSlice> SlicesOfRank(const ModelConfig& config,
                                      const RankShard& shard) {
  std::vector<TensorSlice> slices;
  const auto add = [&](TensorRole role, int64_t layer, int64_t expert,
                       std::optional<IndexRange> rows,
                       std::optional<IndexRange> columns) {
    if (!HasRole(config, role)) return;
    TensorSlice slice = WholeTensor(config, role, layer, expert);
    if (rows) slice.rows = *rows;
    if (columns) slice.columns = *columns;
    if (slice.rows.size() > 0 && slice.columns.size() > 0) {
      slices.push_back(slice);
    }
  };
  const auto add_whole = [&](TensorRole role, int64_t layer = -1,
                             int64_t expert = -1) {
    add(role, layer, expert, std::nullopt, std::nullopt);
  };
  const auto add_rows = [&](TensorRole role, int64_t layer, IndexRange rows) {
    add(role, layer, -1, rows, std::nullopt);
  };
  const auto add_columns = [&](TensorRole role, int64_t layer,
                               IndexRange columns) {
    add(role, layer, -1, std::nullopt, columns);
  };
  const IndexRange query = Scaled(shard.query_heads, config.head_dim);
  const IndexRange kv = Scaled(shard.kv_heads, config.head_dim);
  add_whole(TensorRole::kEmbedding);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    add_whole(TensorRole::kAttentionNorm, layer);
    add_whole(TensorRole::kAttentionNormBias, layer);
    add_rows(TensorRole::kQuery, layer, query);
    add_rows(TensorRole::kKey, layer, kv);
    add_rows(TensorRole::kValue, layer, kv);
    add_columns(TensorRole::kQueryBias, layer, query);
    add_columns(TensorRole::kKeyBias, layer, kv);
    add_columns(TensorRole::kValueBias, layer, kv);
    add_whole(TensorRole::kQueryNorm, layer);
    add_whole(TensorRole::kKeyNorm, layer);
    add_columns(TensorRole::kOutput, layer, query);
    add_whole(TensorRole::kOutputBias, layer);
    add_whole(TensorRole::kFfnNorm, layer);
    add_whole(TensorRole::kFfnNormBias, layer);
    add_rows(TensorRole::kGate, layer, shard.ffn_columns);
    add_rows(TensorRole::kUp, layer, shard.ffn_columns);
    add_columns(TensorRole::kDown, layer, shard.ffn_columns);
    add_whole(TensorRole::kRouter, layer);
    for (int64_t expert = shard.experts.begin; expert < shard.experts.end;
         ++expert) {
      add_whole(TensorRole::kExpertGate, layer, expert);
      add_whole(TensorRole::kExpertUp, layer, expert);
      add_whole(TensorRole::kExpertDown, layer, expert);
    }
  }
  add_whole(TensorRole::kFinalNorm);
  add_whole(TensorRole::kFinalNormBias);
  add_rows(TensorRole::kLmHead, -1, shard.vocab_rows);
  add_columns(TensorRole::kLmHeadBias, -1, shard.vocab_rows);
  return slices;
}

}  // namespace witan
