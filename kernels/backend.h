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
#include "base/rope.h"
#include "base/routing.h"
#include "kernels/operands.h"
#include "kernels/tensor.h"

namespace witan {

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

  // residual += delta, then residual += delta_bias, in fp32; each is skipped
  // when it is empty. Then out = round_A(norm(residual)). residual fp32 [T, H],
  // delta A [T, H], delta_bias [1, H] of weight dtype, out A [T, H]. out may be
  // empty: then only the additions are done. out fp32 is not rounded and may be
  // residual itself.
  virtual void AddNorm(TensorView residual, ConstTensorView delta,
                       ConstTensorView delta_bias, const Norm& norm,
                       TensorView out) = 0;

  // y[t] += bias, in fp32. y fp32 [M, O], bias [1, O] of weight dtype.
  virtual void AddBias(TensorView y, ConstTensorView bias) = 0;

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

  // Rope in fp32 on q [T, N*D] and k [T, K*D] fp32 (half-split form: of the
  // first R elements of a head, i pairs with i + R/2; the others stay as they
  // are), then rounds q, k and v [T, K*D] fp32 to A; q goes to q_out [T, N*D],
  // k and v into the cache at the rows' positions. rope fp32 [rows, R], R even
  // and at most D: R/2 cosines, then R/2 sines.
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

  // out = round_A(silu(gate) * up) for the first *num_rows rows (device
  // memory; null: all); the others stay as they are. gate, up fp32 [R, F], out
  // A [R, F].
  virtual void SiluMul(ConstTensorView gate, ConstTensorView up,
                       const int32_t* num_rows, TensorView out) = 0;

  // The top_k experts of every row, from router logits fp32 [T, E], and their
  // weights by `rule`, in fp32; ties go to the lower id. Per row by ascending
  // expert id: expert_ids int32 [T, top_k], weights fp32 [T, top_k].
  // REQUIRES: top_k is 2 for kSparseMixer.
  virtual void RouterTopK(ConstTensorView logits, const RoutingRule& rule,
                          int top_k, TensorView expert_ids,
                          TensorView weights) = 0;

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

  // What low-rank adapters add: y[t] = fma(scale, b round_A(a x[t]), y[t]),
  // with the factors that the row's adapter has in `adapters`; K and r one leaf
  // each. x A [T, K], y fp32 [T, O]. Rows without an adapter, and those whose
  // adapter has no factors, stay as they are; so do all if `adapters` is empty.
  virtual void AddLora(ConstTensorView x, AdapterOfRow adapter_of_row,
                       std::span<const LoraFactors> adapters, TensorView y) = 0;

  // The same for grouped rows: the factors of expert e and adapter a are
  // factors[e * num_adapters + a]. Grouped row r of y [R, O] has x[i] with i as
  // in GroupedMatMul, and the adapter of row source_rows[r].
  virtual void AddGroupedLora(ConstTensorView x, bool gather,
                              const ExpertRows& rows,
                              AdapterOfRow adapter_of_row, int64_t num_adapters,
                              std::span<const LoraFactors> factors,
                              TensorView y) = 0;

  // Joins leaves to subtrees. leaves fp32 [n * T, O]: rows [i * T, (i + 1) * T)
  // are leaf i of the n that `subtrees` cover, in order; partials as those of
  // MatMulLeaves.
  virtual void JoinLeaves(ConstTensorView leaves,
                          std::span<const Subtree> subtrees,
                          TensorView partials) = 0;

  // out = round_A(x) for the first *num_rows rows (device memory); the others
  // stay as they are. x fp32 [R, H], out A [R, H].
  virtual void Round(ConstTensorView x, const int32_t* num_rows,
                     TensorView out) = 0;

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

// Rope cosines and sines as RopeWriteKv takes them, fp32 [num_positions,
// rotary_dim] for sequences of that many positions; `is_long`: the variant for
// those beyond the original context. Computed with our own double-precision
// functions so that the bits do not depend on a libm: angle = position *
// theta^(-2i / rotary_dim), changed by rope.scaling.
std::vector<float> MakeRopeTable(int64_t num_positions,
                                 const RopeParameters& rope,
                                 bool is_long = false);

// SHA-256 (hex) over the outputs of every op of `backend` on fixed inputs, and
// nothing else: two backends with the same answer produce the same bits. The
// error is the backend's, when it has no memory.
absl::StatusOr<std::string> KnownAnswerHash(Backend& backend);

}  // namespace witan

#endif  // WITAN_KERNELS_BACKEND_H_
