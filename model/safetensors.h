#ifndef WITAN_MODEL_SAFETENSORS_H_
#define WITAN_MODEL_SAFETENSORS_H_

// A checkpoint directory's weights: model.safetensors, or the shards that
// model.safetensors.index.json names. Files are mapped read-only; nothing is
// copied. Every header field and offset is checked before use: dtype known,
// shape * dtype equals the byte range, ranges inside the file, not
// overlapping, no gaps at the end, names unique over all shards, the index in
// agreement with the files. Format:
// https://huggingface.co/docs/safetensors (8-byte little-endian header length,
// JSON header, data).

#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace witan {

// A tensor of the checkpoint. `data` points into the mapping.
struct MappedTensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // as stored; row-major
  std::span<const std::byte> data;
  int file_index = 0;  // into Checkpoint::files()
};

// Owns the mappings; immutable and thread-safe once opened.
class Checkpoint {
 public:
  // `directory` is a Hugging Face model directory. NOT_FOUND when it has no
  // weights; INVALID_ARGUMENT names file, tensor and what is wrong.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(
      const std::string& directory);
  ~Checkpoint();
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  // Null when there is no such tensor.
  const MappedTensor* Find(const std::string& name) const;
  const std::map<std::string, MappedTensor>& tensors() const {
    return tensors_;
  }
  // Paths of the mapped files.
  const std::vector<std::string>& files() const { return files_; }

 private:
  Checkpoint() = default;

  struct Mapping {
    void* address = nullptr;
    size_t size_bytes = 0;
  };
  std::map<std::string, MappedTensor> tensors_;
  std::vector<std::string> files_;
  std::vector<Mapping> mappings_;
};

}  // namespace witan

#endif  // WITAN_MODEL_SAFETENSORS_H_
