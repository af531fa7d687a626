#ifndef WITAN_WORKER_COMM_SOCKET_H_
#define WITAN_WORKER_COMM_SOCKET_H_

// TCP sockets that never block, as the communicator between hosts uses them.

#include <absl/status/statusor.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <utility>

namespace witan {

// Owns a file descriptor, or none (-1).
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { Reset(); }
  FileDescriptor(FileDescriptor&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  void Reset();

 private:
  int fd_ = -1;
};

std::string ErrorText(int error);

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

// "10.0.0.1:4242" or "[fe80::1]:4242"; no names. INVALID_ARGUMENT.
absl::StatusOr<SocketAddress> ParseAddress(const std::string& host_and_port);
std::string AddressText(const SocketAddress& address);

// Listens on a free port of `host`. `bound` becomes where.
absl::StatusOr<FileDescriptor> Listen(const std::string& host,
                                      SocketAddress& bound);

// Begins to connect; poll says when it is done.
absl::StatusOr<FileDescriptor> Dial(const SocketAddress& address);
// How a connection that poll reported went: 0 or an errno.
int DialResult(const FileDescriptor& socket);

// The next connection, or none when there is none now. RESOURCE_EXHAUSTED when
// this process has no descriptor left.
absl::StatusOr<FileDescriptor> Accept(const FileDescriptor& listener);

// Wakes a poll from another thread.
absl::StatusOr<FileDescriptor> MakeEvent();
void Signal(const FileDescriptor& event);

}  // namespace witan

#endif  // WITAN_WORKER_COMM_SOCKET_H_
