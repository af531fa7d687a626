#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/status.h"

namespace witan {
namespace {

// A file descriptor that closes itself.
struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes) {
  const Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) {
    const absl::StatusCode code = errno == EACCES
                                      ? absl::StatusCode::kPermissionDenied
                                      : absl::StatusCode::kNotFound;
    return MakeStatus(code, "cannot open {}: {}", path, std::strerror(errno));
  }
  struct stat info;
  if (fstat(file.fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return InvalidArgument("{} is not a regular file", path);
  }
  if (info.st_size > max_bytes) {
    return InvalidArgument("{} has {} bytes; at most {} are read", path,
                           info.st_size, max_bytes);
  }
  std::string content(info.st_size, '\0');
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t count =
        read(file.fd, content.data() + done, content.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return InvalidArgument("{} ended after {} of {} bytes", path, done,
                             content.size());
    }
    done += count;
  }
  return content;
}

absl::StatusOr<std::string> ReadFileOrEmpty(const std::string& path,
                                            int64_t max_bytes) {
  absl::StatusOr<std::string> content = ReadFile(path, max_bytes);
  if (content.status().code() == absl::StatusCode::kNotFound) {
    return std::string();
  }
  return content;
}

}  // namespace witan
