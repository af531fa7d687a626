#include "worker/weights.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/check.h"
#include "base/parallel.h"
#include "model/families.h"

namespace witan {

Weights::Weights(const ModelConfig& config, const RankShard& shard,
                 const Checkpoint& checkpoint, int num_threads)
    : layers_(config.num_layers) {
  // A rank without heads, FFN columns or vocabulary rows has no such slices;
  // its views keep the full number of columns, so that every shape below stays
  // consistent.
  const int64_t hidden = config.hidden_size;
  const ConstTensorView no_rows(nullptr, config.weights, 0, hidden);
  const ConstTensorView no_columns(nullptr, config.weights, hidden, 0);
  const ConstTensorView no_bias(nullptr, config.weights, 1, 0);
  for (LayerWeights& layer : layers_) {
    layer.query = layer.key = layer.value = layer.gate = layer.up = no_rows;
    layer.output = layer.down = no_columns;
    layer.query_bias = layer.key_bias = layer.value_bias = no_bias;
  }
  lm_head_ = no_rows;
  lm_head_bias_ = no_bias;
  std::vector<Copy> copies;
  for (const TensorSlice& slice : SlicesOfRank(config, shard)) {
    Place(slice, SliceView(config, slice, checkpoint, copies));
  }
  ForEachOnThreads(copies.size(), num_threads, [&copies](size_t i) {
    const Copy& copy = copies[i];
    ReadElements(*copy.tensor, copy.rows, copy.columns, copy.to);
  });
}

ConstTensorView Weights::SliceView(const ModelConfig& config,
                                   const TensorSlice& slice,
                                   const Checkpoint& checkpoint,
                                   std::vector<Copy>& copies) {
  // Every rank has the whole embedding.
  if (slice.role == TensorRole::kLmHead && config.tie_word_embeddings) {
    return embedding_.Rows(slice.rows.begin, slice.rows.end);
  }
  const TensorPlace place =
      PlaceOf(config, slice.role, slice.layer, slice.expert);
  const MappedTensor* tensor = checkpoint.Find(place.name);
  WITAN_CHECK(tensor != nullptr, "{} passed the check of the checkpoint",
              place.name);
  const size_t element_bytes = SizeOf(tensor->dtype);
  const IndexRange rows = {place.first_row + slice.rows.begin,
                           place.first_row + slice.rows.end};
  const int64_t row_stride = tensor->row_elements();
  const std::byte* first =
      tensor->data.data() +
      (rows.begin * row_stride + slice.columns.begin) * element_bytes;
  if (!tensor->conversion &&
      reinterpret_cast<uintptr_t>(first) % element_bytes == 0) {
    return ConstTensorView(first, tensor->dtype, rows.size(),
                           slice.columns.size(), row_stride);
  }
  const size_t row_bytes =
      static_cast<size_t>(slice.columns.size()) * element_bytes;
  auto copy = std::make_unique_for_overwrite<std::byte[]>(
      static_cast<size_t>(rows.size()) * row_bytes);
  // So many that the last ones do not keep one thread long.
  constexpr int64_t kCopyBytes = 4 << 20;
  const int64_t rows_at_once =
      std::max<int64_t>(1, kCopyBytes / static_cast<int64_t>(row_bytes));
  for (int64_t row = rows.begin; row < rows.end; row += rows_at_once) {
    copies.push_back({tensor,
                      {row, std::min(row + rows_at_once, rows.end)},
                      slice.columns,
                      copy.get() + (row - rows.begin) * row_bytes});
  }
  ConstTensorView view(copy.get(), tensor->dtype, rows.size(),
                       slice.columns.size());
  copies_.push_back(std::move(copy));
  return view;
}

void Weights::Place(const TensorSlice& slice, ConstTensorView view) {
  switch (slice.role) {
    case TensorRole::kExpertGate:
      layers_[slice.layer].expert_gate.push_back(view);
      return;
    case TensorRole::kExpertUp:
      layers_[slice.layer].expert_up.push_back(view);
      return;
    case TensorRole::kExpertDown:
      layers_[slice.layer].expert_down.push_back(view);
      return;
    default:
      ViewOf(slice.role, slice.layer) = view;
  }
}

ConstTensorView& Weights::ViewOf(TensorRole role, int64_t index) {
  LayerWeights* const layer = index >= 0 ? &layers_[index] : nullptr;
  switch (role) {
    case TensorRole::kEmbedding:
      return embedding_;
    case TensorRole::kAttentionNorm:
      return layer->attention_norm.weight;
    case TensorRole::kAttentionNormBias:
      return layer->attention_norm.bias;
    case TensorRole::kQuery:
      return layer->query;
    case TensorRole::kKey:
      return layer->key;
    case TensorRole::kValue:
      return layer->value;
    case TensorRole::kQueryBias:
      return layer->query_bias;
    case TensorRole::kKeyBias:
      return layer->key_bias;
    case TensorRole::kValueBias:
      return layer->value_bias;
    case TensorRole::kQueryNorm:
      return layer->query_norm;
    case TensorRole::kKeyNorm:
      return layer->key_norm;
    case TensorRole::kOutput:
      return layer->output;
    case TensorRole::kOutputBias:
      return layer->output_bias;
    case TensorRole::kFfnNorm:
      return layer->ffn_norm.weight;
    case TensorRole::kFfnNormBias:
      return layer->ffn_norm.bias;
    case TensorRole::kGate:
      return layer->gate;
    case TensorRole::kUp:
      return layer->up;
    case TensorRole::kDown:
      return layer->down;
    case TensorRole::kRouter:
      return layer->router;
    case TensorRole::kFinalNorm:
      return final_norm_.weight;
    case TensorRole::kFinalNormBias:
      return final_norm_.bias;
    case TensorRole::kLmHead:
      return lm_head_;
    case TensorRole::kLmHeadBias:
      return lm_head_bias_;
    case TensorRole::kExpertGate:
    case TensorRole::kExpertUp:
    case TensorRole::kExpertDown:
      break;
  }
  WITAN_CHECK(false, "role {} has no view of its own", static_cast<int>(role));
}

}  // namespace witan
