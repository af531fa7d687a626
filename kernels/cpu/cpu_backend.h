#ifndef WITAN_KERNELS_CPU_CPU_BACKEND_H_
#define WITAN_KERNELS_CPU_CPU_BACKEND_H_

// The Backend of a CPU: checks shapes, cuts each op into independent pieces
// and runs them on a pool of threads. Ops are done when they return, so
// Synchronize() has nothing to wait for. Contracts: kernels/backend.h.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/sampler.h"
#include "kernels/cpu/thread_pool.h"

namespace witan {

class CpuBackend : public Backend {
 public:
  // order_one: bf16 times bf16 by vdpbf16ps. REQUIRES: the kernels have it.
  CpuBackend(const CpuKernels& kernels, bool order_one,
             std::unique_ptr<ThreadPool> pool);

  absl::StatusOr<Buffer> Allocate(size_t bytes) override;
  void Synchronize() override {}
  // Order two has the same bits on every path, so it is one kernel set.
  std::string kernel_set() const override {
    return order_one_ ? "cpu-avx512bf16" : "cpu-fma16";
  }

  int64_t num_pieces_of_other_threads() const override {
    return pool_->num_items_of_other_threads();
  }

  void Embed(std::span<const TokenId> token_ids, ConstTensorView table,
             TensorView out) override;
  void AddNorm(TensorView residual, ConstTensorView delta,
               ConstTensorView delta_bias, const Norm& norm,
               TensorView out) override;
  void AddBias(TensorView y, ConstTensorView bias) override;
  void MatMul(ConstTensorView x, ConstTensorView w, TensorView y) override;
  void MatMulLeaves(ConstTensorView x, ConstTensorView w,
                    std::span<const IndexRange> leaf_columns,
                    std::span<const Subtree> subtrees,
                    TensorView partials) override;
  void TreeSum(std::span<const Partial> partials, int64_t n,
               TensorView out) override;
  void RopeWriteKv(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                   ConstTensorView rope, const AttentionBatch& batch,
                   const KvLayer& cache, TensorView q_out) override;
  void PagedAttention(ConstTensorView q, const KvLayer& cache,
                      const AttentionBatch& batch,
                      std::span<const int32_t> kv_head_of, float scale,
                      int64_t window, TensorView out) override;
  void SiluMul(ConstTensorView gate, ConstTensorView up,
               const int32_t* num_rows, TensorView out) override;
  void RouterTopK(ConstTensorView logits, const RoutingRule& rule, int top_k,
                  TensorView expert_ids, TensorView weights) override;
  void GroupByExpert(ConstTensorView expert_ids, ExpertRows& rows) override;
  void GroupedMatMul(ConstTensorView x, bool gather, const ExpertRows& rows,
                     std::span<const ConstTensorView> w, TensorView y) override;
  void CombineExperts(ConstTensorView y, const ExpertRows& rows,
                      ConstTensorView expert_ids, ConstTensorView weights,
                      int64_t total_experts, std::span<const Subtree> subtrees,
                      TensorView partials) override;
  void AddLora(ConstTensorView x, AdapterOfRow adapter_of_row,
               std::span<const LoraFactors> adapters, TensorView y) override;
  void AddGroupedLora(ConstTensorView x, bool gather, const ExpertRows& rows,
                      AdapterOfRow adapter_of_row, int64_t num_adapters,
                      std::span<const LoraFactors> factors,
                      TensorView y) override;
  void JoinLeaves(ConstTensorView leaves, std::span<const Subtree> subtrees,
                  TensorView partials) override;
  void Round(ConstTensorView x, const int32_t* num_rows,
             TensorView out) override;
  void GatherRows(ConstTensorView x, std::span<const int32_t> row_ids,
                  TensorView out) override;
  void Sample(ConstTensorView logits, std::span<const SampleRow> rows,
              std::span<SampledToken> tokens) override;
  size_t KvBytes(int64_t num_blocks, int64_t num_kv_heads, int64_t head_dim,
                 DType dtype) const override;

  // Memory that the ops so far made the backend keep for itself.
  int64_t workspace_bytes() const;

 private:
  // Memory that grows and is reused from op to op; contents are not kept.
  class Workspace {
   public:
    void* Reserve(size_t bytes);
    size_t capacity_bytes() const { return capacity_bytes_; }

   private:
    struct Free {
      void operator()(void* memory) const;
    };
    std::unique_ptr<void, Free> memory_;
    size_t capacity_bytes_ = 0;
  };
  // The rows of x that one job multiplies.
  struct JobRows {
    ConstTensorView x;
    const int32_t* source_rows = nullptr;  // null: all of x in order
  };

  // Rows that share the factors of one weight: y_rows[i] gets what x_rows[i]
  // makes.
  struct LoraGroup {
    const LoraFactors* factors = nullptr;
    std::vector<int32_t> x_rows;
    std::vector<int32_t> y_rows;
  };

  // Calls body(rows) over pieces of [0, num_rows), of `columns` elements each.
  void ForRows(int64_t num_rows, int64_t columns,
               const std::function<void(IndexRange)>& body);
  // Memory of one thread, of `bytes` at least.
  void* ThreadScratch(int thread, size_t bytes);

  // A job for x w^T with K cut at `leaf_columns`, everything but packed_x set.
  // `leaves` must outlive it.
  MatMulJob MakeJob(ConstTensorView x, int64_t num_rows, ConstTensorView w,
                    std::span<const IndexRange> leaf_columns,
                    std::span<const Subtree> subtrees, TensorView y,
                    std::vector<PackedLeaf>& leaves) const;
  void AddLoraGroups(ConstTensorView x, std::span<const LoraGroup> groups,
                     TensorView y);
  void RunJobs(std::span<MatMulJob> jobs, std::span<const JobRows> rows);
  void PackRows(std::span<MatMulJob> jobs, std::span<const JobRows> rows);

  const CpuKernels& kernels_;
  const bool order_one_;
  const std::unique_ptr<ThreadPool> pool_;
  Workspace packed_x_;
  Workspace lora_;
  std::vector<Workspace> thread_scratch_;
  std::vector<Sampler> samplers_;  // one per thread
};

}  // namespace witan

#endif  // WITAN_KERNELS_CPU_CPU_BACKEND_H_
