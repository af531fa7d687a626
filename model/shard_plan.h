#ifndef WITAN_MODEL_SHARD_PLAN_H_
#define WITAN_MODEL_SHARD_PLAN_H_

// Who owns which slice of the model. Pure arithmetic; the only place that
// divides heads, vocabulary rows and experts among ranks.
//
// One world of R = lcm(tp, ep) ranks. Attention, the dense FFN and vocabulary
// are split over tp consecutive ranks, whole experts over ep consecutive ranks,
// over the same ranks. Member i of a group of g owns leaves LeavesOfMember(i,
// g) of query heads, FFN columns (in units of kFfnUnitColumns), vocabulary rows
// or experts, perhaps none. The R/tp attention groups and R/ep expert groups
// repeat the same work on the same rows. Every rank holds norms, routers, the
// bias of the attention's output and the embedding table, and those KV heads
// that its query heads touch.

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/leaves.h"
#include "model/config.h"

namespace witan {

// How a model is split. Valid once made by MakeLayout.
struct Layout {
  int tp = 1;
  int ep = 1;
  int num_ranks() const;  // lcm(tp, ep)
  bool operator==(const Layout&) const = default;
};

// INVALID_ARGUMENT unless tp and ep are in [1, kNumLeaves]. With
// num_ranks > 0, tp and ep must also divide num_ranks and lcm(tp, ep) must
// equal it; the message says which values would do.
absl::StatusOr<Layout> MakeLayout(int tp, int ep, int num_ranks = 0);

// INVALID_ARGUMENT when ep > 1 and the model has no experts to share.
absl::Status CheckLayout(const ModelConfig& config, Layout layout);

// "1, 2 or 4" for 4: the values up to kNumLeaves that divide n.
std::string DivisorsText(int n);

// What one rank owns. Ranges are of the whole model's indices.
struct RankShard {
  int rank = 0;
  int tp_index = 0;         // member of its attention group: rank % tp
  int ep_index = 0;         // member of its expert group: rank % ep
  int attention_group = 0;  // rank / tp
  int expert_group = 0;     // rank / ep
  IndexRange attention_leaves;
  IndexRange expert_leaves;
  IndexRange query_heads;
  IndexRange kv_heads;     // those that query_heads touch; shared by neighbours
  IndexRange ffn_columns;  // of the dense FFN's F
  IndexRange vocab_rows;   // of the output projection
  IndexRange experts;
  bool operator==(const RankShard&) const = default;

  // Local index of the KV head of each local query head.
  std::vector<int32_t> KvHeadOf(const ModelConfig& config) const;
  // Columns of the output projection's local input that each owned attention
  // leaf covers, relative to the first local query head.
  std::vector<IndexRange> AttentionLeafColumns(const ModelConfig& config) const;
  // The same of the dense FFN's down projection, relative to ffn_columns.
  std::vector<IndexRange> FfnLeafColumns(const ModelConfig& config) const;
};

// Columns of the dense FFN in adjacent leaves; none in a model with experts.
IndexRange FfnColumns(const ModelConfig& config, IndexRange leaves);

// REQUIRES: layout from MakeLayout, 0 <= rank < layout.num_ranks().
RankShard MakeRankShard(const ModelConfig& config, Layout layout, int rank);

// The parts of a checkpoint, named by role; the family maps a role to the
// checkpoint's tensor name (model/families.h).
enum class TensorRole : uint8_t {
  kEmbedding,          // [V, H]
  kAttentionNorm,      // [H]
  kAttentionNormBias,  // [H]
  kQuery,              // [N*D, H]
  kKey,                // [K*D, H]
  kValue,              // [K*D, H]
  kQueryBias,          // [N*D]
  kKeyBias,            // [K*D]
  kValueBias,          // [K*D]
  kQueryNorm,          // [D]
  kKeyNorm,            // [D]
  kOutput,             // [H, N*D]
  kOutputBias,         // [H]
  kFfnNorm,            // [H]
  kFfnNormBias,        // [H]
  kGate,               // [F, H] of a dense FFN
  kUp,                 // [F, H]
  kDown,               // [H, F]
  kRouter,             // [E, H]
  kExpertGate,         // [F, H] of one expert
  kExpertUp,           // [F, H]
  kExpertDown,         // [H, F]
  kFinalNorm,          // [H]
  kFinalNormBias,      // [H]
  kLmHead,             // [V, H]; absent from the file when tied
  kLmHeadBias,         // [V]
};

// A rectangle of one tensor; a vector is one row.
struct TensorSlice {
  TensorRole role = TensorRole::kEmbedding;
  int64_t layer = -1;   // -1: not in a layer
  int64_t expert = -1;  // -1: not in an expert
  IndexRange rows;
  IndexRange columns;
  bool operator==(const TensorSlice&) const = default;
};

// Whether a model of this config has tensors of the role, tied ones included.
bool HasRole(const ModelConfig& config, TensorRole role);

// Every slice that the rank holds, in load order. Empty slices are left out.
std::vector<TensorSlice> SlicesOfRank(const ModelConfig& config,
                                      const RankShard& shard);

// The whole tensor: its full rows and columns.
TensorSlice WholeTensor(const ModelConfig& config, TensorRole role,
                        int64_t layer, int64_t expert);

// The shape of a slice as a checkpoint stores it: norms and biases have one
// dimension, everything else two.
std::vector<int64_t> StoredShape(const TensorSlice& slice);

}  // namespace witan

#endif  // WITAN_MODEL_SHARD_PLAN_H_
