#include "kernels/cpu/cpu_backend.h"

#include <cpuid.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

constexpr size_t kAlignmentBytes = 64;
// Below this many elements an op is not worth waking a thread for.
constexpr int64_t kMinParallelElements = 1 << 14;

void CheckShape(const ConstTensorView& view, int64_t rows, int64_t columns,
                const char* name) {
  WITAN_CHECK(view.rows == rows && view.columns == columns,
              "{} is [{}, {}], not [{}, {}]", name, view.rows, view.columns,
              rows, columns);
}

// Not by __builtin_cpu_supports, whose words for it differ between compilers.
// Says nothing about the operating system; where AVX2 may be used, this may.
bool HasF16c() {
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

}  // namespace

void* CpuBackend::Workspace::Reserve(size_t bytes) {
  if (bytes > capacity_bytes_) {
    // No more than that: the plan of a rank's memory counts it. The largest
    // step so far decides, so that it seldom grows.
    capacity_bytes_ = bytes;
    memory_.reset();
    memory_.reset(
        ::operator new (capacity_bytes_, std::align_val_t{kAlignmentBytes}));
  }
  return memory_.get();
}

void CpuBackend::Workspace::Free::operator()(void* memory) const {
  ::operator delete (memory, std::align_val_t{kAlignmentBytes});
}

CpuBackend::CpuBackend(const CpuKernels& kernels, bool order_one,
                       std::unique_ptr<ThreadPool> pool)
    : kernels_(kernels),
      order_one_(order_one),
      pool_(std::move(pool)),
      thread_scratch_(static_cast<size_t>(pool_->num_threads())),
      samplers_(static_cast<size_t>(pool_->num_threads()), Sampler(kernels)) {}

void* CpuBackend::ThreadScratch(int thread, size_t bytes) {
  return thread_scratch_[static_cast<size_t>(thread)].Reserve(bytes);
}

void CpuBackend::ForRows(int64_t num_rows, int64_t columns,
                         const std::function<void(IndexRange)>& body) {
  if (num_rows == 0) return;
  if (pool_->num_threads() == 1 || num_rows * columns < kMinParallelElements) {
    body({0, num_rows});
    return;
  }
  const int64_t num_pieces =
      std::min<int64_t>(num_rows, 4 * pool_->num_threads());
  pool_->ForEach(num_pieces, [&](int64_t i, int) {
    body({i * num_rows / num_pieces, (i + 1) * num_rows / num_pieces});
  });
}

absl::StatusOr<Buffer> CpuBackend::Allocate(size_t bytes) {
  if (bytes == 0) return Buffer();
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return ResourceExhausted("cannot allocate {} bytes of memory", bytes);
  }
  return Buffer(memory, bytes, [bytes](void* data) { ::munmap(data, bytes); });
}

void CpuBackend::Embed(std::span<const TokenId> token_ids,
                       ConstTensorView table, TensorView out) {
  CheckShape(out, static_cast<int64_t>(token_ids.size()), table.columns, "out");
  ScopedFloatingPointMode mode;
  ForRows(out.rows, out.columns, [&](IndexRange rows) {
    kernels_.embed(token_ids, table, out, rows);
  });
}

void CpuBackend::AddNorm(TensorView residual, ConstTensorView delta,
                         ConstTensorView delta_bias, const Norm& norm,
                         TensorView out) {
  if (!delta.empty())
    CheckShape(delta, residual.rows, residual.columns, "delta");
  if (!delta_bias.empty())
    CheckShape(delta_bias, 1, residual.columns, "delta_bias");
  if (!out.empty()) {
    CheckShape(out, residual.rows, residual.columns, "out");
    CheckShape(norm.weight, 1, residual.columns, "weight");
    if (!norm.bias.empty()) CheckShape(norm.bias, 1, residual.columns, "bias");
    WITAN_CHECK(norm.bias.empty() || norm.bias.dtype == norm.weight.dtype,
                "weight is {}, bias {}", NameOf(norm.weight.dtype),
                NameOf(norm.bias.dtype));
  }
  ScopedFloatingPointMode mode;
  ForRows(residual.rows, residual.columns, [&](IndexRange rows) {
    kernels_.add_norm(residual, delta, delta_bias, norm, out, rows);
  });
}

void CpuBackend::AddBias(TensorView y, ConstTensorView bias) {
  CheckShape(bias, 1, y.columns, "bias");
  ScopedFloatingPointMode mode;
  ForRows(y.rows, y.columns,
          [&](IndexRange rows) { kernels_.add_bias(y, bias, rows); });
}

void CpuBackend::TreeSum(std::span<const Partial> partials, int64_t n,
                         TensorView out) {
  WITAN_CHECK(out.rows * out.columns == n &&
                  (out.rows <= 1 || out.row_stride == out.columns),
              "out is not {} contiguous elements", n);
  // Small sums are latency: no allocation, and mostly nothing to sort.
  WITAN_CHECK(partials.size() <= kNumLeaves, "{} partial sums for {} leaves",
              partials.size(), kNumLeaves);
  Partial sorted[kNumLeaves];
  const std::span<Partial> ascending(sorted, partials.size());
  std::copy(partials.begin(), partials.end(), sorted);
  const auto by_first_leaf = [](const Partial& a, const Partial& b) {
    return a.subtree.first_leaf < b.subtree.first_leaf;
  };
  if (!std::is_sorted(ascending.begin(), ascending.end(), by_first_leaf)) {
    std::sort(ascending.begin(), ascending.end(), by_first_leaf);
  }
  int next_leaf = 0;
  for (const Partial& p : ascending) {
    WITAN_CHECK(p.subtree.first_leaf == next_leaf,
                "the subtrees do not tile the leaves at leaf {}", next_leaf);
    next_leaf += p.subtree.num_leaves;
  }
  WITAN_CHECK(next_leaf == kNumLeaves, "the subtrees cover {} leaves",
              next_leaf);
  ScopedFloatingPointMode mode;
  ForRows((n + 1023) / 1024, 1024, [&](IndexRange thousands) {
    kernels_.tree_sum(
        ascending, out,
        {thousands.begin * 1024, std::min(n, thousands.end * 1024)});
  });
}

void CpuBackend::SiluMul(ConstTensorView gate, ConstTensorView up,
                         const int32_t* num_rows, TensorView out) {
  CheckShape(gate, out.rows, out.columns, "gate");
  CheckShape(up, out.rows, out.columns, "up");
  const int64_t num_used = num_rows == nullptr ? out.rows : *num_rows;
  WITAN_CHECK(num_used <= out.rows, "{} rows in use of {}", num_used, out.rows);
  ScopedFloatingPointMode mode;
  ForRows(num_used, out.columns,
          [&](IndexRange range) { kernels_.silu_mul(gate, up, out, range); });
}

void CpuBackend::RouterTopK(ConstTensorView logits, const RoutingRule& rule,
                            int top_k, TensorView expert_ids,
                            TensorView weights) {
  WITAN_CHECK(rule.kind != RoutingKind::kSparseMixer || top_k == 2,
              "the sparse mixer chooses 2 experts, not {}", top_k);
  WITAN_CHECK(top_k >= 1 && top_k <= logits.columns, "top {} of {} experts",
              top_k, logits.columns);
  CheckShape(expert_ids, logits.rows, top_k, "expert_ids");
  CheckShape(weights, logits.rows, top_k, "weights");
  ScopedFloatingPointMode mode;
  ForRows(logits.rows, logits.columns, [&](IndexRange rows) {
    kernels_.router_top_k(logits, rule, top_k, expert_ids, weights, rows);
  });
}

void CpuBackend::GroupByExpert(ConstTensorView expert_ids, ExpertRows& rows) {
  const int64_t top_k = expert_ids.columns;
  std::vector<int32_t> next(static_cast<size_t>(rows.num_experts) + 1, 0);
  const auto local_expert = [&](int64_t t, int64_t j) -> int64_t {
    const int64_t e = expert_ids.Row<int32_t>(t)[j] - rows.first_expert;
    return e >= 0 && e < rows.num_experts ? e : -1;
  };
  for (int64_t t = 0; t < expert_ids.rows; ++t) {
    for (int64_t j = 0; j < top_k; ++j) {
      const int64_t e = local_expert(t, j);
      if (e >= 0) ++next[static_cast<size_t>(e) + 1];
    }
  }
  for (size_t e = 1; e < next.size(); ++e) next[e] += next[e - 1];
  std::copy(next.begin(), next.end(), rows.offsets);
  for (int64_t t = 0; t < expert_ids.rows; ++t) {
    for (int64_t j = 0; j < top_k; ++j) {
      const int64_t e = local_expert(t, j);
      int32_t slot = -1;
      if (e >= 0) {
        slot = next[static_cast<size_t>(e)]++;
        rows.source_rows[slot] = static_cast<int32_t>(t);
      }
      rows.slot_of_choice[t * top_k + j] = slot;
    }
  }
}

void CpuBackend::CombineExperts(ConstTensorView y, const ExpertRows& rows,
                                ConstTensorView expert_ids,
                                ConstTensorView weights, int64_t total_experts,
                                std::span<const Subtree> subtrees,
                                TensorView partials) {
  CheckShape(weights, expert_ids.rows, expert_ids.columns, "weights");
  CheckShape(partials, static_cast<int64_t>(subtrees.size()) * expert_ids.rows,
             y.columns, "partials");
  ScopedFloatingPointMode mode;
  ForRows(expert_ids.rows, y.columns, [&](IndexRange range) {
    kernels_.combine_experts(y, rows, expert_ids, weights, total_experts,
                             subtrees, partials, range);
  });
}

void CpuBackend::GatherRows(ConstTensorView x, std::span<const int32_t> row_ids,
                            TensorView out) {
  CheckShape(out, static_cast<int64_t>(row_ids.size()), x.columns, "out");
  WITAN_CHECK(out.dtype == x.dtype, "out is {}, x is {}", NameOf(out.dtype),
              NameOf(x.dtype));
  const size_t row_bytes = static_cast<size_t>(x.columns) * SizeOf(x.dtype);
  for (size_t i = 0; i < row_ids.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i);
    std::memcpy(out.Rows(row, row + 1).data,
                x.Rows(row_ids[i], row_ids[i] + 1).data, row_bytes);
  }
}

void CpuBackend::Sample(ConstTensorView logits, std::span<const SampleRow> rows,
                        std::span<SampledToken> tokens) {
  WITAN_CHECK(rows.size() == tokens.size() &&
                  static_cast<int64_t>(rows.size()) == logits.rows,
              "{} rows and {} tokens for {} rows of logits", rows.size(),
              tokens.size(), logits.rows);
  ScopedFloatingPointMode mode;
  pool_->ForEach(logits.rows, [&](int64_t i, int thread) {
    const size_t row = static_cast<size_t>(i);
    tokens[row] = samplers_[static_cast<size_t>(thread)].Sample(
        {logits.Row<float>(i), static_cast<size_t>(logits.columns)}, rows[row]);
  });
}

size_t CpuBackend::KvBytes(int64_t num_blocks, int64_t num_kv_heads,
                           int64_t head_dim, DType dtype) const {
  return static_cast<size_t>(
      CpuKvBytes(num_blocks, num_kv_heads, head_dim, dtype));
}

int64_t CpuBackend::workspace_bytes() const {
  size_t bytes = packed_x_.capacity_bytes() + lora_.capacity_bytes();
  for (const Workspace& scratch : thread_scratch_) {
    bytes += scratch.capacity_bytes();
  }
  for (const Sampler& sampler : samplers_) bytes += sampler.capacity_bytes();
  return static_cast<int64_t>(bytes);
}

absl::StatusOr<CpuPath> ParseCpuPath(const std::string& name) {
  if (name == "auto") return CpuPath::kAuto;
  if (name == "avx512bf16") return CpuPath::kAvx512Bf16;
  if (name == "avx2") return CpuPath::kAvx2;
  if (name == "portable") return CpuPath::kPortable;
  return InvalidArgument(
      "unknown CPU path '{}'; use auto, avx512bf16, avx2 or portable", name);
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(
    const CpuOptions& options) {
  if (options.num_threads < 1 || options.num_threads > kMaxThreadsPerRank) {
    return InvalidArgument("{} threads per rank; use 1 to {}",
                           options.num_threads, kMaxThreadsPerRank);
  }
  const bool has_avx2 = __builtin_cpu_supports("avx2") &&
                        __builtin_cpu_supports("fma") && HasF16c();
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bf16");
  CpuPath path = options.path;
  if (path == CpuPath::kAuto) {
    path = has_avx512 ? CpuPath::kAvx512Bf16
                      : (has_avx2 ? CpuPath::kAvx2 : CpuPath::kPortable);
  }
  if (path == CpuPath::kAvx512Bf16 && !has_avx512) {
    return FailedPrecondition(
        "this CPU lacks AVX-512 BF16, which the CPU path avx512bf16 needs; use "
        "{}",
        has_avx2 ? "avx2" : "portable");
  }
  if (path == CpuPath::kAvx2 && !has_avx2) {
    return FailedPrecondition(
        "this CPU lacks AVX2, FMA or F16C, which the CPU path avx2 needs; use "
        "portable");
  }
  const CpuKernels& kernels = path == CpuPath::kAvx512Bf16 ? Avx512Kernels()
                              : path == CpuPath::kAvx2     ? Avx2Kernels()
                                                           : PortableKernels();
  ASSIGN_OR_RETURN(std::unique_ptr<ThreadPool> pool,
                   ThreadPool::Create(options.num_threads));
  return std::make_unique<CpuBackend>(
      kernels, kernels.has_bf16_dot && options.weights == DType::kBF16,
      std::move(pool));
}

}  // namespace witan
