#ifndef WITAN_WORKER_DECODER_H_
#define WITAN_WORKER_DECODER_H_

// The forward pass, written once over Backend and Communicator:
//
//   embed -> L x [norm, q k v, rope + write KV, paged attention, output,
//                 tree sum, norm, experts (worker/moe.h) or dense FFN
//                 (worker/dense.h), tree sum]
//         -> norm of the rows that are asked for -> logits
//
// Biases and the norms of query and key are there where the config says so.
//
// Owned and used by the step thread of one rank; shares the backend with the
// other objects of that rank.

#include <absl/status/statusor.h>

#include <memory>
#include <span>
#include <vector>

#include "base/step_plan.h"
#include "kernels/backend.h"
#include "model/memory_plan.h"
#include "model/shard_plan.h"
#include "worker/adapter_table.h"
#include "worker/comm/communicator.h"
#include "worker/dense.h"
#include "worker/kv_cache.h"
#include "worker/moe.h"
#include "worker/row_parallel.h"
#include "worker/slots.h"
#include "worker/tree_sum.h"
#include "worker/weights.h"

namespace witan {

// What the decoder reads and never owns; all of it outlives the decoder.
struct DecoderContext {
  const ModelConfig* config = nullptr;
  const RankShard* shard = nullptr;
  Layout layout;
  EngineLimits limits;
  int64_t one_shot_max_bytes = 0;
  Backend* backend = nullptr;
  const Weights* weights = nullptr;
  const PagedKvCache* cache = nullptr;
  const AdapterTable* adapters = nullptr;  // null: there are none
  ConstTensorView rope;                    // fp32 [rows, rotary_dim]
  Communicator* attention_comm = nullptr;  // of the rank's attention group
  Communicator* expert_comm = nullptr;     // of the rank's expert group
};

class Decoder {
 public:
  // Bytes that the send buffer of the attention group's communicator needs;
  // the expert group's is ExpertLayer::SendBytes.
  static size_t AttentionSendBytes(const ModelConfig& config, Layout layout,
                                   const EngineLimits& limits);

  // Allocates the workspace of one step.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(
      const DecoderContext& context);

  // Computes all rows of the step and writes their K and V. The error is the
  // communicator's, as everywhere here.
  absl::Status Forward(const StepPlan& plan, const ResolvedStep& step);

  // Logits of some rows of that step, fp32 [rows, V], on world rank 0 (valid
  // until the next call of either), an empty view on other ranks. All ranks ask
  // for the same rows.
  // REQUIRES: at most limits.max_sequences rows, each of the step.
  absl::StatusOr<ConstTensorView> Logits(std::span<const int32_t> row_ids);

  // Of attention and experts together.
  SumCounts sum_counts() const;

 private:
  explicit Decoder(const DecoderContext& context) : context_(context) {}

  absl::Status AllocateWorkspace();
  absl::Status Attention(int64_t layer_index, const AttentionBatch& batch,
                         const StepAdapters& adapters, int64_t num_rows);
  Norm NormOf(const NormWeights& weights) const;
  // out = x w^T + bias and what adapters add, normalised head by head where the
  // model does that.
  struct Projection {
    ConstTensorView weight;
    ConstTensorView bias;
    ConstTensorView head_norm;
    std::span<const LoraFactors> adapters;
  };
  void Project(ConstTensorView x, const Projection& projection,
               AdapterOfRow adapter_of_row, TensorView out);
  // Joins the vocabulary slices that the attention group gathered.
  ConstTensorView JoinVocabulary(Communicator::Views views, int64_t num_rows);

  const DecoderContext context_;
  int64_t num_step_rows_ = 0;
  std::vector<int32_t> kv_head_of_;
  std::vector<IndexRange> leaf_columns_;
  std::vector<IndexRange> vocab_rows_of_member_;
  std::unique_ptr<TreeAllReduce> attention_sum_;
  std::unique_ptr<RowParallelProduct> row_parallel_;
  std::unique_ptr<ExpertLayer> experts_;  // one of the two
  std::unique_ptr<DenseLayer> dense_;

  // Workspace; T = max_step_tokens, S = max_sequences, n and k local heads.
  Buffer residual_;          // fp32 [T, H]
  Buffer normed_;            // A [T, H]
  Buffer delta_;             // A [T, H]
  Buffer query_;             // fp32 [T, n*D]
  Buffer key_;               // fp32 [T, k*D]
  Buffer value_;             // fp32 [T, k*D]
  Buffer rotated_query_;     // A [T, n*D]
  Buffer attention_output_;  // A [T, n*D]
  Buffer logits_residual_;   // fp32 [S, H]
  Buffer logits_delta_;      // A [S, H]
  Buffer logits_normed_;     // A [S, H]
  Buffer logits_;            // fp32 [S, V], world rank 0 of tp > 1 only
};

}  // namespace witan

#endif  // WITAN_WORKER_DECODER_H_
