#ifndef WITAN_KERNELS_OPERANDS_H_
#define WITAN_KERNELS_OPERANDS_H_

// What the ops of a backend (kernels/backend.h) work on, besides tensors.

#include <cstdint>
#include <span>

#include "base/leaves.h"
#include "base/request.h"
#include "kernels/tensor.h"

namespace witan {

// Sequences of a step, as PagedAttention and RopeWriteKv see them. All spans
// are int32 device memory. S sequences; row r of sequence s is at position
// first_positions[s] + (r - row_begin[s]).
struct AttentionBatch {
  std::span<const int32_t> row_begin;        // [S+1]
  std::span<const int32_t> first_positions;  // [S]
  // Block table of sequence s: block_ids[s * block_table_stride + p / 32] holds
  // position p (kBlockTokens = 32); covers its last row.
  std::span<const int32_t> block_ids;
  int64_t block_table_stride = 0;
  // [S] row of the rope table that position 0 of the sequence has; empty: 0.
  std::span<const int32_t> rope_first_rows;
  int num_sequences() const { return static_cast<int>(first_positions.size()); }
};

// K and V of one layer. Layout is the backend's own: the memory is opaque to
// the rest, KvBytes() says how much to allocate. Zeroed at allocation.
struct KvLayer {
  void* data = nullptr;
  int64_t num_blocks = 0;
  int64_t num_kv_heads = 0;  // local
  int64_t head_dim = 0;
  DType dtype = DType::kBF16;
};

// One rank's contribution to a sum over leaves: fp32, `subtree` of the tree.
struct Partial {
  const float* data = nullptr;
  Subtree subtree;
};

// Rows grouped by expert, made by GroupByExpert for the experts [first_expert,
// first_expert + num_experts) of a rank. Memory is the caller's. R = T * top_k
// is the capacity; offsets[num_experts] says how many rows are in use.
struct ExpertRows {
  int64_t first_expert = 0;
  int64_t num_experts = 0;
  // [num_experts + 1]: rows of local expert e are [offsets[e], offsets[e+1]).
  int32_t* offsets = nullptr;
  // [R] source row in [0, T), ascending within one expert.
  int32_t* source_rows = nullptr;
  // [T * top_k]: for (row, j), the grouped row that holds the j-th chosen
  // expert of that row, or -1 when this rank does not own it.
  int32_t* slot_of_choice = nullptr;
};

// What a layer's input is normalised with.
struct Norm {
  ConstTensorView weight;  // [1, H] of weight dtype
  // Empty: x * rsqrt(mean(x^2) + epsilon) * weight (arXiv 1910.07467); else
  // [1, H] of weight dtype: (x - mean(x)) * rsqrt(mean((x - mean(x))^2) +
  // epsilon) * weight + bias (arXiv 1607.06450).
  ConstTensorView bias;
  float epsilon = 0;
};

// One row to sample. Pointers are device memory.
struct SampleRow {
  const SamplingParams* params = nullptr;
  int32_t choice = 0;
  // Absolute position, prompt included, of the token that will be drawn.
  int64_t position = 0;
  // Distinct tokens of prompt and output, ascending ids, with the number of
  // times each occurs in the output; empty when no penalty is in use.
  std::span<const TokenId> seen_ids;
  std::span<const int32_t> output_counts;
};

}  // namespace witan

#endif  // WITAN_KERNELS_OPERANDS_H_
