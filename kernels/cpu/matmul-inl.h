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

// One K-step of a tile. What there is less of, rows of x or of w, stays in
// registers beside the accumulators; the other side is read as it is used.
template <class Order, int kRows, int kColumns, typename LoadX, typename LoadW>
inline __attribute__((always_inline)) void TileStep(
    F32x16 (&acc)[kRows * kColumns], const LoadX& load_x, const LoadW& load_w) {
  if constexpr (kRows <= kColumns) {
    typename Order::Vector x[kRows];
    for (int m = 0; m < kRows; ++m) x[m] = load_x(m);
    for (int n = 0; n < kColumns; ++n) {
      const typename Order::Vector w = load_w(n);
      for (int m = 0; m < kRows; ++m) {
        acc[m * kColumns + n] = Order::Step(acc[m * kColumns + n], x[m], w);
      }
    }
  } else {
    typename Order::Vector w[kColumns];
    for (int n = 0; n < kColumns; ++n) w[n] = load_w(n);
    for (int m = 0; m < kRows; ++m) {
      const typename Order::Vector x = load_x(m);
      for (int n = 0; n < kColumns; ++n) {
        acc[m * kColumns + n] = Order::Step(acc[m * kColumns + n], x, w[n]);
      }
    }
  }
}

// Columns [0, k) of a tile: sums[m * kColumns + n] = x row m (packed) times w
// row n. kPrefetch: also fetches what lies prefetch_bytes further in w. A leaf
// may be computed in parts, between which its accumulators wait, lanes and all:
// they come from `resume` and go to `suspend`, where that is not null.
template <class Order, int kRows, int kColumns, bool kPrefetch>
inline void Tile(const typename Order::X* x,
                 const typename Order::Weight* const* w, int64_t k,
                 int64_t prefetch_bytes, const float* resume, float* suspend,
                 float* sums) {
  constexpr int64_t kStep = Order::kStep;
  F32x16 acc[kRows * kColumns];
  for (F32x16& a : acc) a = Zero();
  if (resume != nullptr) {
    for (int i = 0; i < kRows * kColumns; ++i) acc[i] = Load(resume + 16 * i);
  }
  const auto load_x = [&](int m) { return Order::LoadX(x + m * kStep); };
  int64_t column = 0;
  for (; column + kStep <= k; column += kStep, x += kRows * kStep) {
    TileStep<Order, kRows, kColumns>(acc, load_x, [&](int n) {
      if constexpr (kPrefetch) {
        __builtin_prefetch(
            reinterpret_cast<const char*>(w[n] + column) + prefetch_bytes, 0,
            2);
      }
      return Order::LoadW(w[n] + column);
    });
  }
  if (column < k) {  // the packed x is padded with zeros, w must be masked
    TileStep<Order, kRows, kColumns>(acc, load_x, [&](int n) {
      return Order::LoadWN(w[n] + column, k - column);
    });
  }
  if (suspend == nullptr) {
    SumLanesOfEach(acc, sums);
  } else {
    for (int i = 0; i < kRows * kColumns; ++i) Store(suspend + 16 * i, acc[i]);
  }
}

constexpr int kMaxPanelColumns = 16;

// One leaf of one panel of columns, or a part of one.
struct PanelTask {
  const PackedLeaf* leaf;
  IndexRange part;           // columns of the leaf, from a whole K-step on
  IndexRange rows;           // of the piece
  IndexRange columns;        // at most as many as the tile has
  int64_t first_output_row;  // of the subtree, in y
  int num_leaves;            // of the subtree
  int leaf_in_subtree;
  // Sums of the tree that wait for their right neighbour: [3 levels][tiles of
  // the chunk][vectors of a tile].
  float* pending;
  int64_t pending_level_floats;
  int64_t prefetch_columns;  // how many rows of w further the next reads are
  float* suspended;          // accumulators of all tiles, between parts
};

// Rows of sums to y, rounded to its dtype.
template <int kColumns>
void StoreSums(const TensorView& y, const float* sums, int64_t first_row,
               int64_t num_rows, IndexRange columns) {
  for (int64_t m = 0; m < num_rows; ++m, sums += kColumns) {
    if (y.dtype == DType::kBF16) {
      StoreN(y.Row<Bf16>(first_row + m) + columns.begin,
             LoadN(sums, columns.size()), columns.size());
      continue;
    }
    float* to = y.Row<float>(first_row + m) + columns.begin;
    if (columns.size() == kColumns) {
      std::memcpy(to, sums, kColumns * sizeof(float));
    } else {
      StoreN(to, LoadN(sums, columns.size()), columns.size());
    }
  }
}

// Joins the sums of a tile's leaf with those that wait, and stores them here or
// in y.
template <int kRows, int kColumns>
void FinishLeaf(const MatMulJob& job, const PanelTask& task, int64_t row,
                float* pending, float* sums) {
  constexpr int kVectors = (kRows * kColumns + 15) / 16;
  float* level = pending;
  for (int left = task.leaf_in_subtree; left & 1; left >>= 1) {
    for (int v = 0; v < kVectors; ++v) {
      Store(sums + 16 * v, Add(Load(level + 16 * v), Load(sums + 16 * v)));
    }
    level += task.pending_level_floats;
  }
  if (task.leaf_in_subtree + 1 < task.num_leaves) {
    for (int v = 0; v < kVectors; ++v) {
      Store(level + 16 * v, Load(sums + 16 * v));
    }
  } else {
    StoreSums<kColumns>(job.y, sums, task.first_output_row + row,
                        std::min<int64_t>(kRows, task.rows.end - row),
                        task.columns);
  }
}

template <class Order, int kRows, int kColumns>
void RunPanel(const MatMulJob& job, const PanelTask& task) {
  using Weight = typename Order::Weight;
  constexpr int kVectors = (kRows * kColumns + 15) / 16;
  const Weight* w[kColumns];
  for (int64_t n = 0; n < kColumns; ++n) {  // repeats the last row
    w[n] = job.w.Row<Weight>(
               std::min(task.columns.begin + n, task.columns.end - 1)) +
           task.leaf->first_column + task.part.begin;
  }
  const int64_t prefetch_bytes = task.prefetch_columns * job.w.row_stride *
                                 static_cast<int64_t>(sizeof(Weight));
  const bool begins = task.part.begin == 0;
  const bool ends = task.part.end == task.leaf->size;
  // Rows of the last vector that no element has are summed and never stored.
  alignas(64) float sums[kVectors * 16 + 16] = {};
  float* pending = task.pending;
  float* suspended = task.suspended;
  for (int64_t row = task.rows.begin; row < task.rows.end; row += kRows,
               pending += kVectors * 16, suspended += kRows * kColumns * 16) {
    const auto* x = reinterpret_cast<const typename Order::X*>(
                        static_cast<const char*>(job.packed_x) +
                        PackedOffset(job, *task.leaf, row / kRows)) +
                    task.part.begin * kRows;
    const float* resume = begins ? nullptr : suspended;
    float* suspend = ends ? nullptr : suspended;
    if (row == task.rows.begin) {
      Tile<Order, kRows, kColumns, true>(x, w, task.part.size(), prefetch_bytes,
                                         resume, suspend, sums);
    } else {
      Tile<Order, kRows, kColumns, false>(x, w, task.part.size(), 0, resume,
                                          suspend, sums);
    }
    if (ends) FinishLeaf<kRows, kColumns>(job, task, row, pending, sums);
  }
}

struct PanelKernel {
  int64_t columns;
  int64_t tile_floats;         // sums of a tile
  int64_t accumulator_floats;  // the same before their lanes are summed
  void (*run)(const MatMulJob&, const PanelTask&);
};
template <class Order, int kRows, int kColumns>
constexpr PanelKernel MakePanelKernel() {
  static_assert(kColumns <= kMaxPanelColumns);
  constexpr int64_t kTileFloats = (kRows * kColumns + 15) / 16 * 16;
  // Pending sums of the largest chunk of the largest piece.
  static_assert(kPendingLevels * (kMaxChunkColumns / kColumns) *
                    (kMaxPieceRows / kRows) * kTileFloats <=
                kMatMulScratchFloats);
  return {kColumns, kTileFloats, kRows * kColumns * 16,
          RunPanel<Order, kRows, kColumns>};
}

// A tile is as large as the registers hold: measured, per instruction set.
#ifdef WITAN_32_REGISTERS
inline int64_t TileRowsBody(int64_t rows, int64_t num_leaves) {
  constexpr int64_t kMaxTileRows = 8;
  if (rows <= 4 || (rows <= kMaxTileRows && num_leaves == 1)) return rows;
  if (num_leaves > 1 || rows > 4 * kMaxTileRows) return 4;
  // The height that adds fewest empty rows.
  int64_t best = 4;
  for (int64_t height = 5; height <= kMaxTileRows; ++height) {
    const auto computed = [rows](int64_t h) { return (rows + h - 1) / h * h; };
    if (computed(height) < computed(best)) best = height;
  }
  return best;
}

template <class Order>
PanelKernel PanelKernelFor(const MatMulJob& job) {
  static constexpr PanelKernel kByRows[] = {
      MakePanelKernel<Order, 1, 16>(), MakePanelKernel<Order, 2, 8>(),
      MakePanelKernel<Order, 3, 8>(),  MakePanelKernel<Order, 4, 6>(),
      MakePanelKernel<Order, 5, 4>(),  MakePanelKernel<Order, 6, 4>(),
      MakePanelKernel<Order, 7, 3>(),  MakePanelKernel<Order, 8, 3>(),
  };
  // Sixteen sums are one reduction, which short leaves spend their time in.
  static constexpr PanelKernel kShortLeaves = MakePanelKernel<Order, 4, 4>();
  if (job.tile_rows == 4 && job.leaves.size() > 1) return kShortLeaves;
  return kByRows[job.tile_rows - 1];
}
#else
inline int64_t TileRowsBody(int64_t rows, int64_t) {
  return rows <= 2 ? rows : 2;
}

template <class Order>
PanelKernel PanelKernelFor(const MatMulJob& job) {
  static constexpr PanelKernel kByRows[] = {MakePanelKernel<Order, 1, 4>(),
                                            MakePanelKernel<Order, 2, 3>()};
  return kByRows[job.tile_rows - 1];
}
#endif

// Up to so many tiles w comes from memory faster than it is used.
constexpr int64_t kMaxStreamingTiles = 8;

// Packed x of a tile that stays in the first-level cache beside w.
constexpr int64_t kMaxPartBytes = 16 << 10;
// Accumulators that wait between the parts of a leaf.
constexpr int64_t kMaxSuspendedFloats = 4 << 10;
static_assert(kMaxSuspendedFloats <= kMatMulScratchFloats);

// Few rows and one long leaf: parts of K outside, a group of panels inside, so
// that x is read from the first-level cache by all of them.
template <class Order>
bool MatMulInParts(const MatMulJob& job, const MatMulPiece& piece,
                   const PanelKernel& kernel, float* scratch) {
  const int64_t num_tiles =
      (piece.rows.size() + job.tile_rows - 1) / job.tile_rows;
  const int64_t part_columns = kMaxPartBytes / kPackedStepBytes /
                               (num_tiles * job.tile_rows) * Order::kStep;
  const int64_t group_panels =
      kMaxSuspendedFloats / (num_tiles * kernel.accumulator_floats);
  if (job.leaves.size() != 1 || job.rows == 1 ||
      num_tiles > kMaxStreamingTiles || group_panels < 2 || part_columns == 0 ||
      job.leaves[0].size <= 2 * part_columns) {
    return false;
  }
  PanelTask task = {};
  task.leaf = job.leaves.data();
  task.rows = piece.rows;
  task.num_leaves = 1;
  task.pending = scratch;  // one leaf leaves nothing there
  task.prefetch_columns = group_panels * kernel.columns;
  for (int64_t begin = piece.columns.begin; begin < piece.columns.end;
       begin += group_panels * kernel.columns) {
    const int64_t end =
        std::min(begin + group_panels * kernel.columns, piece.columns.end);
    for (int64_t k = 0; k < task.leaf->size; k += part_columns) {
      task.part = {k, std::min(k + part_columns, task.leaf->size)};
      task.suspended = scratch;
      for (int64_t n = begin; n < end; n += kernel.columns) {
        task.columns = {n, std::min(n + kernel.columns, end)};
        kernel.run(job, task);
        task.suspended += num_tiles * kernel.accumulator_floats;
      }
    }
  }
  return true;
}

template <class Order>
void MatMulInOrder(const MatMulJob& job, const MatMulPiece& piece,
                   float* scratch) {
  const PanelKernel kernel = PanelKernelFor<Order>(job);
  if (MatMulInParts<Order>(job, piece, kernel, scratch)) return;
  const int64_t num_tiles =
      (piece.rows.size() + job.tile_rows - 1) / job.tile_rows;
  // One panel at a time keeps w streaming; with many rows a leaf of several
  // panels stays in the cache.
  const int64_t chunk_panels =
      num_tiles > kMaxStreamingTiles ? kMaxChunkColumns / kernel.columns : 1;
  const int64_t panel_floats = num_tiles * kernel.tile_floats;
  PanelTask task = {};
  task.rows = piece.rows;
  task.suspended = scratch;  // whole leaves leave nothing there
  task.pending_level_floats = chunk_panels * panel_floats;
  task.prefetch_columns = 2 * kernel.columns;
  for (int64_t begin = piece.columns.begin; begin < piece.columns.end;
       begin += chunk_panels * kernel.columns) {
    const int64_t end =
        std::min(begin + chunk_panels * kernel.columns, piece.columns.end);
    task.leaf = job.leaves.data();
    task.first_output_row = 0;
    for (const Subtree& subtree : job.subtrees) {
      task.num_leaves = subtree.num_leaves;
      for (int i = 0; i < subtree.num_leaves; ++i, ++task.leaf) {
        task.part = {0, task.leaf->size};
        task.leaf_in_subtree = i;
        task.pending = scratch;
        for (int64_t n = begin; n < end; n += kernel.columns) {
          task.columns = {n, std::min(n + kernel.columns, end)};
          kernel.run(job, task);
          task.pending += panel_floats;
        }
      }
      task.first_output_row += job.rows;
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
void PackLeaf(const X* x, int64_t size, int64_t tile_rows, Packed* to) {
  constexpr int64_t kStep = kPackedStepBytes / sizeof(Packed);
  for (int64_t column = 0; column < size; column += kStep) {
    const int64_t used = std::min(kStep, size - column);
    if constexpr (std::is_same_v<Packed, Bf16>) {
      std::memcpy(to, x + column, static_cast<size_t>(used) * sizeof(Bf16));
      std::memset(to + used, 0,
                  static_cast<size_t>(kStep - used) * sizeof(Bf16));
    } else {
      Store(to, LoadN(x + column, used));
    }
    to += tile_rows * kStep;
  }
}

inline void PackTileBody(ConstTensorView x, const int32_t* source_rows,
                         int64_t tile, const MatMulJob& job, void* packed_x) {
  const int64_t first_row = tile * job.tile_rows;
  for (const PackedLeaf& leaf : job.leaves) {
    char* to = static_cast<char*>(packed_x) + PackedOffset(job, leaf, tile);
    if (first_row + job.tile_rows > job.rows) {  // zero rows at the end
      std::memset(to, 0,
                  static_cast<size_t>(leaf.num_steps * job.tile_rows *
                                      kPackedStepBytes));
    }
    for (int64_t m = 0; m < std::min(job.tile_rows, job.rows - first_row);
         ++m, to += kPackedStepBytes) {
      const int64_t row =
          source_rows != nullptr ? source_rows[first_row + m] : first_row + m;
      if (job.order_one) {
        PackLeaf(x.Row<Bf16>(row) + leaf.first_column, leaf.size, job.tile_rows,
                 reinterpret_cast<Bf16*>(to));
      } else {
        VisitActivation(x.dtype, [&]<typename X>(X) {
          PackLeaf(x.Row<X>(row) + leaf.first_column, leaf.size, job.tile_rows,
                   reinterpret_cast<float*>(to));
        });
      }
    }
  }
}
