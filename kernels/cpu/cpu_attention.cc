// Rope, KV cache and attention of the CPU backend: which rows and heads go
// together.

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "base/limits.h"
#include "kernels/cpu/cpu_backend.h"

namespace witan {
namespace {

void CheckBatch(const AttentionBatch& batch, int64_t num_rows) {
  WITAN_CHECK(batch.row_begin.size() == batch.first_positions.size() + 1,
              "{} row starts for {} sequences", batch.row_begin.size(),
              batch.first_positions.size());
  WITAN_CHECK(batch.rope_first_rows.empty() ||
                  batch.rope_first_rows.size() == batch.first_positions.size(),
              "{} rope rows for {} sequences", batch.rope_first_rows.size(),
              batch.first_positions.size());
  WITAN_CHECK(batch.row_begin.back() == num_rows,
              "the sequences have {} rows, the tensor {}",
              batch.row_begin.back(), num_rows);
}

const int32_t* BlockTable(const AttentionBatch& batch, int sequence) {
  return batch.block_ids.data() + sequence * batch.block_table_stride;
}

// Query heads [begin, begin + count) that share a KV head.
struct HeadGroup {
  int64_t begin;
  int64_t count;
  int64_t kv_head;
};

std::vector<HeadGroup> GroupHeads(std::span<const int32_t> kv_head_of) {
  std::vector<HeadGroup> groups;
  for (size_t n = 0; n < kv_head_of.size(); ++n) {
    if (!groups.empty() && groups.back().kv_head == kv_head_of[n] &&
        groups.back().count < kMaxQueriesPerTile) {
      ++groups.back().count;
    } else {
      groups.push_back({static_cast<int64_t>(n), 1, kv_head_of[n]});
    }
  }
  return groups;
}

// Rows [rows.begin, rows.end) of one sequence, one group of heads.
struct AttentionItem {
  int sequence;
  IndexRange rows;
  const HeadGroup* group;
};

}  // namespace

void CpuBackend::RopeWriteKv(ConstTensorView q, ConstTensorView k,
                             ConstTensorView v, ConstTensorView rope,
                             const AttentionBatch& batch, const KvLayer& cache,
                             TensorView q_out) {
  WITAN_CHECK(cache.head_dim % 2 == 0 && cache.head_dim <= kMaxHeadDim,
              "head dim {}", cache.head_dim);
  WITAN_CHECK(k.columns == cache.num_kv_heads * cache.head_dim &&
                  v.columns == k.columns && q_out.columns == q.columns &&
                  q.columns % cache.head_dim == 0,
              "q, k, v have {}, {}, {} columns for {} KV heads of {}",
              q.columns, k.columns, v.columns, cache.num_kv_heads,
              cache.head_dim);
  WITAN_CHECK(rope.columns % 2 == 0 && rope.columns <= cache.head_dim,
              "{} of {} elements are rotated", rope.columns, cache.head_dim);
  if (batch.num_sequences() == 0) return;
  CheckBatch(batch, q.rows);
  const auto first_rope_row = [&batch](int s) -> int64_t {
    return batch.rope_first_rows.empty() ? 0 : batch.rope_first_rows[s];
  };
  ScopedFloatingPointMode mode;
  const int64_t element_bytes = static_cast<int64_t>(SizeOf(cache.dtype));
  ForRows(q.rows, q.columns + 8 * k.columns, [&](IndexRange rows) {
    int s =
        static_cast<int>(std::upper_bound(batch.row_begin.begin(),
                                          batch.row_begin.end(), rows.begin) -
                         batch.row_begin.begin()) -
        1;
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      while (r >= batch.row_begin[s + 1]) ++s;
      const int64_t position =
          batch.first_positions[s] + (r - batch.row_begin[s]);
      kernels_.rope_write_kv(q.Row<float>(r), k.Row<float>(r), v.Row<float>(r),
                             rope.Row<float>(first_rope_row(s) + position),
                             rope.columns, q.columns / cache.head_dim, cache,
                             order_one_,
                             BlockTable(batch, s)[position / kBlockTokens],
                             position % kBlockTokens,
                             static_cast<char*>(q_out.data) +
                                 r * q_out.row_stride * element_bytes);
    }
  });
}

void CpuBackend::PagedAttention(ConstTensorView q, const KvLayer& cache,
                                const AttentionBatch& batch,
                                std::span<const int32_t> kv_head_of,
                                float scale, int64_t window, TensorView out) {
  const int64_t head_dim = cache.head_dim;
  WITAN_CHECK(q.columns == static_cast<int64_t>(kv_head_of.size()) * head_dim &&
                  out.columns == q.columns && out.rows == q.rows,
              "q is [{}, {}] and out [{}, {}] for {} heads of {}", q.rows,
              q.columns, out.rows, out.columns, kv_head_of.size(), head_dim);
  WITAN_CHECK(q.dtype == cache.dtype && out.dtype == cache.dtype,
              "q is {} and out {}, the cache {}", NameOf(q.dtype),
              NameOf(out.dtype), NameOf(cache.dtype));
  if (batch.num_sequences() == 0) return;
  CheckBatch(batch, q.rows);
  ScopedFloatingPointMode mode;
  const std::vector<HeadGroup> groups = GroupHeads(kv_head_of);
  std::vector<AttentionItem> items;
  for (int s = 0; s < batch.num_sequences(); ++s) {
    for (const HeadGroup& group : groups) {
      const int64_t rows_per_tile = kMaxQueriesPerTile / group.count;
      for (int64_t r = batch.row_begin[s]; r < batch.row_begin[s + 1];
           r += rows_per_tile) {
        items.push_back(
            {s,
             {r, std::min<int64_t>(r + rows_per_tile, batch.row_begin[s + 1])},
             &group});
      }
    }
  }
  const int64_t element_bytes = static_cast<int64_t>(SizeOf(cache.dtype));
  const size_t scratch_bytes =
      static_cast<size_t>(AttentionScratchFloats(head_dim)) * sizeof(float);
  pool_->ForEach(static_cast<int64_t>(items.size()), [&](int64_t i,
                                                         int thread) {
    const AttentionItem& item = items[static_cast<size_t>(i)];
    QueryTile tile;
    tile.block_ids = BlockTable(batch, item.sequence);
    tile.kv_head = item.group->kv_head;
    tile.scale = scale;
    tile.order_one = order_one_;
    for (int64_t r = item.rows.begin; r < item.rows.end; ++r) {
      const int64_t end = batch.first_positions[item.sequence] +
                          (r - batch.row_begin[item.sequence]) + 1;
      const int64_t begin = window > 0 ? std::max<int64_t>(0, end - window) : 0;
      for (int64_t h = 0; h < item.group->count; ++h) {
        const int64_t column = (item.group->begin + h) * head_dim;
        const int n = tile.num_queries++;
        tile.q[n] = static_cast<const char*>(q.data) +
                    (r * q.row_stride + column) * element_bytes;
        tile.out[n] = static_cast<char*>(out.data) +
                      (r * out.row_stride + column) * element_bytes;
        tile.visible[n] = {begin, end};
      }
    }
    kernels_.attention(
        tile, cache, static_cast<float*>(ThreadScratch(thread, scratch_bytes)));
  });
}

}  // namespace witan
