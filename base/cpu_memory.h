#ifndef WITAN_BASE_CPU_MEMORY_H_
#define WITAN_BASE_CPU_MEMORY_H_

// Bytes that the CPU backend takes for itself. Here, and not in kernels/,
// because whoever plans the memory of a rank must count them without linking
// the kernels; the kernels are compiled against the same numbers.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "base/limits.h"

namespace witan {

// Elements of D that V takes in the cache.
constexpr int64_t PaddedHeadDim(int64_t head_dim) {
  return (head_dim + 15) / 16 * 16;
}
// Elements that K, and K and V, of one block and one KV head take in the cache.
constexpr int64_t KBlockElements(int64_t head_dim) {
  return head_dim * kBlockTokens;
}
constexpr int64_t HeadBlockElements(int64_t head_dim) {
  return KBlockElements(head_dim) + PaddedHeadDim(head_dim) * kBlockTokens;
}
// Bytes of one layer's K and V.
constexpr int64_t CpuKvBytes(int64_t num_blocks, int64_t num_kv_heads,
                             int64_t head_dim, DType dtype) {
  return num_blocks * num_kv_heads * HeadBlockElements(head_dim) *
         static_cast<int64_t>(SizeOf(dtype));
}

// A matmul reads x packed: every leaf of K in whole steps of these bytes.
constexpr int64_t kPackedStepBytes = 64;
// Empty rows that fill up the last tile, of one expert or of all rows.
constexpr int64_t kMaxPaddedRows = 3;

// Columns of a leaf in packed x.
constexpr int64_t PackedColumns(int64_t leaf_columns) {
  constexpr int64_t kStepColumns =
      kPackedStepBytes / static_cast<int64_t>(sizeof(float));
  return (leaf_columns + kStepColumns - 1) / kStepColumns * kStepColumns;
}
// Bytes of packed x, at most: fp32 (bf16 products take half), `num_groups`
// groups of rows (experts) that have tiles of their own.
constexpr int64_t PackedBytes(int64_t num_rows, int64_t num_groups,
                              int64_t packed_columns) {
  return (num_rows + std::min(num_rows, num_groups) * kMaxPaddedRows) *
         packed_columns * static_cast<int64_t>(sizeof(float));
}

// Scratch of a thread: sums of a matmul that wait for their neighbours in the
// tree, or the queries of an attention tile.
constexpr int64_t kThreadScratchBytes = 1152 << 10;
// What a thread that samples keeps: for each token of the vocabulary a logit,
// its noise and a candidate.
constexpr int64_t kCandidateBytes = 16;
constexpr int64_t kNoiseTokens = 64;  // whose noise is made together
constexpr int64_t SamplerBytes(int64_t vocab_size) {
  return std::max(vocab_size, kNoiseTokens) *
         (2 * static_cast<int64_t>(sizeof(float)) + kCandidateBytes);
}

}  // namespace witan

#endif  // WITAN_BASE_CPU_MEMORY_H_
