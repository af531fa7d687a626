#ifndef WITAN_WORKER_WEIGHTS_H_
#define WITAN_WORKER_WEIGHTS_H_

// One rank's slices of the checkpoint, as views into the mapped file, or into
// memory for tensors that are converted (model/mapped_tensor.h).

#include <cstddef>
#include <memory>
#include <vector>

#include "kernels/tensor.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/shard_plan.h"

namespace witan {

// Shapes of one rank: n local query heads, k local KV heads, f local columns of
// the dense FFN, e local experts, v local vocabulary rows; the other letters as
// in kernels/tensor.h. What the model does not have is empty.
struct NormWeights {
  ConstTensorView weight;  // [1, H]
  ConstTensorView bias;    // [1, H]
};
struct LayerWeights {
  NormWeights attention_norm;
  ConstTensorView query;        // [n*D, H]
  ConstTensorView key;          // [k*D, H]
  ConstTensorView value;        // [k*D, H]
  ConstTensorView query_bias;   // [1, n*D]
  ConstTensorView key_bias;     // [1, k*D]
  ConstTensorView value_bias;   // [1, k*D]
  ConstTensorView query_norm;   // [1, D]
  ConstTensorView key_norm;     // [1, D]
  ConstTensorView output;       // [H, n*D], rows N*D apart
  ConstTensorView output_bias;  // [1, H]
  NormWeights ffn_norm;
  ConstTensorView gate;                      // [f, H]
  ConstTensorView up;                        // [f, H]
  ConstTensorView down;                      // [H, f], rows F apart
  ConstTensorView router;                    // [E, H]
  std::vector<ConstTensorView> expert_gate;  // e of [F, H]
  std::vector<ConstTensorView> expert_up;    // e of [F, H]
  std::vector<ConstTensorView> expert_down;  // e of [H, F]
};

// Views stay valid while both the Weights and the checkpoint live. Immutable.
class Weights {
 public:
  // REQUIRES: CheckCheckpoint(config, checkpoint) was OK. Copied are only
  // tensors that are converted, on up to num_threads threads, and those that
  // the file does not align to their element size.
  Weights(const ModelConfig& config, const RankShard& shard,
          const Checkpoint& checkpoint, int num_threads);

  ConstTensorView embedding() const { return embedding_; }  // [V, H]
  const NormWeights& final_norm() const { return final_norm_; }
  ConstTensorView lm_head() const { return lm_head_; }            // [v, H]
  ConstTensorView lm_head_bias() const { return lm_head_bias_; }  // [1, v]
  const LayerWeights& layer(int64_t index) const { return layers_[index]; }

 private:
  // Rows of one slice that are yet to be copied.
  struct Copy {
    const MappedTensor* tensor = nullptr;
    IndexRange rows;
    IndexRange columns;
    std::byte* to = nullptr;
  };

  ConstTensorView SliceView(const ModelConfig& config, const TensorSlice& slice,
                            const Checkpoint& checkpoint,
                            std::vector<Copy>& copies);
  void Place(const TensorSlice& slice, ConstTensorView view);
  // Where the one tensor of a role outside the experts goes.
  ConstTensorView& ViewOf(TensorRole role, int64_t layer);

  ConstTensorView embedding_;
  NormWeights final_norm_;
  ConstTensorView lm_head_;
  ConstTensorView lm_head_bias_;
  std::vector<LayerWeights> layers_;
  std::vector<std::unique_ptr<std::byte[]>> copies_;
};

}  // namespace witan

#endif  // WITAN_WORKER_WEIGHTS_H_
