#include "worker/weights.h"

#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "model/families.h"

namespace witan {

Weights::Weights(const ModelConfig& config, const RankShard& shard,
                 const Checkpoint& checkpoint)
    : layers_(config.num_layers) {
  // A rank without heads or vocabulary rows has no such slices; its views keep
  // the full number of columns, so that every shape below stays consistent.
  const int64_t hidden = config.hidden_size;
  for (LayerWeights& layer : layers_) {
    layer.query = layer.key = layer.value =
        ConstTensorView(nullptr, config.weights, 0, hidden);
    layer.output = ConstTensorView(nullptr, config.weights, hidden, 0);
  }
  lm_head_ = ConstTensorView(nullptr, config.weights, 0, hidden);
  for (const TensorSlice& slice : SlicesOfRank(config, shard)) {
    Place(slice, SliceView(config, slice, checkpoint));
  }
}

ConstTensorView Weights::SliceView(const ModelConfig& config,
                                   const TensorSlice& slice,
                                   const Checkpoint& checkpoint) {
  const std::string name =
      TensorName(config, slice.role, slice.layer, slice.expert);
  const MappedTensor* tensor = checkpoint.Find(name);
  WITAN_CHECK(tensor != nullptr, "{} passed the check of the checkpoint", name);
  const int64_t row_stride =
      WholeTensor(config, slice.role, slice.layer, slice.expert).columns.size();
  const size_t element_bytes = SizeOf(tensor->dtype);
  const std::byte* first =
      tensor->data.data() +
      (slice.rows.begin * row_stride + slice.columns.begin) * element_bytes;
  if (reinterpret_cast<uintptr_t>(first) % element_bytes == 0) {
    return ConstTensorView(first, tensor->dtype, slice.rows.size(),
                           slice.columns.size(), row_stride);
  }
  const size_t row_bytes = slice.columns.size() * element_bytes;
  auto copy = std::make_unique<std::byte[]>(slice.rows.size() * row_bytes);
  for (int64_t row = 0; row < slice.rows.size(); ++row) {
    std::memcpy(copy.get() + row * row_bytes,
                first + row * row_stride * element_bytes, row_bytes);
  }
  ConstTensorView view(copy.get(), tensor->dtype, slice.rows.size(),
                       slice.columns.size());
  aligned_copies_.push_back(std::move(copy));
  return view;
}

void Weights::Place(const TensorSlice& slice, ConstTensorView view) {
  LayerWeights* layer = slice.layer >= 0 ? &layers_[slice.layer] : nullptr;
  switch (slice.role) {
    case TensorRole::kEmbedding:
      embedding_ = view;
      return;
    case TensorRole::kFinalNorm:
      final_norm_ = view;
      return;
    case TensorRole::kLmHead:
      lm_head_ = view;
      return;
    case TensorRole::kAttentionNorm:
      layer->attention_norm = view;
      return;
    case TensorRole::kQuery:
      layer->query = view;
      return;
    case TensorRole::kKey:
      layer->key = view;
      return;
    case TensorRole::kValue:
      layer->value = view;
      return;
    case TensorRole::kOutput:
      layer->output = view;
      return;
    case TensorRole::kExpertNorm:
      layer->expert_norm = view;
      return;
    case TensorRole::kRouter:
      layer->router = view;
      return;
    case TensorRole::kExpertGate:
      layer->expert_gate.push_back(view);
      return;
    case TensorRole::kExpertUp:
      layer->expert_up.push_back(view);
      return;
    case TensorRole::kExpertDown:
      layer->expert_down.push_back(view);
      return;
  }
}

}  // namespace witan
