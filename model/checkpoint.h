#ifndef WITAN_MODEL_SAFETENSORS_H_
#define WITAN_MODEL_SAFETENSORS_H_

// A checkpoint directory's weights: model.safetensors, or the shards that
// model.safetensors.index.json names. Files are mapped read-only; nothing is
// copied. Every header field and offset is checked before use: dtype known,
// shape * dtype equals the byte range, the ranges tile the data (no overlap, no
// gap, nothing after the last), names unique over all shards, the index in
// agreement with the files. Format:
// https://huggingface.co/docs/safetensors (8-byte little-endian header length,
// JSON header, data).
//
// A file that is cut short before Open is refused. One that is cut short
// while it is mapped ends the process (SIGBUS) like any mapped file: replace a
// model's files by renaming, never in place.

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

// A tensor of the checkpoint. `data` points into the mapping and may lie at any
// byte, aligned to nothing.
struct MappedTensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // as stored; row-major
  std::span<const std::byte> data;
  int file_index = 0;       // into Checkpoint::files()
  int64_t file_offset = 0;  // of `data`, in bytes
};

// What tells a file from what it was before a change, as of Checkpoint::Open.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t modified_ns = 0;  // since the epoch
  int64_t size_bytes = 0;
  bool operator==(const FileIdentity&) const = default;
};

// The identity of the file that is at `path` now.
absl::StatusOr<FileIdentity> IdentityOfFile(const std::string& path);

// Owns the mappings; immutable and thread-safe once opened.
class Checkpoint {
 public:
  // `directory` is a Hugging Face model directory; model.safetensors wins over
  // an index when both are there. NOT_FOUND when it has no weights;
  // INVALID_ARGUMENT names file, tensor and what is wrong.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(
      const std::string& directory);
  // One safetensors file by itself.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> OpenFile(
      const std::string& path);
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
  // By file index.
  const std::vector<FileIdentity>& file_identities() const {
    return file_identities_;
  }

 private:
  Checkpoint() = default;

  struct Mapping {
    void* address = nullptr;
    size_t size_bytes = 0;
  };

  // Maps one file and adds its tensors.
  absl::Status AddFile(const std::string& path);
  // Adds the files that the index names.
  absl::Status AddShards(const std::string& directory,
                         const std::string& index_path);
  std::map<std::string, MappedTensor> tensors_;
  std::vector<std::string> files_;
  std::vector<FileIdentity> file_identities_;
  std::vector<Mapping> mappings_;
};

}  // namespace witan

#endif  // WITAN_MODEL_SAFETENSORS_H_
