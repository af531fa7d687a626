#ifndef WITAN_MODEL_ADAPTER_H_
#define WITAN_MODEL_ADAPTER_H_

// A LoRA adapter (arXiv 2106.09685) as PEFT stores it: a directory with
// adapter_config.json and adapter_model.safetensors. Each weight w [O, K] of
// the base model that it changes has factors a [r, K] and b [O, r], and becomes
// w + scale * b a. scale is lora_alpha / r, or lora_alpha / sqrt(r) with
// use_rslora (arXiv 2312.03732). Format:
// https://huggingface.co/docs/peft/developer_guides/checkpoint
//
// Experts come in either of two forms: every expert's weight with factors of
// its own, or, since they are one parameter in transformers 5, the E experts of
// a layer stacked (target_parameters): a [E r, K], the rows of expert e from
// e r on, and b [O, r E], the columns of expert e being every E-th from e on.
// `gate_up_proj` is gate over up; where both it and `down_proj` are changed,
// its factors are called "experts.base_layer" and those of the other "experts".

#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "model/shard_plan.h"

namespace witan {

// What adapter_config.json says of the scale. What is not a plain LoRA is
// refused by name: DoRA, changed biases, layers or tokens trained as a whole,
// an initialisation that changed the base model.
struct AdapterConfig {
  int64_t rank = 0;
  // Modules have other ranks: what their tensors say is taken.
  bool has_rank_pattern = false;
  double alpha = 0;
  // Of modules whose name is the first, or ends in it behind a dot.
  std::vector<std::pair<std::string, double>> alpha_pattern;
  bool rank_stabilised = false;  // use_rslora
  // Parameters that are changed and no modules: stacked experts, routers.
  std::vector<std::string> target_parameters;
  bool operator==(const AdapterConfig&) const = default;
};

// INVALID_ARGUMENT names the field, its value and what is allowed.
absl::StatusOr<AdapterConfig> ParseAdapterConfig(const std::string& json);

// What changes one weight of the base model: `rank` rows of `a` from
// a_first_row on, and of `b` its rows from first_row on and every
// b_column_step-th column from b_first_column on. Parts of a fused tensor have
// the same `a`.
struct AdapterFactors {
  TensorRole role = TensorRole::kQuery;
  int64_t layer = -1;
  int64_t expert = -1;  // -1: not in an expert
  int64_t rank = 0;
  float scale = 0;
  const MappedTensor* a = nullptr;  // [rank or more, K]
  const MappedTensor* b = nullptr;  // [rows of the whole tensor, rank or more]
  int64_t first_row = 0;
  int64_t a_first_row = 0;
  int64_t b_first_column = 0;
  int64_t b_column_step = 1;
};

// The factors that the tensors of an adapter are for the weights of `base`;
// they point to the tensors. INVALID_ARGUMENT as Adapter::Open.
absl::StatusOr<std::vector<AdapterFactors>> MatchFactors(
    const AdapterConfig& config,
    const std::map<std::string, MappedTensor>& tensors,
    const ModelConfig& base);

// Immutable; any thread.
class Adapter {
 public:
  // NOT_FOUND without the two files; INVALID_ARGUMENT names the file, the field
  // or tensor and what is wrong: tensors that change no weight of `base`, one
  // factor without the other, other shapes, two changes of one weight. Factors
  // may be float32, float16 or bfloat16.
  static absl::StatusOr<std::unique_ptr<Adapter>> Open(
      const std::string& directory, const ModelConfig& base);

  const std::vector<AdapterFactors>& factors() const { return factors_; }
  int64_t max_rank() const { return max_rank_; }
  // SHA-256 (hex) of both files: what tells its keys and values from those of
  // others.
  const std::string& content_hash() const { return content_hash_; }

 private:
  Adapter() = default;

  std::unique_ptr<Checkpoint> checkpoint_;
  std::vector<AdapterFactors> factors_;
  int64_t max_rank_ = 0;
  std::string content_hash_;
};

// Whether an adapter may change weights of this role.
bool IsAdaptable(TensorRole role);

// Bytes of the factors that a rank keeps of an adapter that changes every
// weight it may with rank `max_rank`, in the model's dtype.
int64_t AdapterBytes(const ModelConfig& config, const RankShard& shard,
                     int64_t max_rank);

}  // namespace witan

#endif  // WITAN_MODEL_ADAPTER_H_
