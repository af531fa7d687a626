#ifndef WITAN_MODEL_LAYOUT_PLAN_H_
#define WITAN_MODEL_LAYOUT_PLAN_H_

// Which layouts of a model fit on given GPUs, and how many requests each would
// hold. Pure; config.json is all that it takes, so that it can be asked before
// weights are downloaded or GPUs are rented.
//
// What a rank is taken to need, one rank to a GPU:
//   - its slices of the weights, in the checkpoint's dtype (2 bytes an element
//     in bfloat16 and float16), with what every rank repeats (model/shard_plan)
//   - for every request a slot and the KV blocks of a whole context; KV and
//     activations are as wide as the weights, so a position takes 2 * layers *
//     local KV heads * head size * 2 bytes of 16-bit weights. Layers with a
//     window keep the whole context too.
//   - buffers of the decoder and the communicators (model/memory_plan), for
//     steps of max_step_tokens rows
// What kernels and libraries take for themselves on a GPU (its context, code,
// graphs, workspaces, fragmentation) is not counted but reserved: one part in
// kReservedParts of the memory is left alone. What a CPU backend packs and
// scratches is not counted.

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "model/config.h"
#include "model/memory_plan.h"
#include "model/shard_plan.h"

namespace witan {

constexpr int64_t kReservedParts = 10;

// What is planned with of a GPU's memory.
constexpr int64_t UsableBytes(int64_t gpu_memory_bytes) {
  return gpu_memory_bytes - gpu_memory_bytes / kReservedParts;
}

struct LayoutQuestion {
  int64_t num_gpus = 0;          // 1 to kMaxWorkers
  int64_t gpu_memory_bytes = 0;  // of each, 1 to kMaxMemoryBytes
  int64_t context_tokens = 0;    // of each request, 1 to the model's
  int64_t max_step_tokens = 0;   // 1 to kMaxStepTokens
  // Only layouts with these; otherwise 1 to kNumLeaves each.
  std::optional<int> tp;
  std::optional<int> ep;
};

// One layout, and its rank that needs the most.
struct LayoutPlan {
  Layout layout;
  // Copies that the GPUs hold, num_gpus / ranks, at most kMaxReplicas.
  int64_t num_replicas = 0;
  // Requests of context_tokens that one replica can compute at once: all of
  // them have a slot, KV blocks and a row in every step, so at most
  // kMaxStepSequences and max_step_tokens. 0: the layout does not fit.
  int64_t num_requests = 0;
  // KV blocks, the null block included, that fit beside everything else (at
  // most kMaxBlocks); of a layout that does not fit, beside one request's slot.
  int64_t num_blocks = 0;
  // The rank that needs the most for num_requests, or for one where none fit.
  int rank = 0;
  MemoryPlan memory;

  bool fits() const { return num_requests > 0; }
  int64_t total_requests() const { return num_replicas * num_requests; }
  int64_t kv_bytes_per_token() const;  // of that rank
  bool operator==(const LayoutPlan&) const = default;
};

// The layouts with at most num_gpus ranks, by number of ranks, then tp, then
// ep. INVALID_ARGUMENT when tp or ep is not in [1, kNumLeaves], when ep > 1 and
// the model has no experts, and when tp and ep leave no such layout.
// REQUIRES: numbers within the bounds above.
absl::StatusOr<std::vector<LayoutPlan>> PlanLayouts(
    const ModelConfig& config, const LayoutQuestion& question);

// The layout that fits and holds the most requests over all GPUs; of equals
// that with the fewest ranks, then with the fewest bytes per rank, then the
// first. Null when none fits.
const LayoutPlan* BestLayout(const std::vector<LayoutPlan>& plans);

// What would let one request of one layout fit, each alone with the rest of the
// question as it is; tp and ep stay where the question names them.
struct LayoutRemedies {
  int64_t gpu_memory_bytes = 0;  // the least of each GPU
  int64_t num_gpus = 0;          // the fewest; 0: no number would do
  int64_t context_tokens = 0;    // the longest; 0: no length would do
};

// REQUIRES: PlanLayouts of the question is OK.
LayoutRemedies FindRemedies(const ModelConfig& config,
                            const LayoutQuestion& question);

// What num_gpus GPUs at a price per hour each cost while they make a million
// tokens together. REQUIRES: tokens_per_second > 0.
double CostPerMillionTokens(int64_t num_gpus, double gpu_hour_price,
                            double tokens_per_second);

}  // namespace witan

#endif  // WITAN_MODEL_LAYOUT_PLAN_H_
