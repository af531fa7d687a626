#include "tests/testing/contract_ops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace witan {
namespace {

constexpr int64_t kLanes = 16;
using Lanes = std::array<float, kLanes>;

// Positions of one attention split; base/limits.h may not move it.
constexpr int64_t kPositionsOfASplit = 256;

// vdpbf16ps takes subnormals for zero and gives zero for them.
float Flush(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}

float FlushingFma(float x, float w, float acc) {
  return Flush(std::fma(Flush(x), Flush(w), Flush(acc)));
}

// Adds the elements of one split or leaf that `used` covers. Order one takes
// pairs that begin at even indices, the odd element first; of a pair that is
// used in part the rest is zero.
float DotOf(ContractOrder order, std::span<const float> x,
            std::span<const float> w, IndexRange used) {
  const auto at = [&](std::span<const float> v, int64_t i) {
    return i >= used.begin && i < used.end ? v[static_cast<size_t>(i)] : 0.0f;
  };
  Lanes lanes = {};
  if (order == ContractOrder::kOne) {
    for (int64_t i = used.begin / 2 * 2; i < used.end; i += 2) {
      float& acc = lanes[static_cast<size_t>(i / 2 % kLanes)];
      acc = FlushingFma(at(x, i + 1), at(w, i + 1), acc);
      acc = FlushingFma(at(x, i), at(w, i), acc);
    }
  } else {
    for (int64_t i = used.begin; i < used.end; ++i) {
      float& acc = lanes[static_cast<size_t>(i % kLanes)];
      acc = std::fma(at(x, i), at(w, i), acc);
    }
  }
  return ContractLaneTree(lanes);
}

std::vector<float> RowOf(const TestTensor& tensor, int64_t row) {
  std::vector<float> values;
  for (int64_t c = 0; c < tensor.view().columns; ++c) {
    values.push_back(static_cast<float>(tensor.Get(row, c)));
  }
  return values;
}

float SumInLanes(std::span<const float> values, int64_t first_index = 0) {
  Lanes lanes = {};
  for (size_t i = 0; i < values.size(); ++i) {
    lanes[(static_cast<size_t>(first_index) + i) % kLanes] += values[i];
  }
  return ContractLaneTree(lanes);
}

// One split, or several that were joined.
struct Attended {
  float max;
  float sum;
  std::vector<float> out;
};

}  // namespace

float RoundTo(DType dtype, float value) {
  TestTensor one(dtype, 1, 1);
  one.Set(0, 0, value);
  return static_cast<float>(one.Get(0, 0));
}

float ContractLaneTree(std::span<const float> lanes) {
  std::array<float, 8> eight;
  for (size_t l = 0; l < 8; ++l) eight[l] = lanes[l] + lanes[l + 8];
  std::array<float, 4> four;
  for (size_t l = 0; l < 4; ++l) four[l] = eight[l] + eight[l + 4];
  const float even = four[0] + four[2], odd = four[1] + four[3];
  return even + odd;
}

float ContractDot(ContractOrder order, std::span<const float> x,
                  std::span<const float> w) {
  return DotOf(order, x, w, {0, static_cast<int64_t>(x.size())});
}

float ContractTree(std::span<const float> leaves) {
  if (leaves.size() == 1) return leaves[0];
  const size_t half = leaves.size() / 2;
  return ContractTree(leaves.first(half)) + ContractTree(leaves.last(half));
}

TestTensor ContractMatMul(ContractOrder order, const TestTensor& x,
                          const TestTensor& w, DType out) {
  TestTensor y(out, x.view().rows, w.view().rows);
  for (int64_t n = 0; n < w.view().rows; ++n) {
    const std::vector<float> w_row = RowOf(w, n);
    for (int64_t m = 0; m < x.view().rows; ++m) {
      y.Set(m, n, ContractDot(order, RowOf(x, m), w_row));
    }
  }
  return y;
}

TestTensor ContractMatMulLeaves(ContractOrder order, const TestTensor& x,
                                const TestTensor& w,
                                std::span<const IndexRange> leaf_columns,
                                std::span<const Subtree> subtrees) {
  const int64_t num_rows = x.view().rows;
  TestTensor y(DType::kF32, static_cast<int64_t>(subtrees.size()) * num_rows,
               w.view().rows);
  for (int64_t n = 0; n < w.view().rows; ++n) {
    const std::vector<float> w_row = RowOf(w, n);
    for (int64_t m = 0; m < num_rows; ++m) {
      const std::vector<float> x_row = RowOf(x, m);
      std::vector<float> leaves;
      for (const IndexRange& columns : leaf_columns) {
        const auto leaf_of = [&](const std::vector<float>& row) {
          return std::span(row).subspan(static_cast<size_t>(columns.begin),
                                        static_cast<size_t>(columns.size()));
        };
        leaves.push_back(ContractDot(order, leaf_of(x_row), leaf_of(w_row)));
      }
      std::span<const float> rest = leaves;
      for (size_t i = 0; i < subtrees.size(); ++i) {
        const size_t size = static_cast<size_t>(subtrees[i].num_leaves);
        y.Set(static_cast<int64_t>(i) * num_rows + m, n,
              ContractTree(rest.first(size)));
        rest = rest.subspan(size);
      }
    }
  }
  return y;
}

TestTensor ContractRmsNorm(const TestTensor& residual, const TestTensor& weight,
                           float epsilon, DType out) {
  const std::vector<float> w = RowOf(weight, 0);
  TestTensor y(out, residual.view().rows, residual.view().columns);
  for (int64_t t = 0; t < residual.view().rows; ++t) {
    const std::vector<float> x = RowOf(residual, t);
    const float squares = ContractDot(ContractOrder::kTwo, x, x);
    const float mean = squares / static_cast<float>(x.size());
    const float scale = 1.0f / std::sqrt(mean + epsilon);
    for (size_t c = 0; c < x.size(); ++c) {
      y.Set(t, static_cast<int64_t>(c), (x[c] * scale) * w[c]);
    }
  }
  return y;
}

TestTensor ContractSiluMul(const TestTensor& gate, const TestTensor& up,
                           DType out, const ContractExp& exp) {
  TestTensor y(out, gate.view().rows, gate.view().columns);
  for (int64_t r = 0; r < gate.view().rows; ++r) {
    const std::vector<float> g = RowOf(gate, r), u = RowOf(up, r);
    for (size_t c = 0; c < g.size(); ++c) {
      y.Set(r, static_cast<int64_t>(c), g[c] / (1.0f + exp(-g[c])) * u[c]);
    }
  }
  return y;
}

ContractRouting ContractRouterTopK(const TestTensor& logits, int64_t top_k,
                                   const ContractExp& exp) {
  const int64_t num_rows = logits.view().rows;
  ContractRouting routing = {TestTensor(DType::kI32, num_rows, top_k),
                             TestTensor(DType::kF32, num_rows, top_k)};
  for (int64_t t = 0; t < num_rows; ++t) {
    std::vector<float> p = RowOf(logits, t);
    const float max = *std::max_element(p.begin(), p.end());
    for (float& x : p) x = exp(x - max);
    const float total = SumInLanes(p);
    for (float& x : p) x /= total;
    std::vector<size_t> ids(p.size());
    for (size_t e = 0; e < ids.size(); ++e) ids[e] = e;
    std::stable_sort(ids.begin(), ids.end(),
                     [&](size_t a, size_t b) { return p[a] > p[b]; });
    ids.resize(static_cast<size_t>(top_k));
    std::sort(ids.begin(), ids.end());
    float chosen_total = 0;
    for (const size_t e : ids) chosen_total += p[e];
    for (size_t j = 0; j < ids.size(); ++j) {
      const int64_t column = static_cast<int64_t>(j);
      routing.ids.Set(t, column, static_cast<double>(ids[j]));
      routing.weights.Set(t, column, p[ids[j]] / chosen_total);
    }
  }
  return routing;
}

TestTensor ContractCombineExperts(const TestTensor& outputs,
                                  const ContractRouting& routing,
                                  int64_t total_experts) {
  const int64_t num_rows = routing.ids.view().rows;
  const int64_t top_k = routing.ids.view().columns;
  TestTensor sum(DType::kF32, num_rows, outputs.view().columns);
  for (int64_t t = 0; t < num_rows; ++t) {
    for (int64_t c = 0; c < outputs.view().columns; ++c) {
      std::array<float, 8> leaves = {};
      for (int64_t leaf = 0; leaf < 8; ++leaf) {
        float acc = +0.0f;
        for (int64_t j = 0; j < top_k; ++j) {  // ascending ids
          const double id = routing.ids.Get(t, j);
          if (id < static_cast<double>(leaf * total_experts / 8) ||
              id >= static_cast<double>((leaf + 1) * total_experts / 8)) {
            continue;
          }
          acc =
              std::fma(static_cast<float>(routing.weights.Get(t, j)),
                       static_cast<float>(outputs.Get(t * top_k + j, c)), acc);
        }
        leaves[static_cast<size_t>(leaf)] = acc;
      }
      sum.Set(t, c, ContractTree(leaves));
    }
  }
  return sum;
}

std::vector<float> ContractAttention::Attend(
    std::span<const float> query, const std::vector<std::vector<float>>& keys,
    const std::vector<std::vector<float>>& values, IndexRange visible) const {
  const int64_t head_dim = static_cast<int64_t>(query.size());
  std::vector<Attended> splits;
  for (int64_t start = 0; start < visible.end; start += kPositionsOfASplit) {
    const IndexRange seen = {
        std::max(visible.begin, start) - start,
        std::min(visible.end, start + kPositionsOfASplit) - start};
    if (seen.begin >= seen.end) continue;
    std::vector<float> p(static_cast<size_t>(seen.end));
    Attended split = {-std::numeric_limits<float>::infinity(), 0, {}};
    for (int64_t i = seen.begin; i < seen.end; ++i) {
      float& score = p[static_cast<size_t>(i)];
      score = ContractDot(order, query, keys[static_cast<size_t>(start + i)]) *
              scale;
      split.max = std::max(split.max, score);
    }
    for (int64_t i = seen.begin; i < seen.end; ++i) {
      float& score = p[static_cast<size_t>(i)];
      score = exp(score - split.max);
    }
    split.sum = SumInLanes(
        std::span(p).subspan(static_cast<size_t>(seen.begin)), seen.begin);
    for (float& x : p) x = RoundTo(activations, x);
    for (int64_t d = 0; d < head_dim; ++d) {
      std::vector<float> column;
      for (int64_t i = 0; i < seen.end; ++i) {
        column.push_back(
            values[static_cast<size_t>(start + i)][static_cast<size_t>(d)]);
      }
      split.out.push_back(DotOf(order, p, column, seen));
    }
    splits.push_back(split);
  }
  Attended all = splits.front();
  for (size_t i = 1; i < splits.size(); ++i) {
    const Attended& next = splits[i];
    const float max = std::max(all.max, next.max);
    const float old_scale = exp(all.max - max),
                scale_of_next = exp(next.max - max);
    for (size_t d = 0; d < all.out.size(); ++d) {
      all.out[d] = std::fma(next.out[d], scale_of_next, all.out[d] * old_scale);
    }
    all.sum = std::fma(next.sum, scale_of_next, all.sum * old_scale);
    all.max = max;
  }
  for (float& x : all.out) x = RoundTo(activations, x / all.sum);
  return all.out;
}

}  // namespace witan
