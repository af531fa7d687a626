#ifndef WITAN_WORKER_DENSE_H_
#define WITAN_WORKER_DENSE_H_

// The dense FFN of a layer, split over the attention group: gate and up of the
// rank's own columns of F, then the row-parallel down projection by leaf and
// the tree sum.

#include <absl/status/statusor.h>

#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "model/memory_plan.h"
#include "model/shard_plan.h"
#include "worker/adapter_table.h"
#include "worker/row_parallel.h"
#include "worker/tree_sum.h"
#include "worker/weights.h"

namespace witan {

// Owned and used by the step thread of one rank; one object serves all layers.
class DenseLayer {
 public:
  // Everything passed by reference outlives the layer. `sum` and `product` are
  // those of the rank's attention leaves.
  static absl::StatusOr<std::unique_ptr<DenseLayer>> Create(
      const ModelConfig& config, const RankShard& shard,
      const EngineLimits& limits, Backend& backend, RowParallelProduct& product,
      TreeAllReduce& sum);

  // x A [T, H] -> out A [T, H], T <= max_step_tokens. The error is the
  // communicator's.
  absl::Status Forward(const LayerWeights& layer, int64_t layer_index,
                       const StepAdapters& adapters, ConstTensorView x,
                       TensorView out);

 private:
  DenseLayer(const ModelConfig& config, const RankShard& shard,
             Backend& backend, RowParallelProduct& product, TreeAllReduce& sum);

  Backend& backend_;
  RowParallelProduct& product_;
  TreeAllReduce& sum_;
  const std::vector<IndexRange> leaf_columns_;

  // Workspace; T = max_step_tokens, f = local columns of F.
  Buffer gate_;       // fp32 [T, f]
  Buffer up_;         // fp32 [T, f]
  Buffer activated_;  // A [T, f]
};

}  // namespace witan

#endif  // WITAN_WORKER_DENSE_H_
