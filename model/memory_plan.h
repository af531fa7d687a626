#ifndef WITAN_MODEL_MEMORY_PLAN_H_
#define WITAN_MODEL_MEMORY_PLAN_H_

// Bytes that one rank needs, known before anything is allocated. Pure.

#include <absl/status/statusor.h>

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/shard_plan.h"

namespace witan {

// What the operator allows (the engine's limits of one replica).
struct EngineLimits {
  int64_t max_context_tokens = 0;  // of one sequence, <= the model's
  int64_t max_step_tokens = 0;     // rows of one step (token budget)
  int64_t max_sequences = 0;       // running at once (slots)
  int64_t num_blocks = 0;          // KV blocks, the null block included
  int64_t max_adapters = 0;        // LoRA adapters held at once
  int64_t max_adapter_rank = 0;    // of each of them
  bool operator==(const EngineLimits&) const = default;
};

struct MemoryPlan {
  int64_t weights_bytes = 0;        // mapped from the file, this rank's slices
  int64_t adapters_bytes = 0;       // of max_adapters of max_adapter_rank
  int64_t kv_bytes_per_block = 0;   // all layers, K and V, local KV heads
  int64_t kv_bytes = 0;             // num_blocks of them
  int64_t workspace_bytes = 0;      // activations of one step, and CPU's own
  int64_t communication_bytes = 0;  // send and receive buffers
  int64_t total_bytes() const {
    return weights_bytes + adapters_bytes + kv_bytes + workspace_bytes +
           communication_bytes;
  }
  bool operator==(const MemoryPlan&) const = default;
};

// The rope table has a row for every position. Where sequences beyond the
// original context have angles of their own, their rows come after those of the
// shorter ones, from LongRopeFirstRow on (0: there are none).
int64_t LongRopeFirstRow(const ModelConfig& config, int64_t max_context_tokens);
int64_t NumRopeRows(const ModelConfig& config, int64_t max_context_tokens);

// The slices that the rank holds; a tied output table lies in the embedding.
int64_t WeightsBytes(const ModelConfig& config, const RankShard& shard);

// What a rank allocates on any device, whatever its kernels take for
// themselves: all but the weights, which are 0. `activations` is the dtype of
// activations and KV cache, none of which is padded.
// REQUIRES: as MakeMemoryPlan, shard of that layout.
MemoryPlan MakeEnginePlan(const ModelConfig& config, Layout layout,
                          const RankShard& shard, const EngineLimits& limits,
                          DType activations);

// What a CPU backend of num_threads threads keeps for itself at most, on top of
// the buffers that the worker asks it for.
int64_t CpuWorkspaceBytes(const ModelConfig& config, const RankShard& shard,
                          const EngineLimits& limits, int num_threads);

// Of a rank on CPUs: MakeEnginePlan, weights, and what its backend takes.
// REQUIRES: a valid layout and rank, limits and threads within base/limits.h.
MemoryPlan MakeMemoryPlan(const ModelConfig& config, Layout layout, int rank,
                          const EngineLimits& limits, int num_threads);

// Number of KV blocks (null block included) such that every rank's plan fits
// in memory_bytes_of_rank; at most what max_sequences sequences of
// max_context_tokens can use. RESOURCE_EXHAUSTED names the rank, what it needs
// and what it has when not even one sequence of max_context_tokens fits.
// limits.num_blocks is ignored.
// REQUIRES: as above, one entry per rank of memory and threads.
absl::StatusOr<int64_t> PlanNumBlocks(
    const ModelConfig& config, Layout layout, const EngineLimits& limits,
    const std::vector<int64_t>& memory_bytes_of_rank,
    const std::vector<int32_t>& num_threads_of_rank);

}  // namespace witan

#endif  // WITAN_MODEL_MEMORY_PLAN_H_
