// Matrix products under the numerics contract: included inside a namespace
// that has the lanes of a simd_*.h (see kernels.h).
//
// Each output element has one accumulator of 16 lanes per leaf, fed in
// ascending K-steps from the leaf's first column, then the lane tree, then the
// leaf tree. A tile computes several elements side by side; nothing in it
// mixes them, so that tile shapes are free.

// Order two: fp32 lanes, k mod 16, one fma each.
template <typename W>
struct OrderTwo {
  using X = float;
  using Weight = W;
  static constexpr int64_t kStep = 16;
  using Vector = F32x16;
  static Vector LoadX(const X* x) { return Load(x); }
  static Vector LoadW(const W* w) { return Load(w); }
  static Vector LoadWN(const W* w, int64_t n) { return LoadN(w, n); }
  static F32x16 Step(F32x16 acc, Vector x, Vector w) { return Fma(x, w, acc); }
};

#ifdef WITAN_BF16_DOT
// Order one: vdpbf16ps over 32 columns.
struct OrderOne {
  using X = Bf16;
  using Weight = Bf16;
  static constexpr int64_t kStep = 32;
  using Vector = Bf16x32;
  static Vector LoadX(const X* x) { return LoadPairs(x); }
  static Vector LoadW(const Bf16* w) { return LoadPairs(w); }
  static Vector LoadWN(const Bf16* w, int64_t n) { return LoadPairsN(w, n); }
  static F32x16 Step(F32x16 acc, Vector x, Vector w) {
    return DotPairs(acc, x, w);
  }
};
#endif

// sums[m * kColumns + n] = one leaf of x row m (packed) times w row n, of k
// columns. kPrefetch: also fetches what lies prefetch_bytes further in w.
template <class Order, int kRows, int kColumns, bool kPrefetch>
void Tile(const typename Order::X* x, const typename Order::Weight* const* w,
          int64_t k, int64_t prefetch_bytes, float* sums) {
  constexpr int64_t kStep = Order::kStep;
  F32x16 acc[kRows * kColumns];
  for (F32x16& a : acc) a = Zero();
  int64_t column = 0;
  for (; column + kStep <= k; column += kStep, x += kRows * kStep) {
    typename Order::Vector x_row[kRows];
    for (int m = 0; m < kRows; ++m) x_row[m] = Order::LoadX(x + m * kStep);
    for (int n = 0; n < kColumns; ++n) {
      if constexpr (kPrefetch) {
        __builtin_prefetch(
            reinterpret_cast<const char*>(w[n] + column) + prefetch_bytes, 0,
            2);
      }
      const typename Order::Vector w_row = Order::LoadW(w[n] + column);
      for (int m = 0; m < kRows; ++m) {
        acc[m * kColumns + n] =
            Order::Step(acc[m * kColumns + n], x_row[m], w_row);
      }
    }
  }
  if (column < k) {  // the packed x is padded with zeros, w must be masked
    for (int n = 0; n < kColumns; ++n) {
      const typename Order::Vector w_row =
          Order::LoadWN(w[n] + column, k - column);
      for (int m = 0; m < kRows; ++m) {
        acc[m * kColumns + n] = Order::Step(acc[m * kColumns + n],
                                            Order::LoadX(x + m * kStep), w_row);
      }
    }
  }
  SumLanesOfEach(acc, sums);
}

constexpr int kMaxPanelColumns = 16;

template <class Order>
struct TileKernel {
  int64_t columns;
  void (*run)(const typename Order::X*, const typename Order::Weight* const*,
              int64_t, int64_t, float*);
  void (*run_prefetching)(const typename Order::X*,
                          const typename Order::Weight* const*, int64_t,
                          int64_t, float*);
};
template <class Order, int kRows, int kColumns>
constexpr TileKernel<Order> MakeTileKernel() {
  static_assert(kColumns <= kMaxPanelColumns);
  return {kColumns, Tile<Order, kRows, kColumns, false>,
          Tile<Order, kRows, kColumns, true>};
}

// A tile is as large as the registers hold: measured, per instruction set.
#ifdef WITAN_32_REGISTERS
inline int64_t TileRowsBody(int64_t rows) { return rows <= 8 ? rows : 4; }

template <class Order>
TileKernel<Order> TileKernelFor(const MatMulJob& job) {
  static constexpr TileKernel<Order> kFewRows[] = {
      MakeTileKernel<Order, 1, 16>(), MakeTileKernel<Order, 2, 8>(),
      MakeTileKernel<Order, 3, 8>(),  MakeTileKernel<Order, 4, 6>(),
      MakeTileKernel<Order, 5, 4>(),  MakeTileKernel<Order, 6, 4>(),
      MakeTileKernel<Order, 7, 3>(),  MakeTileKernel<Order, 8, 3>(),
  };
  static constexpr TileKernel<Order> kShortLeaves =
      MakeTileKernel<Order, 4, 4>();
  if (job.tile_rows == 4 && job.leaves.size() > 1) return kShortLeaves;
  return kFewRows[job.tile_rows - 1];
}
#else
inline int64_t TileRowsBody(int64_t rows) { return rows <= 2 ? rows : 2; }

template <class Order>
TileKernel<Order> TileKernelFor(const MatMulJob& job) {
  static constexpr TileKernel<Order> kKernels[] = {
      MakeTileKernel<Order, 1, 4>(), MakeTileKernel<Order, 2, 3>()};
  return kKernels[job.tile_rows - 1];
}
#endif

// Where the sums of a tile go: joined with the pending sums of the tree, then
// to the pending sums or, when the subtree is complete, to y.
struct TileSink {
  TensorView y;
  int64_t first_output_row;  // of the subtree, in y
  int num_leaves;            // of the subtree
  int leaf;                  // within the subtree
  float* pending;            // [3][kMaxPieceRows][chunk_columns]
  int64_t chunk_columns;
};

// One row of sums: `row` counts from the piece's first row, `column` from the
// chunk's first column; y_row, y_column say where it ends up.
inline void SinkRow(const TileSink& sink, const float* sums, int64_t n,
                    int64_t row, int64_t column, int64_t y_row,
                    int64_t y_column) {
  F32x16 v = LoadN(sums, n);
  int level = 0;
  for (; (sink.leaf >> level) & 1; ++level) {
    const float* left = sink.pending +
                        (level * kMaxPieceRows + row) * sink.chunk_columns +
                        column;
    v = Add(LoadN(left, n), v);
  }
  if (sink.leaf + 1 < sink.num_leaves) {
    StoreN(sink.pending + (level * kMaxPieceRows + row) * sink.chunk_columns +
               column,
           v, n);
  } else if (sink.y.dtype == DType::kF32) {
    StoreN(sink.y.Row<float>(y_row) + y_column, v, n);
  } else {
    StoreN(sink.y.Row<Bf16>(y_row) + y_column, v, n);
  }
}

// One leaf of the rows of `piece` times the columns of one panel.
template <class Order>
void RunPanel(const MatMulJob& job, const TileKernel<Order>& kernel,
              const PackedLeaf& leaf, const TileSink& sink, IndexRange rows,
              IndexRange panel, int64_t chunk_begin) {
  using Weight = typename Order::Weight;
  const Weight* w[kMaxPanelColumns];
  for (int64_t n = 0; n < kernel.columns; ++n) {  // repeats the last row
    w[n] = job.w.Row<Weight>(std::min(panel.begin + n, panel.end - 1)) +
           leaf.first_column;
  }
  const int64_t prefetch_bytes =
      kernel.columns * job.w.row_stride * static_cast<int64_t>(sizeof(Weight));
  float sums[kMaxPanelColumns * 8];
  for (int64_t row = rows.begin; row < rows.end; row += job.tile_rows) {
    const auto* x = reinterpret_cast<const typename Order::X*>(
        static_cast<const char*>(job.packed_x) +
        (row * job.num_steps + leaf.first_step * job.tile_rows) *
            kPackedStepBytes);
    (row == rows.begin ? kernel.run_prefetching : kernel.run)(
        x, w, leaf.size, prefetch_bytes, sums);
    const int64_t used = std::min(job.tile_rows, rows.end - row);
    for (int64_t m = 0; m < used; ++m) {
      SinkRow(sink, sums + m * kernel.columns, panel.size(),
              row + m - rows.begin, panel.begin - chunk_begin,
              sink.first_output_row + row + m, panel.begin);
    }
  }
}

template <class Order>
void MatMulInOrder(const MatMulJob& job, const MatMulPiece& piece,
                   float* scratch) {
  const TileKernel<Order> kernel = TileKernelFor<Order>(job);
  const bool many_rows = piece.rows.size() > job.tile_rows;
  // One panel at a time keeps w streaming; with many rows a leaf of several
  // panels stays in the cache.
  const int64_t chunk_columns =
      many_rows ? kMaxLeafPieceColumns / kernel.columns * kernel.columns
                : kernel.columns;
  for (int64_t begin = piece.columns.begin; begin < piece.columns.end;
       begin += chunk_columns) {
    const int64_t end = std::min(begin + chunk_columns, piece.columns.end);
    size_t next_leaf = 0;
    int64_t first_output_row = 0;
    for (const Subtree& subtree : job.subtrees) {
      for (int i = 0; i < subtree.num_leaves; ++i) {
        const PackedLeaf& leaf = job.leaves[next_leaf++];
        const TileSink sink = {job.y, first_output_row, subtree.num_leaves,
                               i,     scratch,          chunk_columns};
        for (int64_t n = begin; n < end; n += kernel.columns) {
          RunPanel<Order>(job, kernel, leaf, sink, piece.rows,
                          {n, std::min(n + kernel.columns, end)}, begin);
        }
      }
      first_output_row += job.rows;
    }
  }
}

inline void MatMulBody(const MatMulJob& job, const MatMulPiece& piece,
                       float* scratch) {
#ifdef WITAN_BF16_DOT
  if (job.order_one) return MatMulInOrder<OrderOne>(job, piece, scratch);
#endif
  VisitFloat(job.w.dtype, [&]<typename W>(W) {
    MatMulInOrder<OrderTwo<W>>(job, piece, scratch);
  });
}

// One row of x, one leaf, to its places in a packed tile.
template <typename X, typename Packed>
void PackLeaf(const X* x, const PackedLeaf& leaf, int64_t step_columns,
              int64_t tile_rows, Packed* to) {
  to += leaf.first_step * tile_rows * step_columns;
  for (int64_t column = 0; column < leaf.size; column += step_columns) {
    const int64_t used = std::min(step_columns, leaf.size - column);
    const X* from = x + leaf.first_column + column;
    if constexpr (std::is_same_v<Packed, Bf16>) {
      std::memcpy(to, from, static_cast<size_t>(used) * sizeof(Bf16));
      std::memset(to + used, 0,
                  static_cast<size_t>(step_columns - used) * sizeof(Bf16));
    } else {
      Store(to, LoadN(from, used));
    }
    to += tile_rows * step_columns;
  }
}

inline void PackTileBody(ConstTensorView x, const int32_t* source_rows,
                         int64_t first_row, int64_t num_rows,
                         const MatMulJob& job, void* to) {
  const int64_t tile_rows = job.tile_rows;
  if (first_row + tile_rows > num_rows) {  // zero rows at the end
    std::memset(
        to, 0,
        static_cast<size_t>(job.num_steps * tile_rows * kPackedStepBytes));
  }
  for (int64_t m = 0; m < std::min(tile_rows, num_rows - first_row); ++m) {
    const int64_t row =
        source_rows != nullptr ? source_rows[first_row + m] : first_row + m;
    for (const PackedLeaf& leaf : job.leaves) {
      if (job.order_one) {
        PackLeaf(x.Row<Bf16>(row), leaf, 32, tile_rows,
                 static_cast<Bf16*>(to) + m * 32);
      } else {
        VisitActivation(x.dtype, [&]<typename X>(X) {
          PackLeaf(x.Row<X>(row), leaf, 16, tile_rows,
                   static_cast<float*>(to) + m * 16);
        });
      }
    }
  }
}
