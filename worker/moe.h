#ifndef WITAN_WORKER_MOE_H_
#define WITAN_WORKER_MOE_H_

// The expert layer: router -> group rows by expert -> gate, up, down of the
// rank's own experts -> weighted sum by leaf -> tree sum over the expert group.
// Rows are replicated over the group, so no token travels: each rank runs its
// own experts on all rows, and the tree sum combines. Dropless.

#include <absl/status/statusor.h>

#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "model/memory_plan.h"
#include "model/shard_plan.h"
#include "worker/adapter_table.h"
#include "worker/comm/communicator.h"
#include "worker/tree_sum.h"
#include "worker/weights.h"

namespace witan {

// Owned and used by the step thread of one rank; one object serves all layers.
class ExpertLayer {
 public:
  // Bytes that the send buffer of the expert group's communicator needs; 0 for
  // a model without experts.
  static size_t SendBytes(const ModelConfig& config, Layout layout,
                          const EngineLimits& limits);

  // Everything passed by reference outlives the layer.
  static absl::StatusOr<std::unique_ptr<ExpertLayer>> Create(
      const ModelConfig& config, const RankShard& shard,
      const EngineLimits& limits, Backend& backend, Communicator& comm,
      int64_t one_shot_max_bytes);

  // x A [T, H] -> out A [T, H], T <= max_step_tokens. The error is the
  // communicator's.
  absl::Status Forward(const LayerWeights& layer, int64_t layer_index,
                       const StepAdapters& adapters, ConstTensorView x,
                       TensorView out);

  const SumCounts& sum_counts() const { return sum_.counts(); }

 private:
  ExpertLayer(const ModelConfig& config, const RankShard& shard,
              Backend& backend, Communicator& comm, int64_t one_shot_max_bytes);

  absl::Status AllocateWorkspace(const EngineLimits& limits);
  // y of grouped rows, and what adapters add to it.
  void GroupedProduct(ConstTensorView x, bool gather, const ExpertRows& rows,
                      std::span<const ConstTensorView> w,
                      const StepAdapters& adapters, TensorRole role,
                      int64_t layer_index, TensorView y);

  const ModelConfig& config_;
  const RankShard& shard_;
  Backend& backend_;
  const std::vector<Subtree> subtrees_;
  TreeAllReduce sum_;

  // Workspace; T = max_step_tokens, R = T * experts_per_token, e local experts.
  Buffer router_logits_;   // fp32 [T, E]
  Buffer expert_ids_;      // int32 [T, experts_per_token]
  Buffer expert_weights_;  // fp32 [T, experts_per_token]
  Buffer offsets_;         // int32 [e + 1]
  Buffer source_rows_;     // int32 [R]
  Buffer slot_of_choice_;  // int32 [R]
  Buffer gate_;            // fp32 [R, F]
  Buffer up_;              // fp32 [R, F]
  Buffer activated_;       // A [R, F]
  Buffer expert_output_;   // A [R, H]
  Buffer exact_output_;    // fp32 [R, H]; only where there may be adapters
};

}  // namespace witan

#endif  // WITAN_WORKER_MOE_H_
