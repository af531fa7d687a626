#include "worker/dense.h"

#include <utility>

#include "base/status.h"

namespace witan {

DenseLayer::DenseLayer(const ModelConfig& config, const RankShard& shard,
                       Backend& backend, RowParallelProduct& product,
                       TreeAllReduce& sum)
    : backend_(backend),
      product_(product),
      sum_(sum),
      leaf_columns_(shard.FfnLeafColumns(config)) {}

absl::StatusOr<std::unique_ptr<DenseLayer>> DenseLayer::Create(
    const ModelConfig& config, const RankShard& shard,
    const EngineLimits& limits, Backend& backend, RowParallelProduct& product,
    TreeAllReduce& sum) {
  std::unique_ptr<DenseLayer> layer(
      new DenseLayer(config, shard, backend, product, sum));
  const size_t elements = limits.max_step_tokens * shard.ffn_columns.size();
  const size_t activation_bytes = SizeOf(ActivationDType(config.weights));
  const std::pair<Buffer*, size_t> buffers[] = {
      {&layer->gate_, elements * sizeof(float)},
      {&layer->up_, elements * sizeof(float)},
      {&layer->activated_, elements * activation_bytes},
  };
  for (const auto& [buffer, bytes] : buffers) {
    ASSIGN_OR_RETURN(*buffer, backend.Allocate(bytes));
  }
  return layer;
}

absl::Status DenseLayer::Forward(const LayerWeights& layer, int64_t layer_index,
                                 const StepAdapters& adapters,
                                 ConstTensorView x, TensorView out) {
  const int64_t columns = layer.gate.rows;
  const TensorView gate = gate_.View(DType::kF32, x.rows, columns);
  const TensorView up = up_.View(DType::kF32, x.rows, columns);
  const TensorView activated = activated_.View(x.dtype, x.rows, columns);
  backend_.MatMul(x, layer.gate, gate);
  backend_.MatMul(x, layer.up, up);
  if (adapters.any()) {
    backend_.AddLora(x, adapters.adapter_of_row,
                     adapters.table->Of(TensorRole::kGate, layer_index), gate);
    backend_.AddLora(x, adapters.adapter_of_row,
                     adapters.table->Of(TensorRole::kUp, layer_index), up);
  }
  backend_.SiluMul(gate, up, nullptr, activated);
  product_.Run(activated, layer.down, leaf_columns_, adapters,
               TensorRole::kDown, layer_index,
               sum_.PartialsBuffer(x.rows, out.columns));
  return sum_.Reduce(x.rows, out.columns, out);
}

}  // namespace witan
