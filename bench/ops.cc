// bench_ops: the CPU kernels as fractions of this machine's limits.
//
// Read bandwidth (over 512 MB) and the peak of vdpbf16ps are measured right
// before and after each figure, in the same process, because both drift; a
// figure is divided by the mean of the two, whichever limit binds. Weights
// rotate over 512 MB so that they come from memory. Shapes: hidden 1024, FFN
// 3584, 16 query and 4 KV heads of 64, vocabulary 32000, 8 experts, top 2.
//
//   bench_ops [--json] [--threads N]... [--only TEXT]
//   bench_ops --probe [--threads N]...    the machine's limits alone, as JSON

#include <fmt/format.h>
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/limits.h"
#include "kernels/backend.h"

namespace witan {
namespace {

constexpr size_t kProbeBytes = size_t{512} << 20;
constexpr int64_t kHidden = 1024, kFfn = 3584, kHeads = 16, kKvHeads = 4,
                  kHeadDim = 64, kVocabulary = 32000, kExperts = 8, kTopK = 2;
constexpr double kMinSeconds = 0.3;

double Now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Runs body(thread) on num_threads threads at once; returns seconds.
double TimeThreads(int num_threads, const std::function<void(int)>& body) {
  const double start = Now();
  std::vector<std::thread> threads;
  for (int t = 1; t < num_threads; ++t) threads.emplace_back(body, t);
  body(0);
  for (std::thread& t : threads) t.join();
  return Now() - start;
}

uint64_t SumOf(const uint64_t* from, size_t count) {
  uint64_t sum[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8) {
    for (size_t j = 0; j < 8; ++j) sum[j] += from[i + j];
  }
  return std::accumulate(sum, sum + 8, uint64_t{0});
}

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bf16")
float RunDotProducts(int64_t count) {
  __m512 acc[16];
  for (__m512& a : acc) a = _mm512_setzero_ps();
  const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (int64_t i = 0; i < count; i += 16) {
    for (__m512& a : acc) a = _mm512_dpbf16_ps(a, x, x);
  }
  for (__m512& a : acc) acc[0] = _mm512_add_ps(acc[0], a);
  return acc[0][0];
}
#pragma GCC pop_options

struct Limits {
  double read_gb_per_s = 0;
  double dot_gflop_per_s = 0;  // 0 where the CPU has no vdpbf16ps
};

class Machine {
 public:
  Machine() : memory_(kProbeBytes / sizeof(uint64_t), 1) {}

  Limits Measure(int num_threads) {
    Limits limits;
    for (int i = 0; i < 3; ++i) {
      const double read_seconds = TimeThreads(num_threads, [&](int t) {
        const size_t each = memory_.size() / static_cast<size_t>(num_threads);
        sink_ =
            sink_ + SumOf(memory_.data() + static_cast<size_t>(t) * each, each);
      });
      limits.read_gb_per_s =
          std::max(limits.read_gb_per_s,
                   static_cast<double>(kProbeBytes) / read_seconds / 1e9);
    }
    if (__builtin_cpu_supports("avx512bf16")) {
      constexpr int64_t kDots = 64'000'000;
      const double seconds = TimeThreads(num_threads, [&](int) {
        sink_ = sink_ + static_cast<uint64_t>(RunDotProducts(kDots));
      });
      limits.dot_gflop_per_s = num_threads * kDots * 64.0 / seconds / 1e9;
    }
    return limits;
  }
  // Weights of the matrices under test.
  void* memory() { return memory_.data(); }

 private:
  std::vector<uint64_t> memory_;
  std::atomic<uint64_t> sink_ = 0;
};

struct Figure {
  std::string name;
  int num_threads;
  double us;        // median of one call
  double gb_per_s;  // of weights (or cache) read
  double gflop_per_s;
  Limits limits;
  double fraction;  // of the limit that binds
  bool compute_binds;
  double bar;  // required fraction; 0: none
};

class OpsBench {
 public:
  OpsBench(int num_threads, Machine& machine)
      : num_threads_(num_threads), machine_(machine) {
    CpuOptions options;
    options.num_threads = num_threads;
    auto backend = MakeCpuBackend(options);
    WITAN_CHECK(backend.ok(), "no CPU backend");
    backend_ = std::move(*backend);
    FillWeights();
  }

  std::vector<Figure> RunAll(const std::string& only) {
    only_ = only;
    for (const int64_t m : {1, 2, 4, 8, 32, 512}) {
      const double bar =
          m == 1 || m == 512 ? 0.75 : (m == 8 || m == 32 ? 0.5 : 0);
      Dense("qkv", m, (kHeads + 2 * kKvHeads) * kHeadDim, kHidden, 0, bar);
      Dense("attention out, 8 leaves", m, kHidden, kHidden, kHeadDim * 2,
            m == 512 ? 0 : bar);
      Dense("ffn up", m, kFfn, kHidden, 0, bar);
      Dense("ffn down, 8 leaves", m, kHidden, kFfn, kFfn / 8, bar);
      if (m <= 32) Dense("logits", m, kVocabulary, kHidden, 0, bar);
      Grouped("experts up", m, kFfn, kHidden, m == 512 ? 0.65 : bar);
      Grouped("experts down", m, kHidden, kFfn, m == 512 ? 0.65 : bar);
    }
    Attention("attention prefill 512", {{0, 512}});
    Attention("attention decode 1 at 2048", {{2047, 1}});
    Attention("attention decode 32 at 512",
              std::vector<Chunk>(32, Chunk{511, 1}));
    RowOps();
    return figures_;
  }

 private:
  struct Chunk {
    int32_t first_position;
    int32_t num_rows;
  };

  void FillWeights() {
    auto* bits = static_cast<uint32_t*>(machine_.memory());
    uint32_t state = 1;
    for (size_t i = 0; i < kProbeBytes / 4; ++i) {
      state = state * 1664525 + 1013904223;
      // Two bf16 of magnitude 1 to 2, of either sign.
      bits[i] = (state & 0x807f807f) | 0x3f803f80;
    }
  }

  Buffer Memory(size_t bytes) {
    auto buffer = backend_->Allocate(bytes);
    WITAN_CHECK(buffer.ok(), "no memory");
    std::memset(buffer->data(), 0, bytes);
    return std::move(*buffer);
  }

  // The next matrix in the rotation.
  ConstTensorView NextWeights(int64_t rows, int64_t columns) {
    const size_t bytes = static_cast<size_t>(rows * columns) * 2;
    if (next_weights_ + bytes > kProbeBytes) next_weights_ = 0;
    const char* at = static_cast<char*>(machine_.memory()) + next_weights_;
    next_weights_ += bytes;
    return ConstTensorView(at, DType::kBF16, rows, columns);
  }

  // Measures `call`, which reads `bytes` of memory and does `flops`.
  void Record(const std::string& name, double bytes, double flops, double bar,
              const std::function<void()>& call) {
    if (name.find(only_) == std::string::npos) return;
    call();
    const Limits before = machine_.Measure(num_threads_);
    call();
    std::vector<double> seconds;
    for (const double start = Now();
         Now() - start < kMinSeconds || seconds.size() < 5;) {
      const double call_start = Now();
      call();
      seconds.push_back(Now() - call_start);
    }
    const Limits after = machine_.Measure(num_threads_);
    std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2,
                     seconds.end());
    const double median = seconds[seconds.size() / 2];
    Figure f;
    f.name = name;
    f.num_threads = num_threads_;
    f.us = median * 1e6;
    f.gb_per_s = bytes / median / 1e9;
    f.gflop_per_s = flops / median / 1e9;
    f.limits = {(before.read_gb_per_s + after.read_gb_per_s) / 2,
                (before.dot_gflop_per_s + after.dot_gflop_per_s) / 2};
    const double of_reading = f.gb_per_s / f.limits.read_gb_per_s;
    const double of_dots = f.limits.dot_gflop_per_s > 0
                               ? f.gflop_per_s / f.limits.dot_gflop_per_s
                               : 0;
    f.compute_binds = of_dots > of_reading;
    f.fraction = std::max(of_reading, of_dots);
    f.bar = bar;
    figures_.push_back(f);
  }

  void Dense(const std::string& name, int64_t m, int64_t n, int64_t k,
             int64_t leaf_columns, double bar) {
    const Buffer x = Memory(static_cast<size_t>(m * k) * 2);
    const Buffer y = Memory(static_cast<size_t>(m * n) * 4);
    FillActivations(x, m * k);
    std::vector<IndexRange> leaves;
    for (int leaf = 0; leaf < kNumLeaves; ++leaf) {
      leaves.push_back({leaf * leaf_columns, (leaf + 1) * leaf_columns});
    }
    const std::vector<Subtree> all = {{0, kNumLeaves}};
    Record(fmt::format("{} [{} x {}] {}", name, n, k, m),
           static_cast<double>(n * k * 2), static_cast<double>(2 * m * n * k),
           bar, [&] {
             const TensorView x_view = x.View(DType::kBF16, m, k);
             const TensorView y_view = y.View(DType::kF32, m, n);
             if (leaf_columns == 0) {
               backend_->MatMul(x_view, NextWeights(n, k), y_view);
             } else {
               backend_->MatMulLeaves(x_view, NextWeights(n, k), leaves, all,
                                      y_view);
             }
           });
  }

  // m tokens choose two of eight experts at random.
  void Grouped(const std::string& name, int64_t m, int64_t n, int64_t k,
               double bar) {
    const int64_t r = m * kTopK;
    std::mt19937 random(static_cast<uint32_t>(m));
    std::vector<int32_t> ids;
    for (int64_t t = 0; t < m; ++t) {
      const int32_t a = static_cast<int32_t>(random() % kExperts);
      const int32_t b = static_cast<int32_t>(
          (static_cast<uint32_t>(a) + 1 + random() % (kExperts - 1)) %
          kExperts);
      ids.push_back(std::min(a, b));
      ids.push_back(std::max(a, b));
    }
    std::vector<int32_t> offsets(kExperts + 1), sources(static_cast<size_t>(r)),
        slots(static_cast<size_t>(r));
    ExpertRows rows = {0, kExperts, offsets.data(), sources.data(),
                       slots.data()};
    backend_->GroupByExpert(ConstTensorView(ids.data(), DType::kI32, m, kTopK),
                            rows);
    int64_t num_used = 0;
    for (int64_t e = 0; e < kExperts; ++e) {
      num_used +=
          offsets[static_cast<size_t>(e) + 1] > offsets[static_cast<size_t>(e)];
    }
    const Buffer x = Memory(static_cast<size_t>(r * k) * 2);
    const Buffer y = Memory(static_cast<size_t>(r * n) * 4);
    FillActivations(x, r * k);
    Record(fmt::format("{} [{} x {}] {}", name, n, k, m),
           static_cast<double>(num_used * n * k * 2),
           static_cast<double>(2 * r * n * k), bar, [&] {
             std::vector<ConstTensorView> w;
             for (int64_t e = 0; e < kExperts; ++e) {
               w.push_back(NextWeights(n, k));
             }
             backend_->GroupedMatMul(x.View(DType::kBF16, r, k), false, rows, w,
                                     y.View(DType::kF32, r, n));
           });
  }

  void Attention(const std::string& name, const std::vector<Chunk>& chunks) {
    std::vector<int32_t> row_begin = {0}, first, block_ids;
    int64_t stride = 0;
    double flops = 0, bytes = 0;
    for (const Chunk& c : chunks) {
      const int64_t end = c.first_position + c.num_rows;
      stride = std::max(stride, (end + kBlockTokens - 1) / kBlockTokens);
      row_begin.push_back(row_begin.back() + c.num_rows);
      first.push_back(c.first_position);
      for (int64_t p = c.first_position; p < end; ++p) {
        flops += static_cast<double>(4 * kHeads * kHeadDim * (p + 1));
      }
      bytes += static_cast<double>(2 * end * kKvHeads * kHeadDim * 2);
    }
    const int64_t num_blocks = stride * static_cast<int64_t>(chunks.size());
    block_ids.resize(static_cast<size_t>(num_blocks));
    std::iota(block_ids.begin(), block_ids.end(), 0);
    const size_t kv_bytes =
        backend_->KvBytes(num_blocks, kKvHeads, kHeadDim, DType::kBF16);
    const Buffer kv = Memory(kv_bytes);
    FillActivations(kv, static_cast<int64_t>(kv_bytes / 2));
    const KvLayer cache = {kv.data(), num_blocks, kKvHeads, kHeadDim,
                           DType::kBF16};
    const int64_t t = row_begin.back();
    const Buffer q = Memory(static_cast<size_t>(t * kHeads * kHeadDim) * 2);
    const Buffer out = Memory(static_cast<size_t>(t * kHeads * kHeadDim) * 2);
    FillActivations(q, t * kHeads * kHeadDim);
    std::vector<int32_t> kv_head_of;
    for (int32_t n = 0; n < kHeads; ++n) {
      kv_head_of.push_back(n / static_cast<int32_t>(kHeads / kKvHeads));
    }
    const AttentionBatch batch = {row_begin, first, block_ids, stride};
    Record(name, bytes, flops, 0, [&] {
      backend_->PagedAttention(q.View(DType::kBF16, t, kHeads * kHeadDim),
                               cache, batch, kv_head_of, 0.125f, 0,
                               out.View(DType::kBF16, t, kHeads * kHeadDim));
    });
  }

  void RowOps() {
    constexpr int64_t kRows = 512;
    const Buffer residual = Memory(kRows * kFfn * 4);
    const Buffer other = Memory(kRows * kFfn * 4);
    const Buffer out = Memory(kRows * kFfn * 4);
    const Buffer weight = Memory(kHidden * 4);
    Record("norm 512", kRows * kHidden * 8.0, 0, 0, [&] {
      backend_->AddNorm(residual.View(DType::kF32, kRows, kHidden),
                        other.View(DType::kBF16, kRows, kHidden), {},
                        {weight.View(DType::kBF16, 1, kHidden), {}, 1e-5f},
                        out.View(DType::kBF16, kRows, kHidden));
    });
    Record("silu 512", kRows * kFfn * 8.0, 0, 0, [&] {
      backend_->SiluMul(residual.View(DType::kF32, kRows, kFfn),
                        other.View(DType::kF32, kRows, kFfn), nullptr,
                        out.View(DType::kBF16, kRows, kFfn));
    });
    SamplingParams plain, nucleus;
    nucleus.top_p = 0.9f;
    const Buffer logits = Memory(32 * kVocabulary * 4);
    FillNormal(logits, 32 * kVocabulary);
    for (const SamplingParams* p : {&plain, &nucleus}) {
      const std::vector<SampleRow> rows(32, SampleRow{p, 0, 1, {}, {}});
      std::vector<SampledToken> tokens(32);
      Record(p->top_p < 1 ? "sample top_p 32" : "sample 32",
             32.0 * kVocabulary * 4, 0, 0, [&] {
               backend_->Sample(logits.View(DType::kF32, 32, kVocabulary), rows,
                                tokens);
             });
    }
  }

  static void FillActivations(const Buffer& buffer, int64_t count) {
    auto* bits = static_cast<uint16_t*>(buffer.data());
    uint32_t state = 7;
    for (int64_t i = 0; i < count; ++i) {
      state = state * 1664525 + 1013904223;
      bits[i] = static_cast<uint16_t>(((state >> 16) & 0x807f) | 0x3f00);
    }
  }
  static void FillNormal(const Buffer& buffer, int64_t count) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 3);
    auto* to = static_cast<float*>(buffer.data());
    for (int64_t i = 0; i < count; ++i) to[i] = normal(random);
  }

  const int num_threads_;
  Machine& machine_;
  std::unique_ptr<Backend> backend_;
  std::string only_;
  size_t next_weights_ = 0;
  std::vector<Figure> figures_;
};

void Print(const Figure& f, bool json) {
  if (json) {
    fmt::print(
        "{{\"op\": \"{}\", \"threads\": {}, \"us\": {:.2f}, \"gb_per_s\": "
        "{:.2f}, \"gflop_per_s\": {:.2f}, \"read_limit_gb_per_s\": {:.2f}, "
        "\"dot_limit_gflop_per_s\": {:.2f}, \"fraction\": {:.3f}, \"limit\": "
        "\"{}\", \"bar\": {:.2f}}}\n",
        f.name, f.num_threads, f.us, f.gb_per_s, f.gflop_per_s,
        f.limits.read_gb_per_s, f.limits.dot_gflop_per_s, f.fraction,
        f.compute_binds ? "dot" : "read", f.bar);
    return;
  }
  fmt::print(
      "{:<36} {:>2} {:>10.1f} {:>8.1f} {:>8.1f}   {:>6.1f} {:>6.0f}   "
      "{:.2f} of {:<4} {}\n",
      f.name, f.num_threads, f.us, f.gb_per_s, f.gflop_per_s,
      f.limits.read_gb_per_s, f.limits.dot_gflop_per_s, f.fraction,
      f.compute_binds ? "dot" : "read",
      f.bar == 0            ? ""
      : f.fraction >= f.bar ? fmt::format("(bar {:.2f})", f.bar)
                            : fmt::format("(bar {:.2f} MISSED)", f.bar));
}

struct Options {
  bool json = false;
  bool probe = false;
  std::string only;
  std::vector<int> thread_counts;
};

// False: the command line makes no sense, and the reason has been printed.
bool ParseOptions(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--json") {
      options.json = true;
    } else if (flag == "--probe") {
      options.probe = true;
    } else if (flag == "--threads" && i + 1 < argc) {
      options.thread_counts.push_back(std::atoi(argv[++i]));
    } else if (flag == "--only" && i + 1 < argc) {
      options.only = argv[++i];
    } else {
      fmt::print(
          stderr,
          "usage: {} [--json | --probe] [--threads N]... [--only TEXT]\n",
          argv[0]);
      return false;
    }
  }
  for (const int num_threads : options.thread_counts) {
    if (num_threads < 1 || num_threads > kMaxThreadsPerRank) {
      fmt::print(stderr, "--threads {}: use 1 to {}\n", num_threads,
                 kMaxThreadsPerRank);
      return false;
    }
  }
  if (options.thread_counts.empty()) options.thread_counts = {1, 2};
  return true;
}

void Probe(Machine& machine, int num_threads) {
  const Limits limits = machine.Measure(num_threads);
  fmt::print(
      "{{\"threads\": {}, \"read_limit_gb_per_s\": {:.2f}, "
      "\"dot_limit_gflop_per_s\": {:.2f}}}\n",
      num_threads, limits.read_gb_per_s, limits.dot_gflop_per_s);
}

int Main(int argc, char** argv) {
  Options options;
  if (!ParseOptions(argc, argv, options)) return 2;
  Machine machine;
  if (!options.json && !options.probe) {
    fmt::print("{:<36} {:>2} {:>10} {:>8} {:>8}   {:>6} {:>6}   {}\n", "op",
               "th", "us", "GB/s", "GFLOP/s", "read", "dot", "fraction");
  }
  for (const int num_threads : options.thread_counts) {
    if (options.probe) {
      Probe(machine, num_threads);
      continue;
    }
    OpsBench bench(num_threads, machine);
    for (const Figure& f : bench.RunAll(options.only)) Print(f, options.json);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace witan

int main(int argc, char** argv) { return witan::Main(argc, argv); }
