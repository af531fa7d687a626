// Every kernel, bit for bit, against the numerics contract written out in
// scalars. Oracles with tolerances cannot see a changed order of additions;
// this can.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/leaves.h"
#include "base/limits.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernels.h"
#include "tests/kernels/every_path.h"
#include "tests/testing/contract_ops.h"
#include "tests/testing/reference_ops.h"

namespace witan {
namespace {

float KernelExp(float x) {
  float result;
  PortableKernels().exp_of(&x, 1, &result);
  return result;
}

class ContractTest : public EveryPath {
 protected:
  ContractOrder order() const {
    return GetParam().path == CpuPath::kAvx512Bf16 && weights() == DType::kBF16
               ? ContractOrder::kOne
               : ContractOrder::kTwo;
  }
  std::mt19937 random_{17};
};
WITAN_EVERY_PATH(ContractTest);

TEST_P(ContractTest, MultipliesInItsOrder) {
  const auto backend = MakeBackendOfParam(2);
  for (const int64_t m : {1, 2, 3, 4, 5, 7, 8, 13, 33}) {
    for (const int64_t k : {1, 2, 15, 16, 17, 31, 33, 100, 416}) {
      for (const int64_t n : {1, 5, 18, 50}) {
        const TestTensor x =
            TestTensor::Random(random_, activations(), m, k, 1, 3);
        const TestTensor w =
            TestTensor::Random(random_, weights(), n, k, 0.1, m % 3);
        for (const DType out : {DType::kF32, activations()}) {
          const TestTensor y(out, m, n);
          backend->MatMul(x.view(), w.view(), y.view());
          ASSERT_EQ(y.Bits(), ContractMatMul(order(), x, w, out).Bits())
              << m << " x " << k << " x " << n << " " << NameOf(out);
        }
      }
    }
  }
}

// Few rows and many columns, which are computed in parts.
TEST_P(ContractTest, MultipliesLongLeavesInItsOrder) {
  const auto backend = MakeBackendOfParam();
  const int64_t k = 2311, n = 40;
  const TestTensor w = TestTensor::Random(random_, weights(), n, k);
  for (const int64_t m : {1, 2, 8, 13, 33}) {
    const TestTensor x = TestTensor::Random(random_, activations(), m, k);
    const TestTensor y(DType::kF32, m, n);
    backend->MatMul(x.view(), w.view(), y.view());
    ASSERT_EQ(y.Bits(), ContractMatMul(order(), x, w, DType::kF32).Bits())
        << m << " rows";
  }
}

// Subnormal factors, products and sums: order one flushes them, order two
// keeps them.
TEST_P(ContractTest, MultipliesTinyNumbersInItsOrder) {
  const auto backend = MakeBackendOfParam();
  for (const double x_size : {1e-39, 1e-30, 1e-20, 1.0}) {
    for (const double w_size : {1e-39, 1e-20, 1e-9, 1.0}) {
      const TestTensor x =
          TestTensor::Random(random_, activations(), 6, 75, x_size);
      const TestTensor w =
          TestTensor::Random(random_, weights(), 20, 75, w_size);
      const TestTensor y(DType::kF32, 6, 20);
      backend->MatMul(x.view(), w.view(), y.view());
      const TestTensor expected = ContractMatMul(order(), x, w, DType::kF32);
      for (int64_t r = 0; r < 6; ++r) {
        for (int64_t c = 0; c < 20; ++c) {
          ASSERT_EQ(y.Get(r, c), expected.Get(r, c)) << x_size << " " << w_size;
        }
      }
    }
  }
}

TEST_P(ContractTest, CutsLeavesAndJoinsThemByTheTree) {
  const auto backend = MakeBackendOfParam(2);
  const std::vector<std::vector<Subtree>> tilings = {
      {{0, 8}}, {{0, 4}, {4, 4}}, {{0, 4}, {4, 2}, {6, 1}, {7, 1}}, {{3, 1}}};
  const int64_t k = 230;
  for (int trial = 0; trial < 6; ++trial) {
    for (const int64_t m : {1, 2, 4, 7, 30}) {
      // Any cuts will do: leaves that are empty, odd, and longer than a step.
      std::vector<int64_t> cuts = {0, k};
      for (int i = 1; i < kNumLeaves; ++i) {
        cuts.push_back(static_cast<int64_t>(random_() % (k + 1)));
      }
      if (trial == 0) std::fill(cuts.begin() + 2, cuts.end(), 64);
      std::sort(cuts.begin(), cuts.end());
      const TestTensor x = TestTensor::Random(random_, activations(), m, k);
      const TestTensor w = TestTensor::Random(random_, weights(), 37, k, 1, 1);
      for (const std::vector<Subtree>& subtrees : tilings) {
        std::vector<IndexRange> leaves;
        for (const Subtree& subtree : subtrees) {
          for (int i = 0; i < subtree.num_leaves; ++i) {
            const size_t leaf = static_cast<size_t>(subtree.first_leaf + i);
            leaves.push_back({cuts[leaf], cuts[leaf + 1]});
          }
        }
        const TestTensor partials(
            DType::kF32, static_cast<int64_t>(subtrees.size()) * m, 37);
        backend->MatMulLeaves(x.view(), w.view(), leaves, subtrees,
                              partials.view());
        ASSERT_EQ(partials.Bits(),
                  ContractMatMulLeaves(order(), x, w, leaves, subtrees).Bits())
            << m << " rows, " << subtrees.size() << " subtrees";
      }
    }
  }
}

TEST_P(ContractTest, NormalisesWithSquaresInSixteenLanes) {
  const auto backend = MakeBackendOfParam();
  for (const int64_t columns : {1, 15, 16, 33, 100, 1024}) {
    const TestTensor residual =
        TestTensor::Random(random_, DType::kF32, 9, columns, 3, 2);
    const TestTensor weight =
        TestTensor::Random(random_, weights(), 1, columns);
    const TestTensor out(activations(), 9, columns);
    backend->AddNorm(residual.view(), {}, {}, {weight.view(), {}, 1e-5f},
                     out.view());
    ASSERT_EQ(out.Bits(),
              ContractRmsNorm(residual, weight, 1e-5f, activations()).Bits())
        << columns;
  }
}

TEST_P(ContractTest, MultipliesBySiluInFp32AndRoundsOnce) {
  const TestTensor gate = TestTensor::Random(random_, DType::kF32, 9, 77, 20);
  const TestTensor up = TestTensor::Random(random_, DType::kF32, 9, 77);
  const TestTensor out(activations(), 9, 77);
  MakeBackendOfParam()->SiluMul(gate.view(), up.view(), nullptr, out.view());
  EXPECT_EQ(out.Bits(),
            ContractSiluMul(gate, up, activations(), KernelExp).Bits());
}

TEST_P(ContractTest, RoutesAndCombinesExpertsByAscendingIdWithinALeaf) {
  const auto backend = MakeBackendOfParam();
  constexpr int64_t kRows = 21, kHidden = 70;
  for (const int64_t num_experts : {3, 8, 20, 64}) {
    for (const int top_k : {1, 3}) {
      const TestTensor logits =
          TestTensor::Random(random_, DType::kF32, kRows, num_experts, 2);
      const ContractRouting routing =
          ContractRouterTopK(logits, top_k, KernelExp);
      const TestTensor ids(DType::kI32, kRows, top_k);
      const TestTensor w(DType::kF32, kRows, top_k);
      backend->RouterTopK(logits.view(), {}, top_k, ids.view(), w.view());
      ASSERT_EQ(ids.Bits(), routing.ids.Bits()) << num_experts;
      ASSERT_EQ(w.Bits(), routing.weights.Bits()) << num_experts;

      // Each choice's output lies where its expert's rows are.
      const int64_t num_choices = kRows * top_k;
      const TestTensor outputs =
          TestTensor::Random(random_, activations(), num_choices, kHidden);
      std::vector<int32_t> offsets(static_cast<size_t>(num_experts) + 1);
      std::vector<int32_t> sources(static_cast<size_t>(num_choices));
      std::vector<int32_t> slots(static_cast<size_t>(num_choices));
      ExpertRows rows = {0, num_experts, offsets.data(), sources.data(),
                         slots.data()};
      backend->GroupByExpert(ids.view(), rows);
      TestTensor y(activations(), num_choices, kHidden);
      for (int64_t i = 0; i < num_choices; ++i) {
        for (int64_t c = 0; c < kHidden; ++c) {
          y.Set(slots[static_cast<size_t>(i)], c, outputs.Get(i, c));
        }
      }
      const TestTensor sum(DType::kF32, kRows, kHidden);
      const std::vector<Subtree> all = {{0, kNumLeaves}};
      backend->CombineExperts(y.view(), rows, ids.view(), w.view(), num_experts,
                              all, sum.view());
      ASSERT_EQ(sum.Bits(),
                ContractCombineExperts(outputs, routing, num_experts).Bits())
          << num_experts << " experts, top " << top_k;
    }
  }
}

struct AttentionCase {
  int64_t positions, heads, kv_heads, head_dim, window;
};

// Attention of one sequence whose q, k and v are stored as they are: the rope
// table turns by no angle.
class AttentionContractTest : public ContractTest {
 protected:
  void ExpectContract(const AttentionCase& c, bool cancelling) {
    const auto backend = MakeBackendOfParam(2);
    TestTensor q = RandomHeads(c.positions, c.heads * c.head_dim);
    TestTensor k = RandomHeads(c.positions, c.kv_heads * c.head_dim);
    TestTensor v = RandomHeads(c.positions, c.kv_heads * c.head_dim);
    if (cancelling) MakeSumsCancel(c, q, k, v);
    const TestTensor out = Attend(*backend, c, q, k, v);
    const ContractAttention contract = {order(), activations(), kScale,
                                        KernelExp};
    // Every row of the first two splits would take long; these see the ends of
    // lanes, pairs, blocks and splits.
    for (const int64_t p :
         {0, 1, 14, 15, 16, 31, 32, 100, 253, 255, 256, 257, 511, 512, 600}) {
      if (p >= c.positions) break;
      for (int64_t n = 0; n < c.heads; ++n) {
        const int64_t kv_head = n * c.kv_heads / c.heads;
        const std::vector<float> expected = contract.Attend(
            Head(q, p, n, c.head_dim), Heads(k, kv_head, c.head_dim),
            Heads(v, kv_head, c.head_dim), Visible(c, p));
        ASSERT_EQ(Head(out, p, n, c.head_dim), expected)
            << "position " << p << ", head " << n << " of " << c.head_dim
            << ", window " << c.window;
      }
    }
  }

 private:
  static constexpr float kScale = 0.3f;

  static IndexRange Visible(const AttentionCase& c, int64_t p) {
    return {c.window > 0 ? std::max<int64_t>(0, p + 1 - c.window) : 0, p + 1};
  }

  // fp32, but no finer than activations are.
  TestTensor RandomHeads(int64_t rows, int64_t columns) {
    const TestTensor rounded =
        TestTensor::Random(random_, activations(), rows, columns);
    TestTensor heads(DType::kF32, rows, columns);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < columns; ++i) heads.Set(r, i, rounded.Get(r, i));
    }
    return heads;
  }

  // Large terms that add to zero leave their rounding errors behind, as large
  // as the rest of the sum, so that even bf16 shows in which order they came.
  // Within a head the halves of q are equal, and some elements of k are
  // opposite in the two halves; positions 2 i and 2 i + 1 have the same key,
  // hence the same P, and some opposite values.
  void MakeSumsCancel(const AttentionCase& c, TestTensor& q, TestTensor& k,
                      TestTensor& v) {
    constexpr double kLarge = 1 << 20;
    const int64_t half = c.head_dim / 2;
    for (int64_t p = 0; p < c.positions; ++p) {
      for (int64_t i = 0; i < q.view().columns; ++i) {
        if (i % c.head_dim >= half) q.Set(p, i, q.Get(p, i - half));
      }
      for (int64_t i = 0; i < k.view().columns; ++i) {
        const bool is_second_half = i % c.head_dim >= half;
        if (p % 2 == 1) {
          k.Set(p, i, k.Get(p - 1, i));
          if (random_() % 2 == 0) {
            v.Set(p - 1, i, v.Get(p - 1, i) * kLarge);
            v.Set(p, i, -v.Get(p - 1, i));
          }
        } else if (is_second_half && random_() % 2 == 0) {
          k.Set(p, i - half, k.Get(p, i - half) * kLarge);
          k.Set(p, i, -k.Get(p, i - half));
        }
      }
    }
  }

  static std::vector<float> Head(const TestTensor& t, int64_t position,
                                 int64_t head, int64_t head_dim) {
    std::vector<float> values;
    for (int64_t d = 0; d < head_dim; ++d) {
      values.push_back(
          static_cast<float>(t.Get(position, head * head_dim + d)));
    }
    return values;
  }
  static std::vector<std::vector<float>> Heads(const TestTensor& t,
                                               int64_t head, int64_t head_dim) {
    std::vector<std::vector<float>> rows;
    for (int64_t p = 0; p < t.view().rows; ++p) {
      rows.push_back(Head(t, p, head, head_dim));
    }
    return rows;
  }

  TestTensor Attend(Backend& backend, const AttentionCase& c,
                    const TestTensor& q, const TestTensor& k,
                    const TestTensor& v) const {
    TestTensor rope(DType::kF32, c.positions, c.head_dim);
    for (int64_t p = 0; p < c.positions; ++p) {
      for (int64_t i = 0; i < c.head_dim / 2; ++i) rope.Set(p, i, 1);
    }
    const int64_t num_blocks = (c.positions + kBlockTokens - 1) / kBlockTokens;
    auto memory = backend.Allocate(
        backend.KvBytes(num_blocks, c.kv_heads, c.head_dim, activations()));
    EXPECT_TRUE(memory.ok());
    const KvLayer cache = {memory->data(), num_blocks, c.kv_heads, c.head_dim,
                           activations()};
    std::vector<int32_t> block_ids, kv_head_of;
    for (int64_t b = num_blocks; b-- > 0;) {
      block_ids.push_back(static_cast<int32_t>(b));
    }
    for (int64_t n = 0; n < c.heads; ++n) {
      kv_head_of.push_back(static_cast<int32_t>(n * c.kv_heads / c.heads));
    }
    const std::vector<int32_t> rows = {0, static_cast<int32_t>(c.positions)};
    const std::vector<int32_t> first = {0};
    const AttentionBatch batch = {rows, first, block_ids, num_blocks};
    const TestTensor stored_q(activations(), c.positions, q.view().columns);
    TestTensor out(activations(), c.positions, q.view().columns);
    backend.RopeWriteKv(q.view(), k.view(), v.view(), rope.view(), batch, cache,
                        stored_q.view());
    backend.PagedAttention(stored_q.view(), cache, batch, kv_head_of, kScale,
                           c.window, out.view());
    return out;
  }
};
WITAN_EVERY_PATH(AttentionContractTest);

constexpr AttentionCase kAttentionCases[] = {
    {40, 4, 1, 32, 0},    {300, 2, 2, 64, 0}, {601, 3, 1, 24, 0},
    {601, 2, 1, 16, 257}, {150, 5, 1, 6, 33}, {120, 1, 1, 128, 1}};

TEST_P(AttentionContractTest, CutsSplitsAndRoundsWhereItIsNamed) {
  for (const AttentionCase& c : kAttentionCases) {
    ASSERT_NO_FATAL_FAILURE(ExpectContract(c, false));
  }
}

TEST_P(AttentionContractTest, AddsInTheOrderOfTheMatmul) {
  for (const AttentionCase& c : kAttentionCases) {
    ASSERT_NO_FATAL_FAILURE(ExpectContract(c, true));
  }
}

}  // namespace
}  // namespace witan
