#ifndef WITAN_MODEL_CHECKPOINT_H_
#define WITAN_MODEL_CHECKPOINT_H_

// The weights of a model, by the names that Hugging Face gives them: of a
// directory with model.safetensors, or the shards that
// model.safetensors.index.json names, or of GGUF files (model/gguf_model.h).
// Files are mapped read-only; nothing is copied. Every header field and offset
// is checked before use. Safetensors: dtype known, shape * dtype equals the
// byte range, the ranges tile the data (no overlap, no gap, nothing after the
// last), names unique over all shards, the index in agreement with the files.
// Format: https://huggingface.co/docs/safetensors (8-byte little-endian header
// length, JSON header, data).

#include <absl/status/statusor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/mapped_file.h"
#include "model/mapped_tensor.h"

namespace witan {

// Owns the mappings; immutable and thread-safe once opened.
class Checkpoint {
 public:
  // `model` is a Hugging Face model directory, in which model.safetensors wins
  // over an index when both are there, or names GGUF files as FindGgufFiles
  // says. NOT_FOUND when it has no weights; INVALID_ARGUMENT names file, tensor
  // and what is wrong.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(
      const std::string& model);
  // One safetensors file by itself.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> OpenFile(
      const std::string& path);
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  // Null when there is no such tensor.
  const MappedTensor* Find(const std::string& name) const;
  const std::map<std::string, MappedTensor>& tensors() const {
    return tensors_;
  }
  // Paths of the mapped files.
  const std::vector<std::string>& files() const { return files_; }
  // By file index.
  const std::vector<FileIdentity>& file_identities() const {
    return file_identities_;
  }

 private:
  Checkpoint() = default;

  // The index of the file, which is kept mapped.
  int AddFile(MappedFile file);
  absl::Status AddTensor(const std::string& name, MappedTensor tensor);
  absl::Status AddSafetensors(const std::string& path);
  // Adds the files that the index names.
  absl::Status AddShards(const std::string& directory,
                         const std::string& index_path);
  absl::Status AddGguf(const std::vector<std::string>& paths);

  std::map<std::string, MappedTensor> tensors_;
  std::vector<std::string> files_;
  std::vector<FileIdentity> file_identities_;
  std::vector<MappedFile> mappings_;
};

}  // namespace witan

#endif  // WITAN_MODEL_CHECKPOINT_H_
