#ifndef WITAN_KERNELS_CPU_KERNELS_H_
#define WITAN_KERNELS_CPU_KERNELS_H_

// The table of kernels of one instruction set. cpu_backend.cc checks shapes and
// cuts an op into pieces that threads run in any order; a kernel computes one
// piece. The same bodies (the *-inl.h files) are compiled three times, over
// simd_portable.h, simd_avx2.h and simd_avx512.h, each in its own namespace.
//
// Every kernel runs under ScopedFloatingPointMode.

#include <cstdint>
#include <span>

#include "base/cpu_memory.h"
#include "base/leaves.h"
#include "base/limits.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace witan {

// Most query heads that one attention kernel call works on together.
constexpr int kMaxQueriesPerTile = 4;
// Rows of the largest piece of a matmul, and the columns whose leaves it works
// on together.
constexpr int64_t kMaxPieceRows = 128;
constexpr int64_t kMaxChunkColumns = 192;

// One leaf of K: columns [first_column, first_column + size) of x and w, which
// are num_steps K-steps of packed x (the last one padded with zeros) after the
// first_step steps of the leaves before it.
struct PackedLeaf {
  int64_t first_column = 0;
  int64_t size = 0;
  int64_t first_step = 0;
  int64_t num_steps = 0;
};

// y = x w^T for the rows of x that share one w. x is packed leaf after leaf,
// each as tiles of tile_rows rows (zero rows after the last), each as
// [steps of the leaf][tile_rows][one K-step].
struct MatMulJob {
  const void* packed_x = nullptr;
  bool order_one = false;  // bf16 pairs; else fp32 lanes
  int64_t rows = 0;
  int64_t tile_rows = 0;
  ConstTensorView w;
  std::span<const PackedLeaf> leaves;
  std::span<const Subtree> subtrees;  // their leaves are `leaves`, in order
  // [subtrees.size() * rows, O] fp32, or [rows, O] of either activation dtype
  // when there is one subtree.
  TensorView y;
};

// Bytes from the start of packed x to one leaf of tile `tile`.
inline int64_t PackedOffset(const MatMulJob& job, const PackedLeaf& leaf,
                            int64_t tile) {
  const int64_t num_tiles = (job.rows + job.tile_rows - 1) / job.tile_rows;
  return (leaf.first_step * num_tiles + leaf.num_steps * tile) * job.tile_rows *
         kPackedStepBytes;
}

// Rows are multiples of tile_rows except at the end.
struct MatMulPiece {
  IndexRange rows;
  IndexRange columns;
};

// Pending sums of a piece: some levels of the tree below its root, for every
// tile of a chunk of columns; a tile's sums are padded to whole vectors of 16,
// at most quadrupled (1 x 4 sums in one vector).
constexpr int64_t kPendingLevels = 3;
static_assert(int64_t{1} << kPendingLevels == kNumLeaves);
constexpr int64_t kMatMulScratchFloats =
    kPendingLevels * 4 * kMaxPieceRows * kMaxChunkColumns;
static_assert(kMatMulScratchFloats * int64_t{sizeof(float)} <=
              kThreadScratchBytes);

// Up to kMaxQueriesPerTile query vectors of one sequence that share a KV head.
struct QueryTile {
  int num_queries = 0;
  const void* q[kMaxQueriesPerTile] = {};  // A [D]
  void* out[kMaxQueriesPerTile] = {};      // A [D]
  // Visible positions, at least one.
  IndexRange visible[kMaxQueriesPerTile] = {};
  const int32_t* block_ids = nullptr;
  int64_t kv_head = 0;
  float scale = 0;
  bool order_one = false;  // bf16 pairs; else fp32 lanes
};
// Floats of scratch one attention kernel call needs.
constexpr int64_t AttentionScratchFloats(int64_t head_dim) {
  return kMaxQueriesPerTile * (3 * PaddedHeadDim(head_dim) + 2 * kSplitTokens);
}
static_assert(AttentionScratchFloats(kMaxHeadDim) * int64_t{sizeof(float)} <=
              kThreadScratchBytes);

struct CpuKernels {
  // Whether order_one may be asked for.
  bool has_bf16_dot;

  // Rows of a tile, for a matmul of `rows` rows.
  int64_t (*tile_rows)(int64_t rows, int64_t num_leaves);

  // Tile `tile` of x (row source_rows[i], or i when null) to its places in
  // `packed_x`.
  void (*pack_tile)(ConstTensorView x, const int32_t* source_rows, int64_t tile,
                    const MatMulJob& job, void* packed_x);
  void (*mat_mul)(const MatMulJob& job, const MatMulPiece& piece,
                  float* scratch);

  // Of the ops of the same name, rows [begin, end).
  void (*embed)(std::span<const TokenId> token_ids, ConstTensorView table,
                TensorView out, IndexRange rows);
  void (*add_norm)(TensorView residual, ConstTensorView delta,
                   ConstTensorView delta_bias, const Norm& norm, TensorView out,
                   IndexRange rows);
  void (*add_bias)(TensorView y, ConstTensorView bias, IndexRange rows);
  void (*silu_mul)(ConstTensorView gate, ConstTensorView up, TensorView out,
                   IndexRange rows);
  void (*router_top_k)(ConstTensorView logits, const RoutingRule& rule,
                       int top_k, TensorView expert_ids, TensorView weights,
                       IndexRange rows);
  void (*combine_experts)(ConstTensorView y, const ExpertRows& expert_rows,
                          ConstTensorView expert_ids, ConstTensorView weights,
                          int64_t total_experts,
                          std::span<const Subtree> subtrees,
                          TensorView partials, IndexRange rows);
  // Elements [begin, end) of the op; partials ascend.
  void (*tree_sum)(std::span<const Partial> partials, TensorView out,
                   IndexRange elements);

  // One row: rotates the first rotary_dim elements of each head of q, and of k
  // into the cache, and stores v. The layout of the cache depends on the order.
  void (*rope_write_kv)(const float* q, const float* k, const float* v,
                        const float* rope, int64_t rotary_dim,
                        int64_t num_heads, const KvLayer& cache, bool order_one,
                        int32_t block, int64_t slot, void* q_out);
  void (*attention)(const QueryTile& tile, const KvLayer& cache,
                    float* scratch);

  // Sampling, over n elements: the largest (-infinity if none), NaN ignored.
  float (*max_of)(const float* x, int64_t n);
  // sums exp(x[i] - shift), in 16 lanes and the lane tree.
  float (*sum_exp)(const float* x, float shift, int64_t n);
  // out[i] = exp(x[i]).
  void (*exp_of)(const float* x, int64_t n, float* out);
  // out[i] = log(x[i]) for positive normal x.
  void (*log_of)(const float* x, int64_t n, float* out);
  // noise[i] = -log(-log(u)) for the token first_id + i, first_id a multiple
  // of 64.
  void (*gumbel)(uint64_t seed, uint32_t position, uint32_t choice,
                 TokenId first_id, int64_t n, float* noise);
};

const CpuKernels& PortableKernels();
const CpuKernels& Avx2Kernels();
const CpuKernels& Avx512Kernels();

}  // namespace witan

#endif  // WITAN_KERNELS_CPU_KERNELS_H_
