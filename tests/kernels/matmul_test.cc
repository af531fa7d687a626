// Matrix products against the double-precision oracle, and their exactness:
// a row's bits know neither its neighbours, nor the column range, nor the
// number of threads or ranks.

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "base/leaves.h"
#include "kernels/backend.h"
#include "tests/kernels/every_path.h"
#include "tests/testing/reference_ops.h"

namespace witan {
namespace {

class MatMulTest : public EveryPath {
 protected:
  std::mt19937 random_{7};
};
WITAN_EVERY_PATH(MatMulTest);

TEST_P(MatMulTest, AgreesWithTheOracleOnUglyShapes) {
  const auto backend = MakeBackendOfParam(2);
  Worst worst;
  for (const int64_t m : {0, 1, 2, 3, 5, 8, 9, 13, 33}) {
    for (const int64_t k : {1, 7, 31, 33, 100, 416}) {
      for (const int64_t n : {1, 3, 17, 50}) {
        const TestTensor x =
            TestTensor::Random(random_, activations(), m, k, 1, 3);
        const TestTensor w =
            TestTensor::Random(random_, weights(), n, k, 0.1, m % 3);
        for (const DType out : {DType::kF32, activations()}) {
          const TestTensor y(out, m, n, 5);
          backend->MatMul(x.view(), w.view(), y.view());
          const Worst here = Compare(
              y.view(), ReferenceMatMul(x.values(), w.values(), 0, k, out));
          EXPECT_LE(here.ratio, 1)
              << m << " x " << k << " x " << n << ": " << here.text;
          if (here.ratio > worst.ratio) worst = here;
        }
      }
    }
  }
  RecordProperty("worst", worst.text);
}

// 150 rows are more than one piece of rows, 800 columns more than one piece of
// columns.
TEST_P(MatMulTest, GivesARowTheSameBitsInAnyCompanyOfRowsColumnsAndThreads) {
  const int64_t rows = 150, k = 100,
                n = GetParam().path == CpuPath::kPortable ? 130 : 800;
  const TestTensor x = TestTensor::Random(random_, activations(), rows, k);
  const TestTensor w = TestTensor::Random(random_, weights(), n, k, 1, 1);
  const TestTensor alone(DType::kF32, rows, n);
  const auto one_thread = MakeBackendOfParam();
  for (int64_t r = 0; r < rows; ++r) {
    one_thread->MatMul(x.view().Rows(r, r + 1), w.view(),
                       alone.view().Rows(r, r + 1));
  }
  for (const int num_threads : {1, 2, 3, 4}) {
    const auto backend = MakeBackendOfParam(num_threads);
    for (const int64_t m : {2, 3, 4, 5, 6, 7, 8, 11, 16, 150}) {
      const TestTensor y(DType::kF32, m, n);
      const int64_t first = rows - m;
      backend->MatMul(x.view().Rows(first, rows), w.view(), y.view());
      for (int64_t r = 0; r < m; ++r) {
        ASSERT_EQ(y.RowBits(r), alone.RowBits(first + r))
            << m << " rows, " << num_threads << " threads, row " << r;
      }
    }
    for (const IndexRange columns :
         {IndexRange{0, 1}, {1, 18}, {5, 6}, {63, 130}}) {
      const TestTensor y(DType::kF32, 9, columns.size());
      backend->MatMul(x.view().Rows(0, 9),
                      w.view().Rows(columns.begin, columns.end), y.view());
      for (int64_t r = 0; r < 9; ++r) {
        ASSERT_EQ(y.RowBits(r), alone.RowBits(r).substr(
                                    static_cast<size_t>(columns.begin) * 4,
                                    static_cast<size_t>(columns.size()) * 4));
      }
    }
  }
}

// Units of `unit` columns over k columns, cut at the eight leaves.
std::vector<IndexRange> LeavesOf(int64_t k, int64_t unit) {
  const int64_t num_units = (k + unit - 1) / unit;
  std::vector<IndexRange> leaves;
  for (int leaf = 0; leaf < kNumLeaves; ++leaf) {
    const IndexRange units = LeafUnits(num_units, leaf);
    leaves.push_back(
        {std::min(units.begin * unit, k), std::min(units.end * unit, k)});
  }
  return leaves;
}

// The leaves of ranks 0 to num_ranks - 1, each a MatMulLeaves of its own
// columns only, joined by TreeSum.
TestTensor SumOverRanks(Backend& backend, const TestTensor& x,
                        const TestTensor& w, std::vector<IndexRange> leaves,
                        int num_ranks, DType out_dtype) {
  const int64_t m = x.view().rows, n = w.view().rows;
  std::vector<TestTensor> partials;
  std::vector<Partial> parts;
  for (int rank = num_ranks - 1; rank >= 0; --rank) {
    const IndexRange owned = LeavesOfMember(rank, num_ranks);
    const std::vector<Subtree> subtrees = MaximalSubtrees(owned);
    const std::span<const IndexRange> all = leaves;
    std::vector<IndexRange> columns(all.begin() + owned.begin,
                                    all.begin() + owned.end);
    // As a shard: the views begin at the rank's first column.
    const int64_t first = columns.empty() ? 0 : columns.front().begin;
    const int64_t last = columns.empty() ? 0 : columns.back().end;
    for (IndexRange& c : columns) c = {c.begin - first, c.end - first};
    const auto shard = [&](const TensorView& v) {
      return ConstTensorView(static_cast<const char*>(v.data) +
                                 static_cast<size_t>(first) * SizeOf(v.dtype),
                             v.dtype, v.rows, last - first, v.row_stride);
    };
    partials.emplace_back(DType::kF32,
                          m * static_cast<int64_t>(subtrees.size()), n);
    backend.MatMulLeaves(shard(x.view()), shard(w.view()), columns, subtrees,
                         partials.back().view());
    for (size_t i = 0; i < subtrees.size(); ++i) {
      parts.push_back(
          {partials.back().view().Row<float>(static_cast<int64_t>(i) * m),
           subtrees[i]});
    }
  }
  TestTensor out(out_dtype, m, n);
  backend.TreeSum(parts, m * n, out.view());
  return out;
}

TEST_P(MatMulTest, SumsLeavesToTheSameBitsOnAnyNumberOfRanks) {
  struct Case {
    int64_t k, unit;
  };
  // Leaves of 32 and 64, ragged ends, 7 wide, and fewer units than leaves.
  for (const Case& c : {Case{416, 32}, {100, 32}, {56, 7}, {96, 32}, {33, 1}}) {
    const std::vector<IndexRange> leaves = LeavesOf(c.k, c.unit);
    for (const int64_t m : {1, 3, 8, 21}) {
      const int64_t n = 70;
      const TestTensor x = TestTensor::Random(random_, activations(), m, c.k);
      const TestTensor w = TestTensor::Random(random_, weights(), n, c.k, 1, 1);
      const auto backend = MakeBackendOfParam(2);
      const TestTensor whole =
          SumOverRanks(*backend, x, w, leaves, 1, activations());
      Expected expected =
          ReferenceMatMul(x.values(), w.values(), 0, c.k, activations());
      const Worst worst = Compare(whole.view(), expected);
      EXPECT_LE(worst.ratio, 1) << worst.text;
      for (const int num_ranks : {2, 3, 4, 5, 6, 7, 8}) {
        EXPECT_EQ(SumOverRanks(*backend, x, w, leaves, num_ranks, activations())
                      .Bits(),
                  whole.Bits())
            << num_ranks << " ranks, K " << c.k << " in units of " << c.unit
            << ", " << m << " rows";
      }
    }
  }
}

// The largest pieces of rows and chunks of columns, and one more of each: what
// the sums that wait for their neighbours in the tree need most memory for.
TEST_P(MatMulTest, KeepsThePendingSumsOfTheLargestPiecesApart) {
  const int64_t k = 96;
  const std::vector<IndexRange> leaves = LeavesOf(k, 3);
  const std::vector<Subtree> all = {{0, kNumLeaves}};
  for (const int64_t m : {128, 150}) {
    for (const int64_t n : {192, 200}) {
      const TestTensor x = TestTensor::Random(random_, activations(), m, k);
      const TestTensor w = TestTensor::Random(random_, weights(), n, k);
      const TestTensor alone(DType::kF32, m, n);
      const auto one_thread = MakeBackendOfParam();
      for (int64_t r = 0; r < m; ++r) {
        one_thread->MatMulLeaves(x.view().Rows(r, r + 1), w.view(), leaves, all,
                                 alone.view().Rows(r, r + 1));
      }
      for (const int num_threads : {1, 3}) {
        const TestTensor y(DType::kF32, m, n);
        MakeBackendOfParam(num_threads)
            ->MatMulLeaves(x.view(), w.view(), leaves, all, y.view());
        for (int64_t r = 0; r < m; ++r) {
          ASSERT_EQ(y.RowBits(r), alone.RowBits(r))
              << m << " x " << n << ", row " << r;
        }
      }
    }
  }
}

TEST_P(MatMulTest, AddsEmptyLeavesAsPositiveZero) {
  // One leaf sums to -0.0; +0.0 of the empty ones makes it +0.0.
  const auto backend = MakeBackendOfParam();
  TestTensor x(activations(), 1, 1);
  TestTensor w(weights(), 1, 1);
  std::vector<IndexRange> leaves(kNumLeaves, IndexRange{0, 0});
  const TestTensor partial(DType::kF32, 1, 1);
  const std::vector<Subtree> all = {{0, kNumLeaves}};
  partial.view().Row<float>(0)[0] = 5;
  backend->MatMulLeaves(x.view(), w.view(), leaves, all, partial.view());
  EXPECT_EQ(partial.Bits(), std::string(4, '\0'));

  const float negative_zero = -0.0f, zero = 0.0f;
  const std::vector<Partial> parts = {{&zero, {4, 4}},
                                      {&negative_zero, {0, 4}}};
  const TestTensor sum(DType::kF32, 1, 1);
  backend->TreeSum(parts, 1, sum.view());
  EXPECT_EQ(sum.Bits(), std::string(4, '\0'));
}

TEST_P(MatMulTest, GroupsRowsByExpertWhateverTheirNumber) {
  constexpr int64_t kExperts = 5, kK = 70, kN = 50;
  std::vector<TestTensor> w;
  std::vector<ConstTensorView> views;
  for (int64_t e = 0; e < kExperts; ++e) {
    w.push_back(TestTensor::Random(random_, weights(), kN, kK, 0.3, 1));
  }
  for (const TestTensor& tensor : w) views.push_back(tensor.view());
  const auto backend = MakeBackendOfParam(2);
  // Rows per expert: all to one, some to none, every size of tile.
  for (const std::vector<int32_t>& counts :
       std::vector<std::vector<int32_t>>{{0, 0, 40, 0, 0},
                                         {1, 0, 2, 3, 0},
                                         {9, 8, 0, 7, 130},
                                         {0, 0, 0, 0, 0}}) {
    std::vector<int32_t> offsets = {0}, sources;
    const TestTensor x = TestTensor::Random(random_, activations(), 20, kK);
    for (const int32_t count : counts) {
      for (int32_t i = 0; i < count; ++i) sources.push_back(i % 20);
      offsets.push_back(offsets.back() + count);
    }
    const int64_t num_rows = offsets.back();
    ExpertRows rows;
    rows.num_experts = kExperts;
    rows.offsets = offsets.data();
    rows.source_rows = sources.data();
    const TestTensor y(activations(), num_rows + 1, kN);  // capacity to spare
    backend->GroupedMatMul(x.view(), true, rows, views, y.view());
    TestTensor gathered(activations(), num_rows, kK);
    for (int64_t r = 0; r < num_rows; ++r) {
      for (int64_t k = 0; k < kK; ++k) {
        gathered.Set(r, k, x.Get(sources[static_cast<size_t>(r)], k));
      }
    }
    const TestTensor again(activations(), num_rows, kN);
    backend->GroupedMatMul(gathered.view(), false, rows, views, again.view());
    for (size_t e = 0; e < counts.size(); ++e) {
      for (int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
        const TestTensor alone(activations(), 1, kN);
        backend->MatMul(gathered.view().Rows(r, r + 1), views[e], alone.view());
        ASSERT_EQ(y.RowBits(r), alone.RowBits(0)) << "row " << r;
        ASSERT_EQ(again.RowBits(r), alone.RowBits(0)) << "row " << r;
      }
    }
  }
}

TEST(OrderTwoTest, HasTheSameBitsOnEveryPath) {
  std::mt19937 random(3);
  std::vector<CpuPath> paths = PathsOfThisCpu();
  for (const DType weights : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int64_t k : {1, 15, 33, 100, 500}) {
      const DType a = ActivationDType(weights);
      const TestTensor x = TestTensor::Random(random, a, 6, k);
      const TestTensor w = TestTensor::Random(random, weights, 40, k);
      std::string bits;
      for (const CpuPath path : paths) {
        if (path == CpuPath::kAvx512Bf16 && weights == DType::kBF16) continue;
        const TestTensor y(DType::kF32, 6, 40);
        MakeBackend(path, weights)->MatMul(x.view(), w.view(), y.view());
        if (bits.empty()) bits = y.Bits();
        EXPECT_EQ(y.Bits(), bits)
            << NameOfPath(path) << " " << NameOf(weights) << " K " << k;
      }
    }
  }
}

}  // namespace
}  // namespace witan
