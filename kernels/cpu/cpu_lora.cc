// What low-rank adapters add, and how leaves are joined behind them.

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "kernels/cpu/cpu_backend.h"

namespace witan {
namespace {

constexpr Subtree kOneLeaf = {0, 1};

}  // namespace

void CpuBackend::AddLora(ConstTensorView x, AdapterOfRow adapter_of_row,
                         std::span<const LoraFactors> adapters, TensorView y) {
  WITAN_CHECK(static_cast<int64_t>(adapter_of_row.size()) == x.rows &&
                  y.rows == x.rows && y.dtype == DType::kF32,
              "{} adapters of rows, x has {} rows and y has {}",
              adapter_of_row.size(), x.rows, y.rows);
  if (adapters.empty()) return;
  std::vector<LoraGroup> groups(adapters.size());
  for (size_t a = 0; a < adapters.size(); ++a) {
    groups[a].factors = &adapters[a];
  }
  for (size_t t = 0; t < adapter_of_row.size(); ++t) {
    if (adapter_of_row[t] < 0) continue;
    LoraGroup& group = groups[static_cast<size_t>(adapter_of_row[t])];
    group.x_rows.push_back(static_cast<int32_t>(t));
    group.y_rows.push_back(static_cast<int32_t>(t));
  }
  AddLoraGroups(x, groups, y);
}

void CpuBackend::AddGroupedLora(ConstTensorView x, bool gather,
                                const ExpertRows& rows,
                                AdapterOfRow adapter_of_row,
                                int64_t num_adapters,
                                std::span<const LoraFactors> factors,
                                TensorView y) {
  WITAN_CHECK(
      static_cast<int64_t>(factors.size()) == rows.num_experts * num_adapters &&
          y.dtype == DType::kF32,
      "{} factors of {} experts and {} adapters", factors.size(),
      rows.num_experts, num_adapters);
  std::vector<LoraGroup> groups(factors.size());
  for (size_t i = 0; i < factors.size(); ++i) groups[i].factors = &factors[i];
  for (int64_t e = 0; e < rows.num_experts; ++e) {
    for (int32_t r = rows.offsets[e]; r < rows.offsets[e + 1]; ++r) {
      const int32_t source = rows.source_rows[r];
      const int32_t adapter = adapter_of_row[static_cast<size_t>(source)];
      if (adapter < 0) continue;
      LoraGroup& group =
          groups[static_cast<size_t>(e * num_adapters + adapter)];
      group.x_rows.push_back(gather ? source : r);
      group.y_rows.push_back(r);
    }
  }
  AddLoraGroups(x, groups, y);
}

void CpuBackend::AddLoraGroups(ConstTensorView x,
                               std::span<const LoraGroup> groups,
                               TensorView y) {
  std::vector<const LoraGroup*> used;
  int64_t num_inner = 0;
  int64_t num_rows = 0;
  for (const LoraGroup& group : groups) {
    if (group.x_rows.empty() || group.factors->a.empty()) continue;
    WITAN_CHECK(group.factors->b.columns == group.factors->a.rows,
                "a has {} rows, b has {} columns", group.factors->a.rows,
                group.factors->b.columns);
    used.push_back(&group);
    const int64_t size = static_cast<int64_t>(group.x_rows.size());
    num_rows += size;
    num_inner += size * group.factors->a.rows;
  }
  if (used.empty()) return;
  ScopedFloatingPointMode mode;
  // The products with a of all groups, then those with b.
  auto* product = static_cast<float*>(lora_.Reserve(
      static_cast<size_t>(num_rows * y.columns + num_inner) * sizeof(float)));
  char* inner = reinterpret_cast<char*>(product + num_rows * y.columns);
  std::vector<IndexRange> columns(2 * used.size());
  std::vector<std::vector<PackedLeaf>> leaves(2 * used.size());
  std::vector<MatMulJob> inner_jobs, outer_jobs;
  std::vector<JobRows> inner_rows, outer_rows;
  int64_t first_row = 0;
  for (size_t i = 0; i < used.size(); ++i) {
    const LoraGroup& group = *used[i];
    const int64_t size = static_cast<int64_t>(group.x_rows.size());
    const int64_t rank = group.factors->a.rows;
    const TensorView inner_view(inner, x.dtype, size, rank);
    inner += static_cast<size_t>(size * rank) * SizeOf(x.dtype);
    columns[2 * i] = {0, x.columns};
    inner_jobs.push_back(MakeJob(x, size, group.factors->a,
                                 {&columns[2 * i], 1}, {&kOneLeaf, 1},
                                 inner_view, leaves[2 * i]));
    inner_rows.push_back({x, group.x_rows.data()});
    columns[2 * i + 1] = {0, rank};
    const TensorView product_view(product + first_row * y.columns, DType::kF32,
                                  size, y.columns);
    outer_jobs.push_back(MakeJob(inner_view, size, group.factors->b,
                                 {&columns[2 * i + 1], 1}, {&kOneLeaf, 1},
                                 product_view, leaves[2 * i + 1]));
    outer_rows.push_back({inner_view, nullptr});
    first_row += size;
  }
  RunJobs(inner_jobs, inner_rows);
  RunJobs(outer_jobs, outer_rows);
  const float* from = product;
  for (const LoraGroup* group : used) {
    const int64_t size = static_cast<int64_t>(group->y_rows.size());
    ForRows(size, y.columns, [&](IndexRange range) {
      for (int64_t i = range.begin; i < range.end; ++i) {
        kernels_.add_scaled(
            from + i * y.columns, group->factors->scale, y.columns,
            y.Row<float>(group->y_rows[static_cast<size_t>(i)]));
      }
    });
    from += size * y.columns;
  }
}

void CpuBackend::JoinLeaves(ConstTensorView leaves,
                            std::span<const Subtree> subtrees,
                            TensorView partials) {
  if (subtrees.empty()) return;
  int64_t num_leaves = 0;
  for (const Subtree& subtree : subtrees) num_leaves += subtree.num_leaves;
  const int64_t num_rows =
      partials.rows / static_cast<int64_t>(subtrees.size());
  WITAN_CHECK(
      leaves.rows == num_leaves * num_rows &&
          partials.rows == num_rows * static_cast<int64_t>(subtrees.size()) &&
          leaves.columns == partials.columns,
      "{} rows of {} leaves for {} rows of {} subtrees", leaves.rows,
      num_leaves, partials.rows, subtrees.size());
  ScopedFloatingPointMode mode;
  ForRows(num_rows, num_leaves * leaves.columns, [&](IndexRange rows) {
    kernels_.join_leaves(leaves, subtrees, partials, rows);
  });
}

void CpuBackend::Round(ConstTensorView x, const int32_t* num_rows,
                       TensorView out) {
  WITAN_CHECK(
      x.rows == out.rows && x.columns == out.columns && *num_rows <= out.rows,
      "{} rows in use, x is [{}, {}], out is [{}, {}]", *num_rows, x.rows,
      x.columns, out.rows, out.columns);
  ScopedFloatingPointMode mode;
  ForRows(*num_rows, out.columns,
          [&](IndexRange rows) { kernels_.round(x, out, rows); });
}

}  // namespace witan
