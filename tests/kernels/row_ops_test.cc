// Ops within a row, routing and combination of experts, against the oracle and
// across paths, threads and ranks.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/leaves.h"
#include "kernels/backend.h"
#include "tests/kernels/every_path.h"
#include "tests/testing/reference_ops.h"

namespace witan {
namespace {

class RowOpsTest : public EveryPath {
 protected:
  std::mt19937 random_{5};
};
WITAN_EVERY_PATH(RowOpsTest);

TEST_P(RowOpsTest, EmbedsExactly) {
  const auto backend = MakeBackendOfParam();
  const TestTensor table = TestTensor::Random(random_, weights(), 9, 37, 1, 2);
  const std::vector<TokenId> ids = {8, 0, 3, 3};
  const TestTensor out(DType::kF32, 4, 37, 1);
  backend->Embed(ids, table.view(), out.view());
  for (int64_t t = 0; t < 4; ++t) {
    for (int64_t c = 0; c < 37; ++c) {
      ASSERT_EQ(out.Get(t, c), table.Get(ids[static_cast<size_t>(t)], c));
    }
  }
  backend->Embed({}, table.view(), TensorView(nullptr, DType::kF32, 0, 37));
}

TEST_P(RowOpsTest, AddsAndNormalises) {
  const auto backend = MakeBackendOfParam(2);
  for (const int64_t columns : {1, 15, 33, 1024}) {
    for (const int64_t rows : {0, 1, 40}) {
      const TestTensor weight =
          TestTensor::Random(random_, weights(), 1, columns);
      const TestTensor residual =
          TestTensor::Random(random_, DType::kF32, rows, columns, 3, 2);
      const TestTensor delta =
          TestTensor::Random(random_, activations(), rows, columns, 1, 1);
      TestTensor sum(DType::kF32, rows, columns);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          sum.Set(r, c, residual.Get(r, c) + delta.Get(r, c));
        }
      }
      const TestTensor out(activations(), rows, columns, 3);
      const Norm norm = {weight.view(), {}, 1e-5f};
      backend->AddNorm(residual.view(), delta.view(), {}, norm, out.view());
      ASSERT_EQ(residual.Bits(), sum.Bits());
      const Worst worst =
          Compare(out.view(), ReferenceRmsNorm(sum.values(), weight.values(),
                                               1e-5f, activations()));
      EXPECT_LE(worst.ratio, 1) << worst.text;
      // Without delta, and without output.
      const TestTensor again(activations(), rows, columns);
      backend->AddNorm(residual.view(), {}, {}, norm, again.view());
      backend->AddNorm(residual.view(), {}, {}, norm, {});
      EXPECT_EQ(again.Bits(), out.Bits());
      EXPECT_EQ(residual.Bits(), sum.Bits());
    }
  }
}

TEST_P(RowOpsTest, NormalisesAroundTheMean) {
  const auto backend = MakeBackendOfParam(2);
  for (const int64_t columns : {2, 15, 33, 1024}) {
    const TestTensor weight =
        TestTensor::Random(random_, weights(), 1, columns);
    const TestTensor bias = TestTensor::Random(random_, weights(), 1, columns);
    const TestTensor residual =
        TestTensor::Random(random_, DType::kF32, 20, columns, 3, 2);
    const TestTensor out(activations(), 20, columns, 3);
    backend->AddNorm(residual.view(), {}, {},
                     {weight.view(), bias.view(), 1e-5f}, out.view());
    for (int64_t r = 0; r < 20; ++r) {
      double mean = 0, variance = 0;
      for (int64_t c = 0; c < columns; ++c) mean += residual.Get(r, c);
      mean /= static_cast<double>(columns);
      for (int64_t c = 0; c < columns; ++c) {
        variance += std::pow(residual.Get(r, c) - mean, 2);
      }
      variance /= static_cast<double>(columns);
      for (int64_t c = 0; c < columns; ++c) {
        const double scaled = (residual.Get(r, c) - mean) /
                              std::sqrt(variance + 1e-5) * weight.Get(0, c);
        const double exact = scaled + bias.Get(0, c);
        // Sums of at most 1024 terms and of 12 in size, in 16 lanes, then one
        // rounding to A.
        const double unit = activations() == DType::kBF16 ? 0x1p-8 : 0x1p-23;
        ASSERT_NEAR(out.Get(r, c), exact,
                    std::abs(exact) * unit +
                        (12 / std::sqrt(variance + 1e-5) + 12) * 80 * 0x1p-24)
            << r << ", " << c << " of " << columns;
      }
    }
  }
}

TEST_P(RowOpsTest, AddsBiasesExactly) {
  const auto backend = MakeBackendOfParam(2);
  const TestTensor bias = TestTensor::Random(random_, weights(), 1, 77);
  const TestTensor y = TestTensor::Random(random_, DType::kF32, 9, 77, 1, 5);
  TestTensor sum(DType::kF32, 9, 77);
  for (int64_t r = 0; r < 9; ++r) {
    for (int64_t c = 0; c < 77; ++c)
      sum.Set(r, c, y.Get(r, c) + bias.Get(0, c));
  }
  // The same as what AddNorm does with the bias of a sum.
  TestTensor residual(DType::kF32, 9, 77);
  for (int64_t r = 0; r < 9; ++r) {
    for (int64_t c = 0; c < 77; ++c) residual.Set(r, c, y.Get(r, c));
  }
  backend->AddNorm(residual.view(), {}, bias.view(), {}, {});
  EXPECT_EQ(residual.Bits(), sum.Bits());
  backend->AddBias(y.view(), bias.view());
  EXPECT_EQ(y.Bits(), sum.Bits());
}

TEST_P(RowOpsTest, NormalisesHeadsInPlace) {
  const auto backend = MakeBackendOfParam();
  const TestTensor weight = TestTensor::Random(random_, weights(), 1, 24);
  const TestTensor x = TestTensor::Random(random_, DType::kF32, 30, 24, 3);
  const Expected exact =
      ReferenceRmsNorm(x.values(), weight.values(), 1e-5f, DType::kF32);
  backend->AddNorm(x.view(), {}, {}, {weight.view(), {}, 1e-5f}, x.view());
  const Worst worst = Compare(x.view(), exact);
  EXPECT_LE(worst.ratio, 1) << worst.text;
}

TEST_P(RowOpsTest, MultipliesBySiluUpToTheEndsOfTheRange) {
  const auto backend = MakeBackendOfParam();
  TestTensor gate = TestTensor::Random(random_, DType::kF32, 7, 301, 8);
  const TestTensor up = TestTensor::Random(random_, DType::kF32, 7, 301);
  for (int64_t c = 0; c < 301; ++c) {  // -150 to 150: both ends of exp
    gate.Set(3, c, static_cast<double>(c - 150));
  }
  const TestTensor out(activations(), 7, 301);
  backend->SiluMul(gate.view(), up.view(), nullptr, out.view());
  const Worst worst = Compare(
      out.view(), ReferenceSiluMul(gate.values(), up.values(), activations()));
  EXPECT_LE(worst.ratio, 1) << worst.text;
}

// Room for all choices of all rows, of which this rank's experts have few.
TEST_P(RowOpsTest, MultipliesBySiluOnlyInRowsInUse) {
  const int64_t capacity = 60, columns = 1000;
  const TestTensor gate =
      TestTensor::Random(random_, DType::kF32, capacity, columns);
  const TestTensor up =
      TestTensor::Random(random_, DType::kF32, capacity, columns);
  const TestTensor all(activations(), capacity, columns);
  MakeBackendOfParam()->SiluMul(gate.view(), up.view(), nullptr, all.view());
  for (const int64_t num_used : {0, 1, 37, 60}) {
    for (const int num_threads : {1, 3}) {
      const auto num_rows = static_cast<int32_t>(num_used);
      const TestTensor out =
          TestTensor::Random(random_, activations(), capacity, columns);
      const std::string before = out.Bits();
      MakeBackendOfParam(num_threads)
          ->SiluMul(gate.view(), up.view(), &num_rows, out.view());
      const size_t used_bytes =
          static_cast<size_t>(num_used * columns) * SizeOf(activations());
      EXPECT_EQ(out.Bits(),
                all.Bits().substr(0, used_bytes) + before.substr(used_bytes))
          << num_used << " rows, " << num_threads << " threads";
    }
  }
}

TEST_P(RowOpsTest, PassesNaNOn) {
  const auto backend = MakeBackendOfParam();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  TestTensor gate(DType::kF32, 1, 20), up(DType::kF32, 1, 20);
  gate.Set(0, 3, nan);
  up.Set(0, 17, nan);
  const TestTensor out(activations(), 1, 20);
  backend->SiluMul(gate.view(), up.view(), nullptr, out.view());
  for (int64_t c = 0; c < 20; ++c) {
    EXPECT_EQ(std::isnan(out.Get(0, c)), c == 3 || c == 17) << c;
  }
}

TEST_P(RowOpsTest, GathersRows) {
  const TestTensor x = TestTensor::Random(random_, activations(), 6, 11, 1, 4);
  const std::vector<int32_t> ids = {5, 0, 5};
  const TestTensor out(activations(), 3, 11);
  MakeBackendOfParam()->GatherRows(x.view(), ids, out.view());
  for (int64_t r = 0; r < 3; ++r) {
    EXPECT_EQ(out.RowBits(r), x.RowBits(ids[static_cast<size_t>(r)]));
  }
}

TEST_P(RowOpsTest, RoutesToTheMostProbableExperts) {
  const auto backend = MakeBackendOfParam(2);
  for (const int64_t num_experts : {1, 2, 8, 33}) {
    for (const int top_k : {1, 2, 5}) {
      if (top_k > num_experts) continue;
      const int64_t rows = 50;
      const TestTensor logits =
          TestTensor::Random(random_, DType::kF32, rows, num_experts, 2);
      const TestTensor ids(DType::kI32, rows, top_k);
      const TestTensor w(DType::kF32, rows, top_k);
      backend->RouterTopK(logits.view(), {}, top_k, ids.view(), w.view());
      const Matrix p = ReferenceSoftmax(logits.values());
      for (int64_t r = 0; r < rows; ++r) {
        std::vector<bool> chosen(static_cast<size_t>(num_experts), false);
        double total = 0, least = 1;
        for (int64_t j = 0; j < top_k; ++j) {
          const int64_t e = static_cast<int64_t>(ids.Get(r, j));
          if (j > 0) {
            ASSERT_LT(ids.Get(r, j - 1), e);
          }
          chosen[static_cast<size_t>(e)] = true;
          total += p.At(r, e);
          least = std::min(least, p.At(r, e));
        }
        for (int64_t j = 0; j < top_k; ++j) {
          const double exact =
              p.At(r, static_cast<int64_t>(ids.Get(r, j))) / total;
          // Exponentials, two divisions, two sums of at most 33 terms.
          EXPECT_NEAR(w.Get(r, j), exact, exact * 48 * 0x1p-24);
        }
        for (int64_t e = 0; e < num_experts; ++e) {
          if (!chosen[static_cast<size_t>(e)]) {
            EXPECT_LE(p.At(r, e), least * (1 + 0x1p-20));
          }
        }
      }
    }
  }
}

TEST_P(RowOpsTest, RoutesWithoutNormalisationByTheSoftmaxOfAll) {
  const TestTensor logits = TestTensor::Random(random_, DType::kF32, 50, 16, 2);
  const TestTensor ids(DType::kI32, 50, 3), w(DType::kF32, 50, 3);
  const TestTensor normal_ids(DType::kI32, 50, 3), normal_w(DType::kF32, 50, 3);
  const auto backend = MakeBackendOfParam();
  backend->RouterTopK(logits.view(), {RoutingKind::kSoftmax}, 3, ids.view(),
                      w.view());
  backend->RouterTopK(logits.view(), {}, 3, normal_ids.view(), normal_w.view());
  EXPECT_EQ(ids.Bits(), normal_ids.Bits());
  const Matrix p = ReferenceSoftmax(logits.values());
  for (int64_t r = 0; r < 50; ++r) {
    for (int64_t j = 0; j < 3; ++j) {
      const double exact = p.At(r, static_cast<int64_t>(ids.Get(r, j)));
      EXPECT_NEAR(w.Get(r, j), exact, exact * 48 * 0x1p-24);
    }
  }
}

// As the formula of base/routing.h says it, in double precision.
TEST_P(RowOpsTest, RoutesSparselyByLogitsThatAreClose) {
  constexpr int64_t kRows = 200, kExperts = 16;
  const float jitter = 0.1f;
  const TestTensor logits =
      TestTensor::Random(random_, DType::kF32, kRows, kExperts, 2);
  const TestTensor ids(DType::kI32, kRows, 2), w(DType::kF32, kRows, 2);
  MakeBackendOfParam(2)->RouterTopK(logits.view(),
                                    {RoutingKind::kSparseMixer, jitter}, 2,
                                    ids.view(), w.view());
  int num_close = 0;
  for (int64_t r = 0; r < kRows; ++r) {
    std::map<int64_t, double> weight_of;  // by expert, ascending
    std::set<int64_t> left;
    for (int64_t e = 0; e < kExperts; ++e) left.insert(e);
    for (int choice = 0; choice < 2; ++choice) {
      const int64_t best = *std::max_element(
          left.begin(), left.end(), [&](int64_t a, int64_t b) {
            return logits.Get(r, a) < logits.Get(r, b);
          });
      const double max = logits.Get(r, best);
      double sum = 0;
      for (const int64_t e : left) {
        const double s = logits.Get(r, e);
        if ((max - s) / std::max(std::abs(s), max) > 2 * double{jitter})
          continue;
        sum += std::exp(s - max);
        ++num_close;
      }
      weight_of[best] = 1 / sum;
      left.erase(best);
    }
    int64_t j = 0;
    for (const auto& [expert, weight] : weight_of) {
      ASSERT_EQ(ids.Get(r, j), static_cast<double>(expert)) << r;
      EXPECT_NEAR(w.Get(r, j), weight, weight * 48 * 0x1p-24) << r;
      ++j;
    }
  }
  EXPECT_GT(num_close, 2 * kRows + 50) << "rows with a rival in reach";
}

TEST_P(RowOpsTest, RoutesTiesToTheLowerExpertAndSurvivesNaN) {
  TestTensor logits(DType::kF32, 3, 6);
  for (const int64_t e : {1, 2, 4, 5}) logits.Set(0, e, 2.5);
  for (int64_t e = 0; e < 6; ++e) {
    logits.Set(1, e, std::numeric_limits<double>::quiet_NaN());
    logits.Set(2, e, -std::numeric_limits<double>::infinity());
  }
  const TestTensor ids(DType::kI32, 3, 3), w(DType::kF32, 3, 3);
  MakeBackendOfParam()->RouterTopK(logits.view(), {}, 3, ids.view(), w.view());
  for (int64_t j = 0; j < 3; ++j) {
    EXPECT_EQ(ids.Get(0, j), std::vector<double>({1, 2, 4})[j]);
    EXPECT_EQ(ids.Get(1, j), static_cast<double>(j));
    EXPECT_EQ(ids.Get(2, j), static_cast<double>(j));
  }
}

// The arrays behind an ExpertRows.
struct GroupedRows {
  GroupedRows(int64_t first_expert, int64_t num_experts, int64_t num_choices)
      : offsets(static_cast<size_t>(num_experts) + 1, -7),
        source_rows(static_cast<size_t>(num_choices), -7),
        slot_of_choice(static_cast<size_t>(num_choices), -7) {
    rows = {first_expert, num_experts, offsets.data(), source_rows.data(),
            slot_of_choice.data()};
  }
  std::vector<int32_t> offsets, source_rows, slot_of_choice;
  ExpertRows rows;
};

TEST_P(RowOpsTest, GroupsEveryLocalChoiceOnce) {
  const auto backend = MakeBackendOfParam();
  constexpr int64_t kRows = 30, kTopK = 3, kExperts = 7;
  TestTensor ids(DType::kI32, kRows, kTopK);
  for (int64_t t = 0; t < kRows; ++t) {
    std::vector<int32_t> experts(kExperts);
    std::iota(experts.begin(), experts.end(), 0);
    std::shuffle(experts.begin(), experts.end(), random_);
    std::sort(experts.begin(), experts.begin() + kTopK);
    for (int64_t j = 0; j < kTopK; ++j) {
      ids.Set(t, j, experts[static_cast<size_t>(j)]);
    }
  }
  for (const IndexRange& local : {IndexRange{0, 7}, {0, 0}, {2, 3}, {3, 7}}) {
    GroupedRows g(local.begin, local.size(), kRows * kTopK);
    backend->GroupByExpert(ids.view(), g.rows);
    std::vector<int> hits(kRows * kTopK, 0);
    for (int64_t t = 0; t < kRows; ++t) {
      for (int64_t j = 0; j < kTopK; ++j) {
        const int64_t e = static_cast<int64_t>(ids.Get(t, j)) - local.begin;
        const int32_t slot =
            g.slot_of_choice[static_cast<size_t>(t * kTopK + j)];
        if (e < 0 || e >= local.size()) {
          EXPECT_EQ(slot, -1);
          continue;
        }
        ASSERT_GE(slot, g.offsets[static_cast<size_t>(e)]);
        ASSERT_LT(slot, g.offsets[static_cast<size_t>(e) + 1]);
        EXPECT_EQ(g.source_rows[static_cast<size_t>(slot)], t);
        EXPECT_EQ(hits[static_cast<size_t>(slot)]++, 0);
      }
    }
    for (int64_t e = 0; e < local.size(); ++e) {
      EXPECT_TRUE(std::is_sorted(
          g.source_rows.begin() + g.offsets[static_cast<size_t>(e)],
          g.source_rows.begin() + g.offsets[static_cast<size_t>(e) + 1]));
    }
    EXPECT_EQ(std::accumulate(hits.begin(), hits.end(), 0), g.offsets.back());
  }
}

TEST_P(RowOpsTest, CombinesExpertsToTheSameBitsOnAnyNumberOfRanks) {
  const auto backend = MakeBackendOfParam(2);
  constexpr int64_t kRows = 13, kTopK = 3, kHidden = 100;
  for (const int64_t num_experts : {3, 8, 20}) {
    const TestTensor logits =
        TestTensor::Random(random_, DType::kF32, kRows, num_experts);
    const TestTensor ids(DType::kI32, kRows, kTopK);
    const TestTensor w(DType::kF32, kRows, kTopK);
    backend->RouterTopK(logits.view(), RoutingRule{}, kTopK, ids.view(),
                        w.view());
    // Outputs of (row, choice), and what they sum to.
    const TestTensor outputs =
        TestTensor::Random(random_, activations(), kRows * kTopK, kHidden);
    Expected expected(kRows, kHidden);
    for (int64_t t = 0; t < kRows; ++t) {
      for (int64_t c = 0; c < kHidden; ++c) {
        double magnitude = 0;
        for (int64_t j = 0; j < kTopK; ++j) {
          const double term = w.Get(t, j) * outputs.Get(t * kTopK + j, c);
          expected.value.At(t, c) += term;
          magnitude += std::abs(term);
        }
        expected.tolerance.At(t, c) = magnitude * 6 * 0x1p-24;
      }
    }
    std::string whole;
    for (const int num_ranks : {1, 2, 3, 4, 5, 6, 7, 8}) {
      std::vector<TestTensor> partials;
      std::vector<Partial> parts;
      for (int rank = 0; rank < num_ranks; ++rank) {
        const IndexRange leaves = LeavesOfMember(rank, num_ranks);
        const std::vector<Subtree> subtrees = MaximalSubtrees(leaves);
        if (subtrees.empty()) continue;
        const int64_t first =
            LeafUnits(num_experts, static_cast<int>(leaves.begin)).begin;
        const int64_t end =
            LeafUnits(num_experts, static_cast<int>(leaves.end) - 1).end;
        GroupedRows g(first, end - first, kRows * kTopK);
        backend->GroupByExpert(ids.view(), g.rows);
        TestTensor y(activations(), kRows * kTopK, kHidden);
        for (int64_t i = 0; i < kRows * kTopK; ++i) {
          const int32_t slot = g.slot_of_choice[static_cast<size_t>(i)];
          if (slot < 0) continue;
          for (int64_t c = 0; c < kHidden; ++c) {
            y.Set(slot, c, outputs.Get(i, c));
          }
        }
        partials.emplace_back(DType::kF32,
                              static_cast<int64_t>(subtrees.size()) * kRows,
                              kHidden);
        backend->CombineExperts(y.view(), g.rows, ids.view(), w.view(),
                                num_experts, subtrees, partials.back().view());
        for (size_t i = 0; i < subtrees.size(); ++i) {
          parts.push_back({partials.back().view().Row<float>(
                               static_cast<int64_t>(i) * kRows),
                           subtrees[i]});
        }
      }
      const TestTensor sum(DType::kF32, kRows, kHidden);
      backend->TreeSum(parts, kRows * kHidden, sum.view());
      if (num_ranks == 1) {
        whole = sum.Bits();
        const Worst worst = Compare(sum.view(), expected);
        EXPECT_LE(worst.ratio, 1) << worst.text;
      }
      EXPECT_EQ(sum.Bits(), whole)
          << num_ranks << " ranks, " << num_experts << " experts";
    }
  }
}

// The tree, spelled out with floats.
TEST_P(RowOpsTest, SumsTheTreeInItsFixedOrder) {
  constexpr int64_t kElements = 37;
  const TestTensor leaves =
      TestTensor::Random(random_, DType::kF32, kNumLeaves, kElements);
  std::vector<Partial> parts;
  for (int leaf = kNumLeaves - 1; leaf >= 0; --leaf) {
    parts.push_back({leaves.view().Row<float>(leaf), {leaf, 1}});
  }
  TestTensor expected(activations(), 1, kElements);
  for (int64_t i = 0; i < kElements; ++i) {
    float v[kNumLeaves];
    for (int leaf = 0; leaf < kNumLeaves; ++leaf) {
      v[leaf] = leaves.view().Row<float>(leaf)[i];
    }
    expected.Set(
        0, i,
        ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])));
  }
  const TestTensor out(activations(), 1, kElements);
  MakeBackendOfParam()->TreeSum(parts, kElements, out.view());
  EXPECT_EQ(out.Bits(), expected.Bits());
}

TEST(CpuBackendTest, RefusesWhatItCannotBe) {
  CpuOptions options;
  options.num_threads = 0;
  EXPECT_EQ(MakeCpuBackend(options).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(*ParseCpuPath("avx2"), CpuPath::kAvx2);
  EXPECT_EQ(ParseCpuPath("sse9").status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto backend = MakeBackend(CpuPath::kPortable, DType::kF32);
  EXPECT_EQ(backend->Allocate(size_t{1} << 62).status().code(),
            absl::StatusCode::kResourceExhausted);
  auto buffer = backend->Allocate(1000);
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
  EXPECT_EQ(static_cast<char*>(buffer->data())[999], 0);
}

}  // namespace
}  // namespace witan
