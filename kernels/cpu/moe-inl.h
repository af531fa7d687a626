// Routing and combination of experts: included inside a namespace that has the
// lanes of a simd_*.h (see kernels.h).

// p = softmax(logits) over E experts, those of -infinity left out.
inline void SoftmaxRow(const float* logits, int64_t num_experts, float* p) {
  const F32x16 max = Set1(MaxOfBody(logits, num_experts));
  F32x16 sum = Zero();
  EachVector(num_experts, [&](int64_t i, int64_t n) {
    const F32x16 e = Exp(Sub(LoadN(logits + i, n), max));
    StoreN(p + i, e, n);
    sum = Add(sum, KeepLanes(e, 0, n, Zero()));
  });
  const float total = SumLanes(sum);
  for (int64_t e = 0; e < num_experts; ++e) p[e] /= total;
}

// The expert with the largest x that is not chosen; the first one of equals.
inline int64_t LargestOf(std::span<const float> x,
                         const std::vector<bool>& chosen) {
  int64_t best = -1;
  for (size_t e = 0; e < x.size(); ++e) {
    if (!chosen[e] && (best < 0 || x[e] > x[best])) {
      best = static_cast<int64_t>(e);
    }
  }
  return best;
}

// One choice of the sparse mixer among the experts that are not chosen yet: the
// largest logit; weighed by softmax over those whose logits are close to it.
inline int64_t ChooseSparsely(std::span<const float> logits, float jitter,
                              std::vector<bool>& chosen,
                              std::span<float> scratch, float* weight) {
  const int64_t best = LargestOf(logits, chosen);
  const float max = logits[best];
  for (size_t e = 0; e < logits.size(); ++e) {
    const float size = logits[e] < 0 ? -logits[e] : logits[e];
    const float distance = (max - logits[e]) / (size > max ? size : max);
    const bool is_close = !chosen[e] && !(distance > 2 * jitter);
    scratch[e] = is_close ? logits[e] : -std::numeric_limits<float>::infinity();
  }
  SoftmaxRow(scratch.data(), static_cast<int64_t>(logits.size()),
             scratch.data());
  *weight = scratch[best];
  chosen[best] = true;
  return best;
}

inline void RouterTopKBody(ConstTensorView logits, const RoutingRule& rule,
                           int top_k, TensorView expert_ids, TensorView weights,
                           IndexRange rows) {
  const auto num_experts = static_cast<size_t>(logits.columns);
  std::vector<float> p(num_experts);
  std::vector<float> weight_of(num_experts);
  std::vector<bool> chosen(num_experts);
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    const std::span<const float> row(logits.Row<float>(t), num_experts);
    chosen.assign(num_experts, false);
    if (rule.kind == RoutingKind::kSparseMixer) {
      for (int j = 0; j < top_k; ++j) {
        float weight = 0;
        const int64_t best =
            ChooseSparsely(row, rule.jitter, chosen, p, &weight);
        weight_of[best] = weight;
      }
    } else {
      SoftmaxRow(row.data(), logits.columns, weight_of.data());
      for (int j = 0; j < top_k; ++j)
        chosen[LargestOf(weight_of, chosen)] = true;
    }
    int32_t* ids = expert_ids.Row<int32_t>(t);
    float* w = weights.Row<float>(t);
    float chosen_total = 0;
    int64_t j = 0;
    for (size_t e = 0; e < num_experts; ++e) {
      if (!chosen[e]) continue;
      ids[j] = static_cast<int32_t>(e);
      w[j] = weight_of[e];
      chosen_total += weight_of[e];
      ++j;
    }
    if (rule.kind != RoutingKind::kSoftmaxNormalised) continue;
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
