// Matrix products of the CPU backend: packing of x and the cut into pieces.

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "kernels/cpu/cpu_backend.h"

namespace witan {
namespace {

// A multiple of every panel width but the rare ones.
constexpr int64_t kColumnGrain = 48;
constexpr int64_t kMaxPieceColumns = 384;
// Pieces per thread that even out what the threads get, and what their cores
// lose to others.
constexpr int64_t kPiecesPerThread = 16;

int64_t RoundUp(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

int64_t NumTiles(const MatMulJob& job) {
  return (job.rows + job.tile_rows - 1) / job.tile_rows;
}

int64_t TileBytes(const MatMulJob& job) {
  const PackedLeaf& last = job.leaves.back();
  return (last.first_step + last.num_steps) * job.tile_rows * kPackedStepBytes;
}

struct JobPiece {
  const MatMulJob* job;
  MatMulPiece piece;
};

int64_t PieceRows(const MatMulJob& job) {
  return kMaxPieceRows / job.tile_rows * job.tile_rows;
}

// Cuts all jobs into pieces: columns outside, rows inside, so that pieces that
// run one after the other read the same w.
std::vector<JobPiece> CutIntoPieces(std::span<const MatMulJob> jobs,
                                    int num_threads) {
  int64_t total_columns = 0;  // counted once for each block of rows
  for (const MatMulJob& job : jobs) {
    total_columns +=
        RoundUp(job.rows, PieceRows(job)) / PieceRows(job) * job.w.rows;
  }
  const int64_t even_columns = RoundUp(
      total_columns / (kPiecesPerThread * num_threads) + 1, kColumnGrain);
  std::vector<JobPiece> pieces;
  for (const MatMulJob& job : jobs) {
    int64_t columns = num_threads == 1 ? job.w.rows : even_columns;
    if (job.rows > job.tile_rows) columns = std::min(columns, kMaxPieceColumns);
    for (int64_t n = 0; n < job.w.rows; n += columns) {
      for (int64_t m = 0; m < job.rows; m += PieceRows(job)) {
        pieces.push_back({&job,
                          {{m, std::min(m + PieceRows(job), job.rows)},
                           {n, std::min(n + columns, job.w.rows)}}});
      }
    }
  }
  return pieces;
}

}  // namespace

MatMulJob CpuBackend::MakeJob(ConstTensorView x, int64_t num_rows,
                              ConstTensorView w,
                              std::span<const IndexRange> leaf_columns,
                              std::span<const Subtree> subtrees, TensorView y,
                              std::vector<PackedLeaf>& leaves) const {
  WITAN_CHECK(x.columns == w.columns, "x has {} columns, w has {}", x.columns,
              w.columns);
  WITAN_CHECK(y.columns == w.rows, "y has {} columns, w has {} rows", y.columns,
              w.rows);
  MatMulJob job;
  job.order_one =
      order_one_ && x.dtype == DType::kBF16 && w.dtype == DType::kBF16;
  job.rows = num_rows;
  job.tile_rows = kernels_.tile_rows(std::max<int64_t>(num_rows, 1),
                                     static_cast<int64_t>(leaf_columns.size()));
  WITAN_CHECK(RoundUp(num_rows, job.tile_rows) - num_rows <= kMaxPaddedRows,
              "{} rows in tiles of {}", num_rows, job.tile_rows);
  job.w = w;
  job.subtrees = subtrees;
  job.y = y;
  const int64_t step_columns = job.order_one ? 32 : 16;
  if (leaves.empty()) {
    int64_t next_step = 0;
    for (const IndexRange& range : leaf_columns) {
      WITAN_CHECK(0 <= range.begin && range.begin <= range.end &&
                      range.end <= w.columns,
                  "leaf [{}, {}) is outside of {} columns", range.begin,
                  range.end, w.columns);
      const int64_t num_steps =
          RoundUp(range.size(), step_columns) / step_columns;
      leaves.push_back({range.begin, range.size(), next_step, num_steps});
      next_step += num_steps;
    }
  }
  job.leaves = leaves;
  return job;
}

void CpuBackend::PackRows(std::span<MatMulJob> jobs,
                          std::span<const JobRows> rows) {
  struct TileOfJob {
    size_t job;
    int64_t tile;
  };
  std::vector<TileOfJob> tiles;
  std::vector<int64_t> offsets;
  int64_t bytes = 0;
  for (size_t j = 0; j < jobs.size(); ++j) {
    for (int64_t tile = 0; tile < NumTiles(jobs[j]); ++tile) {
      tiles.push_back({j, tile});
    }
    offsets.push_back(bytes);
    bytes += NumTiles(jobs[j]) * TileBytes(jobs[j]);
  }
  if (tiles.empty()) return;
  char* memory =
      static_cast<char*>(packed_x_.Reserve(static_cast<size_t>(bytes + 1)));
  for (size_t j = 0; j < jobs.size(); ++j) {
    jobs[j].packed_x = memory + offsets[j];
  }
  const int64_t num_tiles = static_cast<int64_t>(tiles.size());
  ForRows(num_tiles, bytes / num_tiles, [&](IndexRange range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      const TileOfJob& t = tiles[static_cast<size_t>(i)];
      kernels_.pack_tile(rows[t.job].x, rows[t.job].source_rows, t.tile,
                         jobs[t.job], memory + offsets[t.job]);
    }
  });
}

void CpuBackend::RunJobs(std::span<MatMulJob> jobs,
                         std::span<const JobRows> rows) {
  PackRows(jobs, rows);
  const std::vector<JobPiece> pieces =
      CutIntoPieces(jobs, pool_->num_threads());
  pool_->ForEach(
      static_cast<int64_t>(pieces.size()), [&](int64_t i, int thread) {
        const JobPiece& p = pieces[static_cast<size_t>(i)];
        auto* scratch = static_cast<float*>(
            ThreadScratch(thread, kMatMulScratchFloats * sizeof(float)));
        kernels_.mat_mul(*p.job, p.piece, scratch);
      });
}

void CpuBackend::MatMul(ConstTensorView x, ConstTensorView w, TensorView y) {
  WITAN_CHECK(y.rows == x.rows, "y has {} rows, x has {}", y.rows, x.rows);
  ScopedFloatingPointMode mode;
  const IndexRange all_columns = {0, x.columns};
  const Subtree one_leaf = {0, 1};
  std::vector<PackedLeaf> leaves;
  MatMulJob job =
      MakeJob(x, x.rows, w, {&all_columns, 1}, {&one_leaf, 1}, y, leaves);
  const JobRows rows = {x, nullptr};
  RunJobs({&job, 1}, {&rows, 1});
}

void CpuBackend::MatMulLeaves(ConstTensorView x, ConstTensorView w,
                              std::span<const IndexRange> leaf_columns,
                              std::span<const Subtree> subtrees,
                              TensorView partials) {
  size_t num_leaves = 0;
  for (const Subtree& s : subtrees) {
    num_leaves += static_cast<size_t>(s.num_leaves);
  }
  WITAN_CHECK(num_leaves == leaf_columns.size(),
              "{} leaf ranges for subtrees of {} leaves", leaf_columns.size(),
              num_leaves);
  WITAN_CHECK(partials.rows == static_cast<int64_t>(subtrees.size()) * x.rows &&
                  partials.dtype == DType::kF32,
              "partials have {} rows for {} subtrees of {} rows", partials.rows,
              subtrees.size(), x.rows);
  if (subtrees.empty()) return;
  ScopedFloatingPointMode mode;
  std::vector<PackedLeaf> leaves;
  MatMulJob job =
      MakeJob(x, x.rows, w, leaf_columns, subtrees, partials, leaves);
  const JobRows rows = {x, nullptr};
  RunJobs({&job, 1}, {&rows, 1});
}

void CpuBackend::GroupedMatMul(ConstTensorView x, bool gather,
                               const ExpertRows& rows,
                               std::span<const ConstTensorView> w,
                               TensorView y) {
  WITAN_CHECK(static_cast<int64_t>(w.size()) == rows.num_experts,
              "{} weights for {} experts", w.size(), rows.num_experts);
  ScopedFloatingPointMode mode;
  const IndexRange all_columns = {0, x.columns};
  const Subtree one_leaf = {0, 1};
  std::vector<PackedLeaf> leaves;
  std::vector<MatMulJob> jobs;
  std::vector<JobRows> job_rows;
  for (size_t e = 0; e < w.size(); ++e) {
    const int32_t begin = rows.offsets[e], end = rows.offsets[e + 1];
    if (begin == end) continue;
    jobs.push_back(MakeJob(x, end - begin, w[e], {&all_columns, 1},
                           {&one_leaf, 1}, y.Rows(begin, end), leaves));
    job_rows.push_back(gather ? JobRows{x, rows.source_rows + begin}
                              : JobRows{x.Rows(begin, end), nullptr});
  }
  if (!jobs.empty()) RunJobs(jobs, job_rows);
}

}  // namespace witan
