#ifndef WITAN_TESTS_TESTING_CONTRACT_OPS_H_
#define WITAN_TESTS_TESTING_CONTRACT_OPS_H_

// The numerics contract of docs/architecture.md, one scalar at a time: what the
// kernels must reproduce bit for bit. Written from its words and sharing no
// code with kernels/, so that a change of the order of additions, of a cut or
// of a rounding is seen even when all kernels change together. Not for NaN and
// infinities.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/leaves.h"
#include "tests/testing/reference_ops.h"

namespace witan {

// How a matmul adds products.
enum class ContractOrder {
  kOne,  // bf16 weights on AVX-512 BF16: lanes of pairs, as vdpbf16ps does it
  kTwo,  // lanes of single elements, one fma each
};

// The contract fixes no exponential; it says that there is one of our own.
using ContractExp = std::function<float(float)>;

float RoundTo(DType dtype, float value);

// Sixteen lanes to one: v[l] + v[l+8], then +4, +2, +1.
float ContractLaneTree(std::span<const float> lanes);

// One leaf: sum of x[i] w[i].
float ContractDot(ContractOrder order, std::span<const float> x,
                  std::span<const float> w);

// The node of the leaf tree over `leaves` (1, 2, 4 or 8 of them).
float ContractTree(std::span<const float> leaves);

// x w^T over columns [begin, end), one leaf, to [x.rows, w.rows] of `out`.
TestTensor ContractMatMul(ContractOrder order, const TestTensor& x,
                          const TestTensor& w, DType out);
// Likewise cut at leaf_columns, to fp32 [subtrees.size() * x.rows, w.rows].
TestTensor ContractMatMulLeaves(ContractOrder order, const TestTensor& x,
                                const TestTensor& w,
                                std::span<const IndexRange> leaf_columns,
                                std::span<const Subtree> subtrees);

// residual is after the addition of delta.
TestTensor ContractRmsNorm(const TestTensor& residual, const TestTensor& weight,
                           float epsilon, DType out);
TestTensor ContractSiluMul(const TestTensor& gate, const TestTensor& up,
                           DType out, const ContractExp& exp);

// Ids [T, top_k] and weights [T, top_k] of the chosen experts.
struct ContractRouting {
  TestTensor ids, weights;
};
ContractRouting ContractRouterTopK(const TestTensor& logits, int64_t top_k,
                                   const ContractExp& exp);

// Sum over all leaves of the chosen experts: outputs [T * top_k, H] holds the
// output of (row, choice); fp32 [T, H].
TestTensor ContractCombineExperts(const TestTensor& outputs,
                                  const ContractRouting& routing,
                                  int64_t total_experts);

// One query over the keys and values [positions, D] of one head, as the cache
// stores them, of which positions [visible.begin, visible.end) are seen.
struct ContractAttention {
  ContractOrder order;
  DType activations;
  float scale;
  ContractExp exp;
  std::vector<float> Attend(std::span<const float> query,
                            const std::vector<std::vector<float>>& keys,
                            const std::vector<std::vector<float>>& values,
                            IndexRange visible) const;
};

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_CONTRACT_OPS_H_
