#ifndef WITAN_MODEL_GGUF_TENSORS_H_
#define WITAN_MODEL_GGUF_TENSORS_H_

#include <absl/status/statusor.h>

#include <map>
#include <string>

#include "model/gguf_model.h"
#include "model/mapped_tensor.h"

namespace witan {

// The tensors under the names and in the shapes that the model's Hugging Face
// directory has: blk.3.attn_q.weight is model.layers.3.self_attn.q_proj.weight,
// experts that the file has in one tensor are one each. All have the dtype of
// the config; where the file has another, and where llama.cpp's converter
// changed the order of rows (query and key of architecture llama), they are
// converted as they are read. Frequencies of rotations, which the config has,
// are left out. A tensor that the config knows no place for keeps its name:
// CheckCheckpoint names it.
// file_index counts the model's parts.
absl::StatusOr<std::map<std::string, MappedTensor>> TensorsOfGguf(
    const GgufModel& model);

}  // namespace witan

#endif  // WITAN_MODEL_GGUF_TENSORS_H_
