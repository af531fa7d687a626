#ifndef WITAN_WORKER_ROW_PARALLEL_H_
#define WITAN_WORKER_ROW_PARALLEL_H_

// The row-parallel products of an attention group (the projection of the
// attention's output, the down projection of a dense FFN): partial sums by
// leaf, what adapters add to each leaf, then the subtrees that the rank
// contributes.

#include <absl/status/statusor.h>

#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "model/memory_plan.h"
#include "model/shard_plan.h"
#include "worker/adapter_table.h"

namespace witan {

// Owned and used by the step thread of one rank; one object serves all layers.
class RowParallelProduct {
 public:
  static absl::StatusOr<std::unique_ptr<RowParallelProduct>> Create(
      const ModelConfig& config, const RankShard& shard,
      const EngineLimits& limits, Backend& backend);

  // x A [T, K], w [H, K] with the rank's columns; leaf_columns are those of its
  // attention leaves. partials fp32 [subtrees * T, H], as MatMulLeaves has
  // them. `role` and `layer` say which factors an adapter has for w.
  void Run(ConstTensorView x, ConstTensorView w,
           std::span<const IndexRange> leaf_columns,
           const StepAdapters& adapters, TensorRole role, int64_t layer,
           TensorView partials);

  // The maximal subtrees of the rank's attention leaves.
  std::span<const Subtree> subtrees() const { return subtrees_; }

 private:
  RowParallelProduct(const RankShard& shard, Backend& backend);

  Backend& backend_;
  const std::vector<Subtree> subtrees_;
  std::vector<Subtree> leaves_;  // each by itself
  // fp32 [leaves * T, H]; only where there may be adapters.
  Buffer leaf_sums_;
};

}  // namespace witan

#endif  // WITAN_WORKER_ROW_PARALLEL_H_
