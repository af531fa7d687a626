#include "worker/row_parallel.h"

#include "base/status.h"

namespace witan {
namespace {

ConstTensorView Columns(ConstTensorView view, IndexRange columns) {
  return ConstTensorView(
      static_cast<const char*>(view.data) +
          columns.begin * static_cast<int64_t>(SizeOf(view.dtype)),
      view.dtype, view.rows, columns.size(), view.row_stride);
}

}  // namespace

RowParallelProduct::RowParallelProduct(const RankShard& shard, Backend& backend)
    : backend_(backend), subtrees_(MaximalSubtrees(shard.attention_leaves)) {
  for (int64_t leaf = shard.attention_leaves.begin;
       leaf < shard.attention_leaves.end; ++leaf) {
    leaves_.push_back({static_cast<int>(leaf), 1});
  }
}

absl::StatusOr<std::unique_ptr<RowParallelProduct>> RowParallelProduct::Create(
    const ModelConfig& config, const RankShard& shard,
    const EngineLimits& limits, Backend& backend) {
  std::unique_ptr<RowParallelProduct> product(
      new RowParallelProduct(shard, backend));
  if (limits.max_adapters > 0) {
    ASSIGN_OR_RETURN(
        product->leaf_sums_,
        backend.Allocate(
            product->leaves_.size() *
            static_cast<size_t>(limits.max_step_tokens * config.hidden_size) *
            sizeof(float)));
  }
  return product;
}

void RowParallelProduct::Run(ConstTensorView x, ConstTensorView w,
                             std::span<const IndexRange> leaf_columns,
                             const StepAdapters& adapters, TensorRole role,
                             int64_t layer, TensorView partials) {
  const std::span<const LoraFactors> factors =
      adapters.any() ? adapters.table->Of(role, layer)
                     : std::span<const LoraFactors>();
  if (factors.empty()) {
    backend_.MatMulLeaves(x, w, leaf_columns, subtrees_, partials);
    return;
  }
  const auto num_leaves = static_cast<int64_t>(leaves_.size());
  const TensorView sums =
      leaf_sums_.View(DType::kF32, num_leaves * x.rows, w.rows);
  backend_.MatMulLeaves(x, w, leaf_columns, leaves_, sums);
  std::vector<LoraFactors> of_leaf(factors.size());
  for (int64_t leaf = 0; leaf < num_leaves; ++leaf) {
    const IndexRange columns = leaf_columns[static_cast<size_t>(leaf)];
    if (columns.size() == 0) continue;
    for (size_t i = 0; i < factors.size(); ++i) {
      of_leaf[i] = factors[i];
      if (!factors[i].a.empty()) {
        of_leaf[i].a = Columns(factors[i].a, columns);
      }
    }
    backend_.AddLora(Columns(x, columns), adapters.adapter_of_row, of_leaf,
                     sums.Rows(leaf * x.rows, (leaf + 1) * x.rows));
  }
  backend_.JoinLeaves(sums, subtrees_, partials);
}

}  // namespace witan
