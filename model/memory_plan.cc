#include "model/memory_plan.h"

#include <algorithm>

#include "base/check.h"
#include "base/cpu_memory.h"
#include "base/leaves.h"
#include "base/limits.h"
#include "base/status.h"
#include "model/adapter.h"

namespace witan {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);
constexpr int64_t kIndexBytes = sizeof(int32_t);

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Buffers that worker/decoder and worker/moe allocate once for the largest
// step. T = max_step_tokens, S = max_sequences, R = T * top-k rows of experts,
// n and k local query and KV heads, A the activations' dtype.
int64_t WorkspaceBytes(const ModelConfig& config, Layout layout,
                       const RankShard& shard, const EngineLimits& limits,
                       DType activations) {
  const auto activation = static_cast<int64_t>(SizeOf(activations));
  const int64_t rows = limits.max_step_tokens;
  const int64_t samples = limits.max_sequences;
  const int64_t hidden = config.hidden_size;
  const int64_t query = shard.query_heads.size() * config.head_dim;
  const int64_t key = shard.kv_heads.size() * config.head_dim;
  const int64_t choices = rows * config.experts_per_token;
  int64_t bytes = 0;

  // Residual fp32, normed input and summed output A: [T, H] each.
  bytes += rows * hidden * (kFloatBytes + 2 * activation);
  // Query fp32 and, after rope, A; attention output A: [T, n*D] each.
  bytes += rows * query * (kFloatBytes + 2 * activation);
  // Key and value fp32: [T, k*D] each.
  bytes += rows * key * 2 * kFloatBytes;
  // Dense FFN: gate and up fp32, their product A: [T, f] each.
  bytes += rows * shard.ffn_columns.size() * (2 * kFloatBytes + activation);
  // Router logits fp32 [T, E].
  bytes += rows * config.num_experts * kFloatBytes;
  // Of every choice: expert id, weight, source row, slot: [R] each; and where
  // each local expert's rows begin.
  bytes += choices * (3 * kIndexBytes + kFloatBytes);
  if (config.has_experts()) bytes += (shard.experts.size() + 1) * kIndexBytes;
  // Gate and up fp32, their product A: [R, F] each; expert output A [R, H].
  bytes += choices * config.intermediate_size * (2 * kFloatBytes + activation) +
           choices * hidden * activation;
  if (limits.max_adapters > 0) {
    // Every leaf's sum of the attention group fp32 [T, H], and the experts'
    // output before it is rounded, fp32 [R, H].
    bytes +=
        (shard.attention_leaves.size() * rows + choices) * hidden * kFloatBytes;
  }
  // The sampled rows' residual fp32, last output and final norm A: [S, H] each.
  bytes += samples * hidden * (kFloatBytes + 2 * activation);
  // The rank that samples joins the vocabulary slices: logits fp32 [S, V].
  if (shard.rank == 0 && layout.tp > 1) {
    bytes += samples * config.vocab_size * kFloatBytes;
  }
  // Rope table fp32 [rows, rotary dimensions].
  bytes += NumRopeRows(config, limits.max_context_tokens) *
           config.rope.rotary_dim * kFloatBytes;
  // Block tables of all slots, and a copy of them for the step.
  bytes += 2 * samples * CeilDiv(limits.max_context_tokens, kBlockTokens) *
           kIndexBytes;
  return bytes;
}

// One group's communicator: two send buffers, because that of the last
// operation stays readable while the next is filled, and, for a transport
// without shared memory, room for what every member sends.
int64_t GroupBytes(int group_size, int64_t send_bytes) {
  return (2 + group_size) * send_bytes;
}

// A member contributes to a tree sum one fp32 [T, H] for each maximal subtree
// of its leaves.
int64_t TreeSumBytes(const ModelConfig& config, const EngineLimits& limits,
                     IndexRange leaves) {
  return static_cast<int64_t>(MaximalSubtrees(leaves).size()) *
         limits.max_step_tokens * config.hidden_size * kFloatBytes;
}

int64_t CommunicationBytes(const ModelConfig& config, Layout layout,
                           const EngineLimits& limits) {
  // Send buffers are as large as the largest contribution of any member.
  int64_t attention_bytes = 0;
  int64_t expert_bytes = 0;
  for (int rank = 0; rank < layout.num_ranks(); ++rank) {
    const RankShard shard = MakeRankShard(config, layout, rank);
    // The attention group also gathers logits, fp32 [S, local rows].
    attention_bytes = std::max(
        {attention_bytes, TreeSumBytes(config, limits, shard.attention_leaves),
         limits.max_sequences * shard.vocab_rows.size() * kFloatBytes});
    if (!config.has_experts()) continue;
    expert_bytes = std::max(expert_bytes,
                            TreeSumBytes(config, limits, shard.expert_leaves));
  }
  // The world broadcasts sampled tokens, int32 [S].
  return GroupBytes(layout.tp, attention_bytes) +
         GroupBytes(layout.ep, expert_bytes) +
         GroupBytes(layout.num_ranks(), limits.max_sequences * kIndexBytes);
}

}  // namespace

int64_t WeightsBytes(const ModelConfig& config, const RankShard& shard) {
  int64_t num_elements = 0;
  for (const TensorSlice& slice : SlicesOfRank(config, shard)) {
    // Rows of the embedding table, which is there already.
    if (slice.role == TensorRole::kLmHead && config.tie_word_embeddings) {
      continue;
    }
    num_elements += slice.rows.size() * slice.columns.size();
  }
  return num_elements * static_cast<int64_t>(SizeOf(config.weights));
}

int64_t LongRopeFirstRow(const ModelConfig& config,
                         int64_t max_context_tokens) {
  const int64_t original = config.rope.original_context_tokens;
  return config.rope.has_long_variant() && max_context_tokens > original
             ? original
             : 0;
}

int64_t NumRopeRows(const ModelConfig& config, int64_t max_context_tokens) {
  return LongRopeFirstRow(config, max_context_tokens) + max_context_tokens;
}

// What adapters make of it: their products, and rows packed once more for each
// of them.
static int64_t CpuAdapterBytes(const ModelConfig& config,
                               const RankShard& shard,
                               const EngineLimits& limits) {
  const int64_t rows = limits.max_step_tokens;
  const int64_t rank = limits.max_adapter_rank;
  const int64_t num_experts = shard.experts.size();
  const int64_t expert_rows =
      rows * std::min(config.experts_per_token, num_experts);
  const int64_t widest = std::max({shard.query_heads.size() * config.head_dim,
                                   shard.ffn_columns.size(), config.hidden_size,
                                   config.num_experts});
  const int64_t widest_expert =
      std::max(config.intermediate_size, config.hidden_size);
  const int64_t product_bytes =
      std::max(rows * (widest + rank), expert_rows * (widest_expert + rank)) *
      kFloatBytes;
  const int64_t columns =
      PackedColumns(std::max({widest, widest_expert, rank}));
  return product_bytes +
         std::max(PackedBytes(rows, limits.max_adapters, columns),
                  PackedBytes(expert_rows, num_experts * limits.max_adapters,
                              columns));
}

int64_t CpuWorkspaceBytes(const ModelConfig& config, const RankShard& shard,
                          const EngineLimits& limits, int num_threads) {
  const int64_t rows = limits.max_step_tokens;
  const int64_t hidden = PackedColumns(config.hidden_size);
  // Query, key, value, router, and gate and up of a dense FFN; the output
  // projection and the dense FFN's down, leaf by leaf; the logits; gate, up and
  // down of the rank's experts, of which a row may have chosen no more than
  // top-k.
  int64_t attention = 0;
  for (const IndexRange& leaf : shard.AttentionLeafColumns(config)) {
    attention += PackedColumns(leaf.size());
  }
  int64_t ffn = 0;
  for (const IndexRange& leaf : shard.FfnLeafColumns(config)) {
    ffn += PackedColumns(leaf.size());
  }
  const int64_t num_experts = shard.experts.size();
  const int64_t expert_rows =
      rows * std::min(config.experts_per_token, num_experts);
  const int64_t packed_bytes = std::max(
      {PackedBytes(rows, 1, hidden),
       PackedBytes(rows, 1, std::max(attention, ffn)),
       PackedBytes(limits.max_sequences, 1, hidden),
       PackedBytes(expert_rows, num_experts,
                   std::max(hidden, PackedColumns(config.intermediate_size)))});
  const int64_t adapters_bytes =
      limits.max_adapters > 0 ? CpuAdapterBytes(config, shard, limits) : 0;
  const int64_t sampler_bytes =
      shard.rank == 0 ? SamplerBytes(config.vocab_size) : 0;
  return packed_bytes + adapters_bytes +
         num_threads * (kThreadScratchBytes + sampler_bytes);
}

MemoryPlan MakeEnginePlan(const ModelConfig& config, Layout layout,
                          const RankShard& shard, const EngineLimits& limits,
                          DType activations) {
  constexpr int64_t kKeyAndValue = 2;
  MemoryPlan plan;
  plan.kv_bytes_per_block = config.num_layers * kKeyAndValue *
                            shard.kv_heads.size() * config.head_dim *
                            kBlockTokens *
                            static_cast<int64_t>(SizeOf(activations));
  plan.kv_bytes = limits.num_blocks * plan.kv_bytes_per_block;
  plan.workspace_bytes =
      WorkspaceBytes(config, layout, shard, limits, activations);
  plan.communication_bytes = CommunicationBytes(config, layout, limits);
  return plan;
}

MemoryPlan MakeMemoryPlan(const ModelConfig& config, Layout layout, int rank,
                          const EngineLimits& limits, int num_threads) {
  const RankShard shard = MakeRankShard(config, layout, rank);
  const DType activations = ActivationDType(config.weights);
  MemoryPlan plan = MakeEnginePlan(config, layout, shard, limits, activations);
  plan.weights_bytes = WeightsBytes(config, shard);
  plan.adapters_bytes = limits.max_adapters *
                        AdapterBytes(config, shard, limits.max_adapter_rank);
  plan.kv_bytes_per_block =
      config.num_layers *
      CpuKvBytes(1, shard.kv_heads.size(), config.head_dim, activations);
  plan.kv_bytes = limits.num_blocks * plan.kv_bytes_per_block;
  plan.workspace_bytes += CpuWorkspaceBytes(config, shard, limits, num_threads);
  return plan;
}

absl::StatusOr<int64_t> PlanNumBlocks(
    const ModelConfig& config, Layout layout, const EngineLimits& limits,
    const std::vector<int64_t>& memory_bytes_of_rank,
    const std::vector<int32_t>& num_threads_of_rank) {
  const size_t num_ranks = static_cast<size_t>(layout.num_ranks());
  WITAN_CHECK(memory_bytes_of_rank.size() == num_ranks &&
                  num_threads_of_rank.size() == num_ranks,
              "memory of {} and threads of {} ranks for {}",
              memory_bytes_of_rank.size(), num_threads_of_rank.size(),
              num_ranks);
  constexpr int64_t kNullBlocks = 1;
  const int64_t blocks_per_sequence =
      CeilDiv(limits.max_context_tokens, kBlockTokens);
  const int64_t min_blocks = kNullBlocks + blocks_per_sequence;
  int64_t num_blocks = std::min<int64_t>(
      kNullBlocks + limits.max_sequences * blocks_per_sequence, kMaxBlocks);
  EngineLimits needed_limits = limits;
  needed_limits.num_blocks = min_blocks;
  for (int rank = 0; rank < layout.num_ranks(); ++rank) {
    const int64_t memory = memory_bytes_of_rank[static_cast<size_t>(rank)];
    const MemoryPlan needed =
        MakeMemoryPlan(config, layout, rank, needed_limits,
                       num_threads_of_rank[static_cast<size_t>(rank)]);
    if (needed.total_bytes() > memory) {
      return ResourceExhausted(
          "rank {} of tp={} ep={} needs {} bytes for one sequence of {} tokens "
          "(weights {}, adapters {}, KV cache {}, workspace {}, communication "
          "{}) and has {}; use more ranks, or lower max_context_tokens, "
          "max_step_tokens, max_adapters or max_adapter_rank",
          rank, layout.tp, layout.ep, needed.total_bytes(),
          limits.max_context_tokens, needed.weights_bytes,
          needed.adapters_bytes, needed.kv_bytes, needed.workspace_bytes,
          needed.communication_bytes, memory);
    }
    // A rank without query heads keeps no KV and sets no bound.
    if (needed.kv_bytes_per_block > 0) {
      const int64_t spare = memory - needed.total_bytes();
      num_blocks =
          std::min(num_blocks, min_blocks + spare / needed.kv_bytes_per_block);
    }
  }
  return num_blocks;
}

}  // namespace witan
