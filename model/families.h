#ifndef WITAN_MODEL_FAMILIES_H_
#define WITAN_MODEL_FAMILIES_H_

// What differs between architectures, as data: which tensors a checkpoint has,
// and their names. A family is one entry of the table in families.cc. Roles,
// their shapes and who owns them are in shard_plan.h; the forward pass is
// written once, for layers that have experts.

#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "model/config.h"
#include "model/safetensors.h"
#include "model/shard_plan.h"

namespace witan {

// Names in config.json's "architectures" that can be served.
std::vector<std::string> KnownArchitectures();

// The checkpoint's name of a tensor, e.g.
// "model.layers.3.block_sparse_moe.experts.5.w1.weight". kLmHead of a model
// with tied embeddings is the embedding's name.
// REQUIRES: config.architecture is known.
std::string TensorName(const ModelConfig& config, TensorRole role,
                       int64_t layer, int64_t expert);

// Whether layers have experts, whose number config.json must then tell.
bool HasExperts(const ModelConfig& config);

// Number of tensors of a checkpoint of this config, and each of them.
int64_t NumTensors(const ModelConfig& config);
std::vector<TensorSlice> ExpectedTensors(const ModelConfig& config);

// OK when the checkpoint has exactly the expected tensors with the expected
// shapes and the config's weight dtype; the message lists names (at most ten,
// then a count) that are missing, unexpected, or of another shape or dtype.
absl::Status CheckCheckpoint(const ModelConfig& config,
                             const Checkpoint& checkpoint);

}  // namespace witan

#endif  // WITAN_MODEL_FAMILIES_H_
