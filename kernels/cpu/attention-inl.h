// Rope, the KV cache and attention: included inside a namespace that has the
// lanes of a simd_*.h (see kernels.h).
//
// The cache is laid out so that vectors run over what is independent: scores
// are computed for 16 positions at a time, outputs for 16 elements of D. The
// 16 lanes of the contract's accumulator ("classes": unit u of the summed index
// belongs to lane u mod 16) are then 16 separate vectors, which are joined by
// the same tree. A unit is what one step of a lane takes in: a pair of bf16 in
// order one, an element in order two. Per block and KV head:
//   K [D / unit][32 positions][unit]    V [32 / unit][padded D][unit]

// Order two.
template <typename A>
struct LaneUnits {
  static constexpr int64_t kSize = 1;
  using Query = float;  // one unit of q or of P
  using Vector = F32x16;
  static Vector LoadUnits(const A* from) { return Load(from); }
  static F32x16 Step(F32x16 acc, Vector v, Query q) {
    return Fma(v, Set1(q), acc);
  }
  static void PackQuery(const A* q, int64_t head_dim, Query* to) {
    EachVector(head_dim, [&](int64_t i, int64_t n) {
      StoreN(to + i, LoadN(q + i, n), n);
    });
  }
  // P, rounded to A.
  static void PackProbabilities(F32x16 p, Query* to) {
    A rounded[16];
    Store(rounded, p);
    Store(to, Load(rounded));
  }
};

#ifdef WITAN_BF16_DOT
// Order one.
struct PairUnits {
  static constexpr int64_t kSize = 2;
  using Query = uint32_t;
  using Vector = Bf16x32;
  static Vector LoadUnits(const Bf16* from) { return LoadPairs(from); }
  static F32x16 Step(F32x16 acc, Vector v, Query q) {
    return DotPairs(acc, v, BroadcastPair(q));
  }
  static void PackQuery(const Bf16* q, int64_t head_dim, Query* to) {
    std::memcpy(to, q, static_cast<size_t>(head_dim) * sizeof(Bf16));
  }
  static void PackProbabilities(F32x16 p, Query* to) {
    Store(reinterpret_cast<Bf16*>(to), p);
  }
};
#endif

// Offset, in elements, of element d of K or V at `slot` of a block.
template <class Units>
int64_t KOffset(int64_t d, int64_t slot) {
  constexpr int64_t kSize = Units::kSize;
  return (d / kSize * kBlockTokens + slot) * kSize + d % kSize;
}
template <class Units>
int64_t VOffset(int64_t d, int64_t slot, int64_t head_dim) {
  constexpr int64_t kSize = Units::kSize;
  return (slot / kSize * PaddedHeadDim(head_dim) + d) * kSize + slot % kSize;
}

// q or k of one head, its first rotary_dim elements rotated: element i pairs
// with i + rotary_dim / 2.
template <typename A>
void RopeHead(const float* x, const float* rope, int64_t rotary_dim,
              int64_t head_dim, A* out) {
  const int64_t half = rotary_dim / 2;
  EachVector(half, [&](int64_t i, int64_t n) {
    const F32x16 cosine = LoadN(rope + i, n), sine = LoadN(rope + half + i, n);
    const F32x16 a = LoadN(x + i, n), b = LoadN(x + half + i, n);
    StoreN(out + i, Fma(a, cosine, Sub(Zero(), Mul(b, sine))), n);
    StoreN(out + half + i, Fma(b, cosine, Mul(a, sine)), n);
  });
  const int64_t rest = head_dim - rotary_dim;
  EachVector(rest, [&](int64_t i, int64_t n) {
    StoreN(out + rotary_dim + i, LoadN(x + rotary_dim + i, n), n);
  });
}

template <class Units, typename A>
void RopeWriteKvRow(const float* q, const float* k, const float* v,
                    const float* rope, int64_t rotary_dim, int64_t num_heads,
                    const KvLayer& cache, int32_t block, int64_t slot,
                    A* q_out) {
  const int64_t head_dim = cache.head_dim;
  for (int64_t h = 0; h < num_heads; ++h) {
    RopeHead(q + h * head_dim, rope, rotary_dim, head_dim,
             q_out + h * head_dim);
  }
  A rounded[kMaxHeadDim];
  for (int64_t h = 0; h < cache.num_kv_heads; ++h) {
    A* k_block = static_cast<A*>(cache.data) +
                 (block * cache.num_kv_heads + h) * HeadBlockElements(head_dim);
    A* v_block = k_block + KBlockElements(head_dim);
    RopeHead(k + h * head_dim, rope, rotary_dim, head_dim, rounded);
    for (int64_t d = 0; d < head_dim; ++d) {
      k_block[KOffset<Units>(d, slot)] = rounded[d];
    }
    EachVector(head_dim, [&](int64_t i, int64_t n) {
      StoreN(rounded + i, LoadN(v + h * head_dim + i, n), n);
    });
    for (int64_t d = 0; d < head_dim; ++d) {
      v_block[VOffset<Units>(d, slot, head_dim)] = rounded[d];
    }
  }
}

// One vector per query of a tile.
template <int kQueries>
struct QueryVectors {
  F32x16 of[kQueries];
};

// Calls body.operator()<i>() for i in [0, kCount): constant indices keep
// arrays of vectors in registers.
template <int kCount, typename Body>
inline __attribute__((always_inline)) void Unrolled(const Body& body) {
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>)
      __attribute__((always_inline)) {
    (body.template operator()<kIndex>(), ...);
  }
  (std::make_integer_sequence<int, kCount>());
}

// The lane tree over the classes c, c + kStride, c + 2 kStride ... below 16:
// classes (l, l+8) join first, then +4, +2, +1. sum_class(c) gives one class.
template <int kQueries, int kStride, typename SumClass>
inline __attribute__((always_inline)) QueryVectors<kQueries> JoinClasses(
    int c, const SumClass& sum_class) {
  if constexpr (kStride == 16) {
    return sum_class(c);
  } else {
    QueryVectors<kQueries> left =
        JoinClasses<kQueries, 2 * kStride>(c, sum_class);
    const QueryVectors<kQueries> right =
        JoinClasses<kQueries, 2 * kStride>(c + kStride, sum_class);
    Unrolled<kQueries>([&]<int kQuery>() __attribute__((always_inline)) {
      left.of[kQuery] = Add(left.of[kQuery], right.of[kQuery]);
    });
    return left;
  }
}

// Adds one unit of the summed index, for every query.
template <class Units, int kQueries>
inline __attribute__((always_inline)) void StepQueries(
    QueryVectors<kQueries>& sum, typename Units::Vector v,
    const typename Units::Query* const* q, int64_t unit) {
  Unrolled<kQueries>([&]<int kQuery>() __attribute__((always_inline)) {
    sum.of[kQuery] = Units::Step(sum.of[kQuery], v, q[kQuery][unit]);
  });
}

template <int kQueries>
inline __attribute__((always_inline)) QueryVectors<kQueries> ZeroQueries() {
  QueryVectors<kQueries> zero;
  Unrolled<kQueries>([&]<int kQuery>() __attribute__((always_inline)) {
    zero.of[kQuery] = Zero();
  });
  return zero;
}

// scores[query][16] of 16 positions of a block of K.
template <class Units, typename A, int kQueries>
void ScorePositions(const A* k_block, int64_t first_slot, int64_t num_units,
                    const typename Units::Query* const* queries,
                    float* const* scores) {
  const A* k = k_block + first_slot * Units::kSize;
  const typename Units::Query* q[kQueries];
  std::copy(queries, queries + kQueries, q);
  const auto sum_class = [&](int c) __attribute__((always_inline)) {
    QueryVectors<kQueries> sum = ZeroQueries<kQueries>();
    for (int64_t u = c; u < num_units; u += 16) {
      StepQueries<Units>(
          sum, Units::LoadUnits(k + u * kBlockTokens * Units::kSize), q, u);
    }
    return sum;
  };
  const QueryVectors<kQueries> sum = JoinClasses<kQueries, 1>(0, sum_class);
  for (int i = 0; i < kQueries; ++i) Store(scores[i], sum.of[i]);
}

// A split of one sequence as a tile of queries sees it: positions relative to
// the split's start.
struct SplitView {
  IndexRange visible;  // in [0, kSplitTokens), the same for all its queries
  const void* blocks[kSplitTokens / kBlockTokens];  // K, then V, of each block
};

// out[query][16] = sum over the visible positions of P V, for elements
// [d, d + 16). Units that are only partly visible have the rest of V masked.
template <class Units, typename A, int kQueries>
void MixValues(const SplitView& split, int64_t head_dim, int64_t d,
               const typename Units::Query* const* probabilities,
               float* const* out) {
  constexpr int64_t kUnitsPerBlock = kBlockTokens / Units::kSize;
  const int64_t padded = PaddedHeadDim(head_dim);
  const int64_t begin = split.visible.begin / Units::kSize;
  const int64_t end = (split.visible.end + Units::kSize - 1) / Units::kSize;
  const typename Units::Query* p[kQueries];
  std::copy(probabilities, probabilities + kQueries, p);
  const auto sum_class = [&](int c) __attribute__((always_inline)) {
    QueryVectors<kQueries> sum = ZeroQueries<kQueries>();
    for (int64_t u = begin + ((c - begin) & 15); u < end; u += 16) {
      const A* v_block =
          static_cast<const A*>(split.blocks[u / kUnitsPerBlock]) +
          KBlockElements(head_dim);
      typename Units::Vector values = Units::LoadUnits(
          v_block + (u % kUnitsPerBlock * padded + d) * Units::kSize);
#ifdef WITAN_BF16_DOT
      if constexpr (Units::kSize == 2) {
        if (2 * u < split.visible.begin) values = And(values, 0xffff0000u);
        if (2 * u + 1 >= split.visible.end) values = And(values, 0x0000ffffu);
      }
#endif
      StepQueries<Units>(sum, values, p, u);
    }
    return sum;
  };
  const QueryVectors<kQueries> sum = JoinClasses<kQueries, 1>(0, sum_class);
  for (int i = 0; i < kQueries; ++i) Store(out[i], sum.of[i]);
}

// Softmax of one query over one split: scores [256] to P (rounded) and the
// maximum and the sum of unrounded P. Slots that are not visible get P = 0.
struct SplitSoftmax {
  float max;
  float sum;
};
template <class Units>
SplitSoftmax Softmax(float* scores, IndexRange visible, float scale,
                     typename Units::Query* p) {
  const F32x16 lowest = Set1(-std::numeric_limits<float>::infinity());
  const int64_t first = visible.begin / 16 * 16;
  F32x16 best = lowest;
  for (int64_t i = first; i < visible.end; i += 16) {
    const F32x16 s = KeepLanes(Mul(Load(scores + i), Set1(scale)),
                               visible.begin - i, visible.end - i, lowest);
    Store(scores + i, s);
    best = Max(s, best);
  }
  const float max = MaxLanes(best);
  F32x16 sum = Zero();
  for (int64_t i = first; i < visible.end; i += 16) {
    const F32x16 e = KeepLanes(Exp(Sub(Load(scores + i), Set1(max))),
                               visible.begin - i, visible.end - i, Zero());
    sum = Add(sum, e);
    Units::PackProbabilities(e, p + i / Units::kSize);
  }
  return {max, SumLanes(sum)};
}

// Running softmax of one query: the splits joined so far.
struct RunningQuery {
  bool any = false;
  float max = 0;
  float sum = 0;
};

// Joins a split's output (o, [padded D]) into `total`.
inline void JoinSplit(RunningQuery& running, const SplitSoftmax& split,
                      const float* o, int64_t padded, float* total) {
  if (!running.any) {
    running = {true, split.max, split.sum};
    std::memcpy(total, o, static_cast<size_t>(padded) * sizeof(float));
    return;
  }
  const float max = running.max > split.max ? running.max : split.max;
  float shifts[16] = {running.max - max, split.max - max};
  Store(shifts, Exp(Load(shifts)));
  const F32x16 old_scale = Set1(shifts[0]), new_scale = Set1(shifts[1]);
  for (int64_t i = 0; i < padded; i += 16) {
    Store(total + i,
          Fma(Load(o + i), new_scale, Mul(Load(total + i), old_scale)));
  }
  float sum[16] = {running.sum}, split_sum[16] = {split.sum};
  Store(sum, Fma(Load(split_sum), new_scale, Mul(Load(sum), old_scale)));
  running.max = max;
  running.sum = sum[0];
}

// Scratch of one attention call, cut from one array of floats.
template <class Units>
struct AttentionScratch {
  using Query = typename Units::Query;
  AttentionScratch(float* memory, int64_t head_dim) {
    const int64_t padded = PaddedHeadDim(head_dim);
    const auto take = [&](int64_t n) {
      return std::exchange(memory, memory + n);
    };
    for (int i = 0; i < kMaxQueriesPerTile; ++i) {
      q[i] = reinterpret_cast<Query*>(take(padded));
      p[i] = reinterpret_cast<Query*>(take(kSplitTokens));
      scores[i] = take(kSplitTokens);
      split_out[i] = take(padded);
      total[i] = take(padded);
    }
  }
  Query* q[kMaxQueriesPerTile];
  Query* p[kMaxQueriesPerTile];
  float* scores[kMaxQueriesPerTile];
  float* split_out[kMaxQueriesPerTile];
  float* total[kMaxQueriesPerTile];
};

// Queries [first, first + kQueries) of the tile over one split of which they
// see the same positions.
template <class Units, typename A, int kQueries>
void AttendSplit(const SplitView& split, float scale, int64_t head_dim,
                 int first, AttentionScratch<Units>& scratch,
                 RunningQuery* running) {
  const int64_t padded = PaddedHeadDim(head_dim);
  for (int64_t i = split.visible.begin / 16 * 16; i < split.visible.end;
       i += 16) {
    float* scores[kQueries];
    for (int q = 0; q < kQueries; ++q)
      scores[q] = scratch.scores[first + q] + i;
    ScorePositions<Units, A, kQueries>(
        static_cast<const A*>(split.blocks[i / kBlockTokens]), i % kBlockTokens,
        head_dim / Units::kSize, scratch.q + first, scores);
  }
  SplitSoftmax softmax[kQueries];
  for (int q = 0; q < kQueries; ++q) {
    softmax[q] = Softmax<Units>(scratch.scores[first + q], split.visible, scale,
                                scratch.p[first + q]);
  }
  for (int64_t d = 0; d < padded; d += 16) {
    float* out[kQueries];
    for (int q = 0; q < kQueries; ++q)
      out[q] = scratch.split_out[first + q] + d;
    MixValues<Units, A, kQueries>(split, head_dim, d, scratch.p + first, out);
  }
  for (int q = 0; q < kQueries; ++q) {
    JoinSplit(running[first + q], softmax[q], scratch.split_out[first + q],
              padded, scratch.total[first + q]);
  }
}

template <class Units, typename A>
void AttendTile(const QueryTile& tile, const KvLayer& cache, float* memory) {
  const int64_t head_dim = cache.head_dim;
  AttentionScratch<Units> scratch(memory, head_dim);
  RunningQuery running[kMaxQueriesPerTile];
  int64_t first_position = tile.visible[0].begin;
  int64_t end_position = 0;
  for (int q = 0; q < tile.num_queries; ++q) {
    Units::PackQuery(static_cast<const A*>(tile.q[q]), head_dim, scratch.q[q]);
    first_position = std::min(first_position, tile.visible[q].begin);
    end_position = std::max(end_position, tile.visible[q].end);
  }
  for (int64_t base = first_position / kSplitTokens * kSplitTokens;
       base < end_position; base += kSplitTokens) {
    SplitView split;
    const int64_t split_end = std::min(base + kSplitTokens, end_position);
    for (int64_t p =
             std::max(base, first_position / kBlockTokens * kBlockTokens);
         p < split_end; p += kBlockTokens) {
      split.blocks[(p - base) / kBlockTokens] =
          static_cast<const A*>(cache.data) +
          (tile.block_ids[p / kBlockTokens] * cache.num_kv_heads +
           tile.kv_head) *
              HeadBlockElements(head_dim);
    }
    const auto visible_in_split = [&](int q) {
      return IndexRange{std::max(tile.visible[q].begin, base) - base,
                        std::min(tile.visible[q].end, split_end) - base};
    };
    for (int q = 0, next; q < tile.num_queries; q = next) {
      split.visible = visible_in_split(q);
      next = q + 1;
      while (next < tile.num_queries &&
             visible_in_split(next) == split.visible) {
        ++next;
      }
      if (split.visible.begin >= split.visible.end) continue;
      switch (next - q) {
        case 1:
          AttendSplit<Units, A, 1>(split, tile.scale, head_dim, q, scratch,
                                   running);
          break;
        case 2:
          AttendSplit<Units, A, 2>(split, tile.scale, head_dim, q, scratch,
                                   running);
          break;
        case 3:
          AttendSplit<Units, A, 3>(split, tile.scale, head_dim, q, scratch,
                                   running);
          break;
        default:
          AttendSplit<Units, A, 4>(split, tile.scale, head_dim, q, scratch,
                                   running);
      }
    }
  }
  for (int q = 0; q < tile.num_queries; ++q) {
    A* out = static_cast<A*>(tile.out[q]);
    EachVector(head_dim, [&](int64_t i, int64_t n) {
      StoreN(out + i, Div(Load(scratch.total[q] + i), Set1(running[q].sum)), n);
    });
  }
}

// Calls visitor(Units{}, A{}) for a cache of `dtype`.
template <typename Visitor>
void VisitUnits(DType dtype, [[maybe_unused]] bool order_one,
                Visitor&& visitor) {
#ifdef WITAN_BF16_DOT
  if (order_one && dtype == DType::kBF16) return visitor(PairUnits{}, Bf16{});
#endif
  VisitActivation(dtype, [&]<typename A>(A) { visitor(LaneUnits<A>{}, A{}); });
}

inline void RopeWriteKvBody(const float* q, const float* k, const float* v,
                            const float* rope, int64_t rotary_dim,
                            int64_t num_heads, const KvLayer& cache,
                            bool order_one, int32_t block, int64_t slot,
                            void* q_out) {
  VisitUnits(cache.dtype, order_one, [&]<class Units, typename A>(Units, A) {
    RopeWriteKvRow<Units>(q, k, v, rope, rotary_dim, num_heads, cache, block,
                          slot, static_cast<A*>(q_out));
  });
}

inline void AttentionBody(const QueryTile& tile, const KvLayer& cache,
                          float* scratch) {
  VisitUnits(cache.dtype, tile.order_one,
             [&]<class Units, typename A>(Units, A) {
               AttendTile<Units, A>(tile, cache, scratch);
             });
}
