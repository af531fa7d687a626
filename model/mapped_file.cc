#include "model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/status.h"

namespace witan {
namespace {

FileIdentity IdentityOf(const struct stat& info) {
  return {.device = info.st_dev,
          .inode = info.st_ino,
          .modified_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 +
                         info.st_mtim.tv_nsec,
          .size_bytes = info.st_size};
}

}  // namespace

absl::StatusOr<FileIdentity> IdentityOfFile(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) {
    return NotFound("{}: {}", path, std::strerror(errno));
  }
  return IdentityOf(info);
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: opening a pipe must not wait for its writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return InvalidArgument("{}: cannot be opened: {}", path,
                           std::strerror(errno));
  }
  struct stat info = {};
  const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  const auto size = static_cast<size_t>(info.st_size);
  void* address = MAP_FAILED;
  int map_error = 0;
  if (regular && size > 0) {
    address = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    map_error = errno;
  }
  close(fd);
  if (!regular) return InvalidArgument("{}: not a regular file", path);
  if (size > 0 && address == MAP_FAILED) {
    return InvalidArgument("{}: {} bytes cannot be mapped: {}", path, size,
                           std::strerror(map_error));
  }
  MappedFile file;
  file.path_ = path;
  file.identity_ = IdentityOf(info);
  if (size > 0) file.bytes_ = {static_cast<const std::byte*>(address), size};
  return file;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) {
    munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept {
  *this = std::move(other);
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(identity_, other.identity_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace witan
