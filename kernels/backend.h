#ifndef WITAN_KERNELS_BACKEND_H_
#define WITAN_KERNELS_BACKEND_H_

// One device: its memory and the ops of the forward pass.
//
// Every op obeys the numerics contract of docs/architecture.md: each output
// element has one fixed order of operations, whatever the number of rows, the
// range of columns, the chunking, the thread count and the number of ranks.
// A is the activation dtype (base/dtype.h): bf16 or fp32.
//
// Owned by one rank (or test), used by one thread; ops are enqueued on the
// backend's one stream and run in order; Synchronize() waits for them. Spans
// and views point at memory that this backend can read and must stay alive
// until then. A shape that does not fit is a bug of the caller (CHECK). Any of
// rows, columns, sequences, owned heads or owned experts may be zero.

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

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
  // Not to be drawn, in any order, perhaps repeated.
  std::span<const TokenId> banned_ids;
  // Not below 0: this token instead of one that is drawn, for its
  // log-probability.
  TokenId given_token_id = -1;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // 64-byte aligned (or better), zeroed. RESOURCE_EXHAUSTED names the size.
  virtual absl::StatusOr<Buffer> Allocate(size_t bytes) = 0;
  // Waits until all ops enqueued so far are complete.
  virtual void Synchronize() = 0;

  // Names the kernel set whose bits the ops produce, e.g. "cpu-avx512bf16";
  // part of the numerics id.
  virtual std::string kernel_set() const = 0;
  // Pieces of the ops so far that threads beside the caller's computed.
  virtual int64_t num_pieces_of_other_threads() const = 0;

  // out[t] = float(table[token_ids[t]]). table [V, H] of any weight dtype, out
  // fp32 [T, H]. REQUIRES: 0 <= token_ids[t] < V.
  virtual void Embed(std::span<const TokenId> token_ids, ConstTensorView table,
                     TensorView out) = 0;

  // residual += delta (skipped when delta is empty), then
  // out = round_A(residual * rsqrt(mean(residual^2) + epsilon) * weight).
  // residual fp32 [T, H], delta A [T, H], weight [1, H] of weight dtype, out A
  // [T, H]. out may be empty: then only the addition is done.
  virtual void AddRmsNorm(TensorView residual, ConstTensorView delta,
                          ConstTensorView weight, float epsilon,
                          TensorView out) = 0;

  // y = x w^T, K one leaf. x A [M, K], w [O, K] weight dtype, y fp32 or A
  // [M, O] (rounded once).
  virtual void MatMul(ConstTensorView x, ConstTensorView w, TensorView y) = 0;

  // The row-parallel product: K is cut at leaf_columns, ascending and adjacent
  // ranges (perhaps empty) of the columns of x and w, one for each leaf that
  // `subtrees` covers, in order. partials fp32 [subtrees.size() * M, O]: rows
  // [i * M, (i + 1) * M) are the sum over subtree i, joined by the tree.
  virtual void MatMulLeaves(ConstTensorView x, ConstTensorView w,
                            std::span<const IndexRange> leaf_columns,
                            std::span<const Subtree> subtrees,
                            TensorView partials) = 0;

  // out[i] = round_out(tree over all eight leaves of partials[.][i]) for i in
  // [0, n). The subtrees tile the eight leaves, in any order. out is A or fp32
  // (row-major, contiguous, n elements).
  virtual void TreeSum(std::span<const Partial> partials, int64_t n,
                       TensorView out) = 0;

  // Rope in fp32 on q [T, N*D] and k [T, K*D] fp32 (half-split form: element i
  // pairs with i + D/2), then rounds q, k and v [T, K*D] fp32 to A; q goes to
  // q_out [T, N*D], k and v into the cache at the rows' positions. rope fp32
  // [positions, D]: D/2 cosines, then D/2 sines.
  virtual void RopeWriteKv(ConstTensorView q, ConstTensorView k,
                           ConstTensorView v, ConstTensorView rope,
                           const AttentionBatch& batch, const KvLayer& cache,
                           TensorView q_out) = 0;

  // Causal attention of every row over positions 0 to its own, as the cache
  // stores them. q A [T, N*D], out A [T, N*D]. Query head n uses local KV head
  // kv_head_of[n] ([N]); scores are scaled by `scale`. window > 0: only the
  // last `window` positions, own included, are visible; 0: all.
  virtual void PagedAttention(ConstTensorView q, const KvLayer& cache,
                              const AttentionBatch& batch,
                              std::span<const int32_t> kv_head_of, float scale,
                              int64_t window, TensorView out) = 0;

  // out = round_A(silu(gate) * up) for the rows in use, the first
  // rows.offsets[rows.num_experts]; the others stay as they are. gate, up fp32
  // [R, F], out A [R, F].
  virtual void SiluMul(ConstTensorView gate, ConstTensorView up,
                       const ExpertRows& rows, TensorView out) = 0;

  // Softmax over all E router logits (fp32 [T, E]) in fp32, then the top_k
  // largest, ties to the lower id, normalised to sum 1. Per row by ascending
  // expert id: expert_ids int32 [T, top_k], weights fp32 [T, top_k].
  virtual void RouterTopK(ConstTensorView logits, int top_k,
                          TensorView expert_ids, TensorView weights) = 0;

  // Groups the T * top_k choices by local expert; fills the arrays of `rows`.
  virtual void GroupByExpert(ConstTensorView expert_ids, ExpertRows& rows) = 0;

  // For each local expert e and grouped row r of it: y[r] = x[i] w[e]^T with
  // i = source_rows[r] if gather, else i = r. K one leaf. w[e] [O, K] weight
  // dtype; y [R, O] fp32 or A.
  virtual void GroupedMatMul(ConstTensorView x, bool gather,
                             const ExpertRows& rows,
                             std::span<const ConstTensorView> w,
                             TensorView y) = 0;

  // Weighted sum of expert outputs by leaf: within a leaf (experts
  // LeafUnits(total_experts, leaf)) acc = +0.0, then acc = fma(w, y, acc) over
  // the chosen experts by ascending id; leaves joined by the tree. y A [R, H],
  // partials fp32 [subtrees.size() * T, H].
  virtual void CombineExperts(ConstTensorView y, const ExpertRows& rows,
                              ConstTensorView expert_ids,
                              ConstTensorView weights, int64_t total_experts,
                              std::span<const Subtree> subtrees,
                              TensorView partials) = 0;

  // out[i] = x[row_ids[i]]; same dtype, same columns.
  virtual void GatherRows(ConstTensorView x, std::span<const int32_t> row_ids,
                          TensorView out) = 0;

  // Draws one token per row of logits (fp32 [S, V], not modified) and, where
  // asked for, its log-probability and the best ones under the raw logits.
  // tokens [S] is host memory, valid after Synchronize().
  virtual void Sample(ConstTensorView logits, std::span<const SampleRow> rows,
                      std::span<SampledToken> tokens) = 0;

  // Bytes of one layer's K and V.
  virtual size_t KvBytes(int64_t num_blocks, int64_t num_kv_heads,
                         int64_t head_dim, DType dtype) const = 0;
};

// What a rank's CPU backend is made of.
enum class CpuPath {
  kAuto,        // the best this CPU has
  kAvx512Bf16,  // order one for bf16 (vdpbf16ps); order two for fp32 and fp16
  kAvx2,        // order two
  kPortable,    // order two, same bits as kAvx2
};

struct CpuOptions {
  int num_threads = 1;  // 1 to kMaxThreadsPerRank
  CpuPath path = CpuPath::kAuto;
  // The dtype of the weights this backend will serve; it decides A and, with
  // the path, the order and so the kernel set.
  DType weights = DType::kBF16;
};

// FAILED_PRECONDITION when the CPU lacks what `path` needs, RESOURCE_EXHAUSTED
// when the system does not give that many threads.
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(
    const CpuOptions& options);

// "auto", "avx512bf16", "avx2", "portable".
absl::StatusOr<CpuPath> ParseCpuPath(const std::string& name);

// Rope cosines and sines, fp32 [num_positions, head_dim] as RopeWriteKv takes
// them, computed with our own double-precision sin and cos so that the bits
// do not depend on a libm: angle = position * theta^(-2i / head_dim).
std::vector<float> MakeRopeTable(int64_t num_positions, int64_t head_dim,
                                 double theta);

// SHA-256 (hex) over the outputs of every op of `backend` on fixed inputs, and
// nothing else: two backends with the same answer produce the same bits. The
// error is the backend's, when it has no memory.
absl::StatusOr<std::string> KnownAnswerHash(Backend& backend);

}  // namespace witan

#endif  // WITAN_KERNELS_BACKEND_H_
