// Low-rank adapters against double precision, against the ops that they are
// made of, and a row alone against the same row among others.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/leaves.h"
#include "kernels/backend.h"
#include "tests/kernels/every_path.h"
#include "tests/testing/reference_ops.h"

namespace witan {
namespace {

constexpr int64_t kRows = 23;
constexpr int64_t kColumns = 100;  // K
constexpr int64_t kOutputs = 75;   // O

struct Adapter {
  TestTensor a;
  TestTensor b;
  float scale;
  LoraFactors factors() const { return {a.view(), b.view(), scale}; }
};

class LoraTest : public EveryPath {
 protected:
  Adapter RandomAdapter(int64_t rank, float scale) {
    return {TestTensor::Random(random_, weights(), rank, kColumns),
            TestTensor::Random(random_, weights(), kOutputs, rank), scale};
  }
  // What one row gets, made of the ops that the contract names.
  std::vector<float> Composed(Backend& backend, ConstTensorView x_row,
                              const Adapter& adapter,
                              std::vector<float> y_row) {
    const int64_t rank = adapter.a.view().rows;
    const TestTensor inner(activations(), 1, rank);
    backend.MatMul(x_row, adapter.a.view(), inner.view());
    const TestTensor product(DType::kF32, 1, kOutputs);
    backend.MatMul(inner.view(), adapter.b.view(), product.view());
    backend.Synchronize();
    for (int64_t c = 0; c < kOutputs; ++c) {
      float& y = y_row[static_cast<size_t>(c)];
      y = std::fma(adapter.scale, product.view().Row<float>(0)[c], y);
    }
    return y_row;
  }

  std::mt19937 random_{11};
};
WITAN_EVERY_PATH(LoraTest);

std::vector<float> RowOf(ConstTensorView view, int64_t row) {
  const float* data = view.Row<float>(row);
  return {data, data + view.columns};
}

TEST_P(LoraTest, AddsWhatDoublePrecisionAdds) {
  const auto backend = MakeBackendOfParam(2);
  const Adapter adapter = RandomAdapter(13, 0.75f);
  const TestTensor x =
      TestTensor::Random(random_, activations(), kRows, kColumns);
  const TestTensor before =
      TestTensor::Random(random_, DType::kF32, kRows, kOutputs);
  const TestTensor y = before;
  const std::vector<int32_t> adapter_of_row(kRows, 0);
  const LoraFactors factors = adapter.factors();
  backend->AddLora(x.view(), adapter_of_row, {&factors, 1}, y.view());
  backend->Synchronize();
  // One rounding to A, and sums of kColumns and of 13 terms in 16 lanes.
  const double unit = activations() == DType::kBF16 ? 0x1p-8 : 0x1p-23;
  for (int64_t t = 0; t < kRows; ++t) {
    for (int64_t c = 0; c < kOutputs; ++c) {
      double sum = 0, error = 0;
      for (int64_t r = 0; r < 13; ++r) {
        double inner = 0, magnitude = 0;
        for (int64_t k = 0; k < kColumns; ++k) {
          const double term = adapter.a.Get(r, k) * x.Get(t, k);
          inner += term;
          magnitude += std::abs(term);
        }
        const double b = adapter.b.Get(c, r);
        sum += b * inner;
        error += std::abs(b) *
                 (std::abs(inner) * (unit + 0x1p-22) + magnitude * 0x1p-20);
      }
      const double exact = before.Get(t, c) + 0.75 * sum;
      ASSERT_NEAR(y.Get(t, c), exact, error + std::abs(exact) * 0x1p-23)
          << t << ", " << c;
    }
  }
}

TEST_P(LoraTest, ARowHasTheBitsItHasAloneWhateverItsNeighboursAdapters) {
  const auto backend = MakeBackendOfParam(2);
  const std::vector<Adapter> adapters = {
      RandomAdapter(1, 2.0f), RandomAdapter(40, 0.3f), RandomAdapter(8, 1.0f)};
  std::vector<LoraFactors> factors;
  for (const Adapter& adapter : adapters) factors.push_back(adapter.factors());
  factors.push_back({});  // changes other weights only
  const TestTensor x =
      TestTensor::Random(random_, activations(), kRows, kColumns);
  const TestTensor before =
      TestTensor::Random(random_, DType::kF32, kRows, kOutputs);
  const TestTensor y = before;
  std::vector<int32_t> adapter_of_row;
  for (int64_t t = 0; t < kRows; ++t) {
    adapter_of_row.push_back(static_cast<int32_t>(t * 7 % 5) - 1);
  }
  backend->AddLora(x.view(), adapter_of_row, factors, y.view());
  backend->Synchronize();
  for (int64_t t = 0; t < kRows; ++t) {
    const int32_t adapter = adapter_of_row[static_cast<size_t>(t)];
    std::vector<float> expected = RowOf(before.view(), t);
    if (adapter >= 0 && adapter < 3) {
      expected = Composed(*backend, ConstTensorView(x.view()).Rows(t, t + 1),
                          adapters[static_cast<size_t>(adapter)], expected);
    }
    ASSERT_EQ(RowOf(y.view(), t), expected) << "adapter " << adapter;
  }
}

TEST_P(LoraTest, GroupedRowsGetTheFactorsOfTheirExpertAndAdapter) {
  const auto backend = MakeBackendOfParam(2);
  constexpr int64_t kExperts = 3, kAdapters = 2;
  // Expert 0 has rows 0, 4, 5; expert 1 none; expert 2 rows 1, 4.
  std::vector<int32_t> offsets = {0, 3, 3, 5};
  std::vector<int32_t> source_rows = {0, 4, 5, 1, 4, -99};
  std::vector<int32_t> slots(12, -1);
  const ExpertRows rows = {5, kExperts, offsets.data(), source_rows.data(),
                           slots.data()};
  const std::vector<int32_t> adapter_of_row = {0, -1, 0, 1, 1, 0};
  std::vector<Adapter> adapters;
  std::vector<LoraFactors> factors;
  for (int64_t i = 0; i < kExperts * kAdapters; ++i) {
    adapters.push_back(RandomAdapter(3 + i, 0.5f + static_cast<float>(i)));
  }
  for (const Adapter& adapter : adapters) factors.push_back(adapter.factors());
  for (const bool gather : {true, false}) {
    const TestTensor x =
        TestTensor::Random(random_, activations(), 6, kColumns);
    const TestTensor before =
        TestTensor::Random(random_, DType::kF32, 6, kOutputs);
    const TestTensor y = before;
    backend->AddGroupedLora(x.view(), gather, rows, adapter_of_row, kAdapters,
                            factors, y.view());
    backend->Synchronize();
    const int32_t expert_of[] = {0, 0, 0, 2, 2};
    for (int64_t r = 0; r < 6; ++r) {
      std::vector<float> expected = RowOf(before.view(), r);
      const int32_t source = r < 5 ? source_rows[static_cast<size_t>(r)] : -1;
      const int32_t adapter =
          source < 0 ? -1 : adapter_of_row[static_cast<size_t>(source)];
      if (adapter >= 0) {
        const int64_t i = gather ? source : r;
        expected = Composed(
            *backend, ConstTensorView(x.view()).Rows(i, i + 1),
            adapters[static_cast<size_t>(expert_of[r] * kAdapters + adapter)],
            expected);
      }
      ASSERT_EQ(RowOf(y.view(), r), expected) << r << ", gather " << gather;
    }
  }
}

TEST_P(LoraTest, JoinedLeavesAreThePartialSumsOfTheLeafProduct) {
  const auto backend = MakeBackendOfParam(2);
  const TestTensor x =
      TestTensor::Random(random_, activations(), kRows, kColumns);
  const TestTensor w =
      TestTensor::Random(random_, weights(), kOutputs, kColumns);
  for (const IndexRange owned : {IndexRange{0, 8}, {3, 6}, {1, 8}, {5, 6}}) {
    std::vector<IndexRange> columns;
    std::vector<Subtree> leaves;
    for (int leaf = static_cast<int>(owned.begin); leaf < owned.end; ++leaf) {
      columns.push_back(LeafUnits(kColumns, leaf));
      leaves.push_back({leaf, 1});
    }
    const std::vector<Subtree> subtrees = MaximalSubtrees(owned);
    const int64_t num_subtrees = static_cast<int64_t>(subtrees.size());
    const TestTensor whole(DType::kF32, num_subtrees * kRows, kOutputs);
    backend->MatMulLeaves(x.view(), w.view(), columns, subtrees, whole.view());
    const TestTensor split(DType::kF32, owned.size() * kRows, kOutputs);
    backend->MatMulLeaves(x.view(), w.view(), columns, leaves, split.view());
    const TestTensor joined(DType::kF32, num_subtrees * kRows, kOutputs);
    backend->JoinLeaves(split.view(), subtrees, joined.view());
    backend->Synchronize();
    EXPECT_EQ(joined.Bits(), whole.Bits());
  }
}

TEST_P(LoraTest, RoundsAsAProductThatIsRoundedAtOnce) {
  const auto backend = MakeBackendOfParam(2);
  const TestTensor x =
      TestTensor::Random(random_, activations(), kRows, kColumns);
  const TestTensor w =
      TestTensor::Random(random_, weights(), kOutputs, kColumns);
  const TestTensor at_once(activations(), kRows, kOutputs);
  backend->MatMul(x.view(), w.view(), at_once.view());
  const TestTensor exact(DType::kF32, kRows, kOutputs);
  backend->MatMul(x.view(), w.view(), exact.view());
  const TestTensor rounded(activations(), kRows, kOutputs);
  const int32_t num_rows = kRows - 4;
  backend->Round(exact.view(), &num_rows, rounded.view());
  backend->Synchronize();
  for (int64_t t = 0; t < kRows; ++t) {
    for (int64_t c = 0; c < kOutputs; ++c) {
      ASSERT_EQ(rounded.Get(t, c), t < num_rows ? at_once.Get(t, c) : 0);
    }
  }
}

}  // namespace
}  // namespace witan
