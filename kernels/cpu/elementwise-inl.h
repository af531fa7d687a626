// Functions of one element and ops that stay within a row: included inside a
// namespace that has the lanes of a simd_*.h (see kernels.h).

// e^x within 1.5 units in the last place; 0 below 2^-126, infinity above the
// largest float. Taylor series on |r| <= ln(2) / 2.
inline F32x16 Exp(F32x16 x) {
  const F32x16 one_and_a_half_2_23 = Set1(12582912.0f);
  const F32x16 n_bits =
      Fma(x, Set1(1.44269504f), one_and_a_half_2_23);  // 1 / ln 2
  const F32x16 n = Sub(n_bits, one_and_a_half_2_23);
  F32x16 r = Fma(n, Set1(-0.693145751953125f), x);  // ln 2, upper bits
  r = Fma(n, Set1(-1.42860677e-6f), r);             // ln 2, the rest
  F32x16 p = Set1(1.0f / 5040);
  p = Fma(p, r, Set1(1.0f / 720));
  p = Fma(p, r, Set1(1.0f / 120));
  p = Fma(p, r, Set1(1.0f / 24));
  p = Fma(p, r, Set1(1.0f / 6));
  p = Fma(p, r, Set1(0.5f));
  p = Fma(p, r, Set1(1.0f));
  p = Fma(p, r, Set1(1.0f));
  F32x16 result = AddToExponent(p, n_bits);
  result = IfLess(x, Set1(-87.3365f), Zero(), result);
  result = IfLess(Set1(88.7228f), x,
                  Set1(std::numeric_limits<float>::infinity()), result);
  return IfNumber(x, result, x);
}

// log(x) for positive normal x within 2 units in the last place:
// 2 atanh((m - 1) / (m + 1)) + e ln 2.
inline F32x16 Log(F32x16 x) {
  F32x16 m, e;
  SplitExponent(x, m, e);
  const F32x16 s = Div(Sub(m, Set1(1.0f)), Add(m, Set1(1.0f)));
  const F32x16 s2 = Mul(s, s);
  F32x16 p = Set1(1.0f / 11);
  p = Fma(p, s2, Set1(1.0f / 9));
  p = Fma(p, s2, Set1(1.0f / 7));
  p = Fma(p, s2, Set1(1.0f / 5));
  p = Fma(p, s2, Set1(1.0f / 3));
  const F32x16 twice = Add(s, s);
  F32x16 result = Fma(Mul(twice, s2), p, twice);
  result = Fma(e, Set1(1.42860677e-6f), result);
  return Fma(e, Set1(0.693145751953125f), result);
}

// Calls step(column, n) for every vector of a row: n = 16, less at the end.
template <typename Step>
void EachVector(int64_t columns, Step&& step) {
  for (int64_t column = 0; column < columns; column += 16) {
    step(column, std::min<int64_t>(16, columns - column));
  }
}

inline void EmbedBody(std::span<const TokenId> token_ids, ConstTensorView table,
                      TensorView out, IndexRange rows) {
  VisitFloat(table.dtype, [&]<typename W>(W) {
    for (int64_t t = rows.begin; t < rows.end; ++t) {
      const W* from = table.Row<W>(token_ids[t]);
      float* to = out.Row<float>(t);
      EachVector(out.columns, [&](int64_t i, int64_t n) {
        StoreN(to + i, LoadN(from + i, n), n);
      });
    }
  });
}

inline float ReciprocalRoot(float x) {
  return 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
}

template <typename W, typename A>
void RmsNormRow(const float* residual, const W* weight, float epsilon,
                int64_t columns, A* out) {
  F32x16 squares = Zero();
  EachVector(columns, [&](int64_t i, int64_t n) {
    const F32x16 x = LoadN(residual + i, n);
    squares = Fma(x, x, squares);
  });
  const float mean = SumLanes(squares) / static_cast<float>(columns);
  const F32x16 scale = Set1(ReciprocalRoot(mean + epsilon));
  EachVector(columns, [&](int64_t i, int64_t n) {
    const F32x16 x = LoadN(residual + i, n);
    StoreN(out + i, Mul(Mul(x, scale), LoadN(weight + i, n)), n);
  });
}

template <typename W, typename A>
void LayerNormRow(const float* residual, const W* weight, const W* bias,
                  float epsilon, int64_t columns, A* out) {
  F32x16 sum = Zero();
  EachVector(columns, [&](int64_t i, int64_t n) {
    sum = Add(sum, LoadN(residual + i, n));
  });
  const F32x16 mean = Set1(SumLanes(sum) / static_cast<float>(columns));
  F32x16 squares = Zero();
  EachVector(columns, [&](int64_t i, int64_t n) {
    const F32x16 x = KeepLanes(Sub(LoadN(residual + i, n), mean), 0, n, Zero());
    squares = Fma(x, x, squares);
  });
  const float variance = SumLanes(squares) / static_cast<float>(columns);
  const F32x16 scale = Set1(ReciprocalRoot(variance + epsilon));
  EachVector(columns, [&](int64_t i, int64_t n) {
    const F32x16 x = Sub(LoadN(residual + i, n), mean);
    StoreN(out + i,
           Fma(Mul(x, scale), LoadN(weight + i, n), LoadN(bias + i, n)), n);
  });
}

// to += row 0 of `from`.
template <typename T>
void AddRow(float* to, const T* from, int64_t columns) {
  EachVector(columns, [&](int64_t i, int64_t n) {
    StoreN(to + i, Add(LoadN(to + i, n), LoadN(from + i, n)), n);
  });
}

inline void AddNormBody(TensorView residual, ConstTensorView delta,
                        ConstTensorView delta_bias, const Norm& norm,
                        TensorView out, IndexRange rows) {
  const int64_t columns = residual.columns;
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    float* sum = residual.Row<float>(t);
    if (!delta.empty()) {
      VisitActivation(delta.dtype, [&]<typename A>(A) {
        AddRow(sum, delta.Row<A>(t), columns);
      });
    }
    if (!delta_bias.empty()) {
      VisitFloat(delta_bias.dtype, [&]<typename W>(W) {
        AddRow(sum, delta_bias.Row<W>(0), columns);
      });
    }
    if (out.empty()) continue;
    VisitFloat(norm.weight.dtype, [&]<typename W>(W) {
      VisitActivation(out.dtype, [&]<typename A>(A) {
        const W* weight = norm.weight.Row<W>(0);
        if (norm.bias.empty()) {
          RmsNormRow(sum, weight, norm.epsilon, columns, out.Row<A>(t));
        } else {
          LayerNormRow(sum, weight, norm.bias.Row<W>(0), norm.epsilon, columns,
                       out.Row<A>(t));
        }
      });
    });
  }
}

inline void AddBiasBody(TensorView y, ConstTensorView bias, IndexRange rows) {
  VisitFloat(bias.dtype, [&]<typename W>(W) {
    for (int64_t t = rows.begin; t < rows.end; ++t) {
      AddRow(y.Row<float>(t), bias.Row<W>(0), y.columns);
    }
  });
}

inline void SiluMulBody(ConstTensorView gate, ConstTensorView up,
                        TensorView out, IndexRange rows) {
  VisitActivation(out.dtype, [&]<typename A>(A) {
    for (int64_t t = rows.begin; t < rows.end; ++t) {
      EachVector(out.columns, [&](int64_t i, int64_t n) {
        const F32x16 g = LoadN(gate.Row<float>(t) + i, n);
        const F32x16 u = LoadN(up.Row<float>(t) + i, n);
        const F32x16 silu = Div(g, Add(Set1(1.0f), Exp(Sub(Zero(), g))));
        StoreN(out.Row<A>(t) + i, Mul(silu, u), n);
      });
    }
  });
}

// The largest of n elements, NaN ignored; -infinity when there is none.
inline float MaxOfBody(const float* x, int64_t n) {
  const F32x16 lowest = Set1(-std::numeric_limits<float>::infinity());
  F32x16 best = lowest;
  EachVector(n, [&](int64_t i, int64_t used) {
    best = Max(KeepLanes(LoadN(x + i, used), 0, used, lowest), best);
  });
  return MaxLanes(best);
}

inline float SumExpBody(const float* x, float shift, int64_t n) {
  F32x16 sum = Zero();
  EachVector(n, [&](int64_t i, int64_t used) {
    const F32x16 e = Exp(Sub(LoadN(x + i, used), Set1(shift)));
    sum = Add(sum, KeepLanes(e, 0, used, Zero()));
  });
  return SumLanes(sum);
}

inline void ExpOfBody(const float* x, int64_t n, float* out) {
  EachVector(n, [&](int64_t i, int64_t used) {
    StoreN(out + i, Exp(LoadN(x + i, used)), used);
  });
}

inline void LogOfBody(const float* x, int64_t n, float* out) {
  EachVector(n, [&](int64_t i, int64_t used) {
    StoreN(out + i, Log(LoadN(x + i, used)), used);
  });
}

// Elements [i, i + n) of the sum, n <= 16 * kVectors: several vectors at a
// time, so that the walk along the tree is done once for all of them.
template <int kVectors, typename A>
void TreeSumBlock(std::span<const Partial> partials, int64_t i, int64_t n,
                  A* out) {
  // A binary counter: pending[l] holds the sum of 2^l leaves.
  F32x16 pending[4][kVectors];
  for (const Partial& partial : partials) {
    F32x16 sum[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const float* from = partial.data + i + 16 * v;
      sum[v] = kVectors == 1 ? LoadN(from, n) : Load(from);
    }
    const int num_leaves = partial.subtree.num_leaves;
    int level = std::countr_zero(static_cast<unsigned>(num_leaves));
    const int index = partial.subtree.first_leaf / num_leaves;
    for (int left = index; left & 1; left >>= 1, ++level) {
      for (int v = 0; v < kVectors; ++v) {
        sum[v] = Add(pending[level][v], sum[v]);
      }
    }
    for (int v = 0; v < kVectors; ++v) pending[level][v] = sum[v];
  }
  for (int v = 0; v < kVectors; ++v) {
    StoreN(out + i + 16 * v, pending[3][v], std::min<int64_t>(n, 16));
  }
}

inline void AddScaledBody(const float* x, float scale, int64_t n, float* y) {
  const F32x16 factor = Set1(scale);
  EachVector(n, [&](int64_t i, int64_t m) {
    StoreN(y + i, Fma(factor, LoadN(x + i, m), LoadN(y + i, m)), m);
  });
}

// The sum of num_leaves leaves, a power of two, that are `stride` elements
// apart.
inline F32x16 SumOfLeaves(const float* first, int64_t stride, int num_leaves,
                          int64_t n) {
  if (num_leaves == 1) return LoadN(first, n);
  const int half = num_leaves / 2;
  return Add(SumOfLeaves(first, stride, half, n),
             SumOfLeaves(first + half * stride, stride, half, n));
}

// `rows` are those of one subtree's partial sum.
inline void JoinLeavesBody(ConstTensorView leaves,
                           std::span<const Subtree> subtrees,
                           TensorView partials, IndexRange rows) {
  const int64_t num_rows =
      partials.rows / static_cast<int64_t>(subtrees.size());
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    int64_t leaf = 0;
    for (size_t s = 0; s < subtrees.size(); ++s) {
      const float* from = leaves.Row<float>(leaf * num_rows + t);
      float* to = partials.Row<float>(static_cast<int64_t>(s) * num_rows + t);
      EachVector(partials.columns, [&](int64_t i, int64_t n) {
        StoreN(to + i,
               SumOfLeaves(from + i, num_rows * leaves.row_stride,
                           subtrees[s].num_leaves, n),
               n);
      });
      leaf += subtrees[s].num_leaves;
    }
  }
}

inline void RoundBody(ConstTensorView x, TensorView out, IndexRange rows) {
  VisitActivation(out.dtype, [&]<typename A>(A) {
    for (int64_t t = rows.begin; t < rows.end; ++t) {
      const float* from = x.Row<float>(t);
      A* to = out.Row<A>(t);
      EachVector(out.columns, [&](int64_t i, int64_t n) {
        StoreN(to + i, LoadN(from + i, n), n);
      });
    }
  });
}

inline void TreeSumBody(std::span<const Partial> partials, TensorView out,
                        IndexRange elements) {
  constexpr int kVectors = 4;
  VisitActivation(out.dtype, [&]<typename A>(A) {
    A* to = static_cast<A*>(out.data);
    int64_t i = elements.begin;
    for (; i + 16 * kVectors <= elements.end; i += 16 * kVectors) {
      TreeSumBlock<kVectors>(partials, i, 16 * kVectors, to);
    }
    for (; i < elements.end; i += 16) {
      TreeSumBlock<1>(partials, i, std::min<int64_t>(16, elements.end - i), to);
    }
  });
}
