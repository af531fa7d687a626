#ifndef WITAN_MODEL_MAPPED_FILE_H_
#define WITAN_MODEL_MAPPED_FILE_H_

#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace witan {

// What tells a file from what it was before a change.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t modified_ns = 0;  // since the epoch
  int64_t size_bytes = 0;
  bool operator==(const FileIdentity&) const = default;
};

// The identity of the file that is at `path` now.
absl::StatusOr<FileIdentity> IdentityOfFile(const std::string& path);

// Owns a read-only mapping of one file. One that is cut short while it is
// mapped ends the process (SIGBUS): replace a model's files by renaming, never
// in place.
class MappedFile {
 public:
  // INVALID_ARGUMENT names the path when it cannot be opened or mapped, or is
  // no regular file. An empty file has no bytes.
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& path() const { return path_; }
  // As of Open.
  const FileIdentity& identity() const { return identity_; }

 private:
  MappedFile() = default;

  std::string path_;
  FileIdentity identity_;
  std::span<const std::byte> bytes_;
};

}  // namespace witan

#endif  // WITAN_MODEL_MAPPED_FILE_H_
