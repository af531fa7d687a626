// Routing and combination of experts: included inside a namespace that has the
// lanes of a simd_*.h (see kernels.h).

inline void RouterTopKBody(ConstTensorView logits, int top_k,
                           TensorView expert_ids, TensorView weights,
                           IndexRange rows) {
  const int64_t num_experts = logits.columns;
  std::vector<float> p(static_cast<size_t>(num_experts));
  std::vector<bool> chosen(p.size());
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    const float* row = logits.Row<float>(t);
    const F32x16 max = Set1(MaxOfBody(row, num_experts));
    F32x16 sum = Zero();
    EachVector(num_experts, [&](int64_t i, int64_t n) {
      const F32x16 e = Exp(Sub(LoadN(row + i, n), max));
      StoreN(p.data() + i, e, n);
      sum = Add(sum, KeepLanes(e, 0, n, Zero()));
    });
    const float total = SumLanes(sum);
    for (float& e : p) e /= total;
    chosen.assign(p.size(), false);
    for (int j = 0; j < top_k; ++j) {
      int64_t best = -1;
      for (int64_t e = 0; e < num_experts; ++e) {
        if (!chosen[e] && (best < 0 || p[e] > p[best])) best = e;
      }
      chosen[best] = true;
    }
    int32_t* ids = expert_ids.Row<int32_t>(t);
    float* w = weights.Row<float>(t);
    float chosen_total = 0;
    int64_t j = 0;
    for (int64_t e = 0; e < num_experts; ++e) {
      if (!chosen[e]) continue;
      ids[j] = static_cast<int32_t>(e);
      w[j] = p[e];
      chosen_total += p[e];
      ++j;
    }
    for (j = 0; j < top_k; ++j) w[j] /= chosen_total;
  }
}

// One vector of one row: the sum of the leaves of `subtree`, joined as the
// tree joins them. leaf_sum(leaf) gives one leaf.
template <typename LeafSum>
F32x16 SumOfSubtree(const Subtree& subtree, LeafSum&& leaf_sum) {
  F32x16 pending[4];
  for (int i = 0; i < subtree.num_leaves; ++i) {
    F32x16 v = leaf_sum(subtree.first_leaf + i);
    int level = 0;
    for (; (i >> level) & 1; ++level) v = Add(pending[level], v);
    pending[level] = v;
  }
  return pending[std::countr_zero(static_cast<unsigned>(subtree.num_leaves))];
}

inline void CombineExpertsBody(ConstTensorView y, const ExpertRows& expert_rows,
                               ConstTensorView expert_ids,
                               ConstTensorView weights, int64_t total_experts,
                               std::span<const Subtree> subtrees,
                               TensorView partials, IndexRange rows) {
  const int64_t top_k = expert_ids.columns;
  const int64_t num_rows = expert_ids.rows;
  VisitActivation(y.dtype, [&]<typename A>(A) {
    for (int64_t t = rows.begin; t < rows.end; ++t) {
      const int32_t* ids = expert_ids.Row<int32_t>(t);
      const float* w = weights.Row<float>(t);
      const int32_t* slots = expert_rows.slot_of_choice + t * top_k;
      for (size_t s = 0; s < subtrees.size(); ++s) {
        float* out =
            partials.Row<float>(static_cast<int64_t>(s) * num_rows + t);
        EachVector(partials.columns, [&](int64_t i, int64_t n) {
          const F32x16 sum = SumOfSubtree(subtrees[s], [&](int leaf) {
            const IndexRange experts = LeafUnits(total_experts, leaf);
            F32x16 acc = Zero();
            for (int64_t j = 0; j < top_k; ++j) {
              if (ids[j] < experts.begin || ids[j] >= experts.end) continue;
              acc = Fma(Set1(w[j]), LoadN(y.Row<A>(slots[j]) + i, n), acc);
            }
            return acc;
          });
          StoreN(out + i, sum, n);
        });
      }
    }
  });
}
