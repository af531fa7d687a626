#include "worker/comm/socket.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

absl::StatusOr<SocketAddress> Numeric(const std::string& host,
                                      const std::string& port) {
  addrinfo hints = {};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
    return InvalidArgument(
        "'{}' port '{}' is no address; give a numeric one, e.g. 127.0.0.1",
        host, port);
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found,
                                                                 freeaddrinfo);
  SocketAddress address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.length = found->ai_addrlen;
  return address;
}

bool IsAnyAddress(const SocketAddress& address) {
  if (address.storage.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address.storage);
    return in.sin_addr.s_addr == INADDR_ANY;
  }
  const auto& in6 = reinterpret_cast<const sockaddr_in6&>(address.storage);
  return IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr);
}

absl::StatusOr<FileDescriptor> MakeSocket(const SocketAddress& address) {
  FileDescriptor socket(::socket(address.storage.ss_family,
                                 SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                                 0));
  if (!socket.is_open()) {
    return ResourceExhausted("no socket for {}: {}", AddressText(address),
                             ErrorText(errno));
  }
  return socket;
}

// Frames are written whole: waiting for more to send would only delay them.
void SendAtOnce(const FileDescriptor& socket) {
  const int on = 1;
  setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

}  // namespace

void FileDescriptor::Reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

std::string ErrorText(int error) {
  return std::generic_category().message(error);
}

absl::StatusOr<SocketAddress> ParseAddress(const std::string& host_and_port) {
  const size_t colon = host_and_port.rfind(':');
  if (colon == std::string::npos) {
    return InvalidArgument("'{}' is no address; expected HOST:PORT",
                           host_and_port);
  }
  std::string host = host_and_port.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return Numeric(host, host_and_port.substr(colon + 1));
}

std::string AddressText(const SocketAddress& address) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&address.storage),
                  address.length, host, sizeof(host), port, sizeof(port),
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "an unknown address";
  }
  const bool is_v6 = address.storage.ss_family == AF_INET6;
  return is_v6 ? fmt::format("[{}]:{}", host, port)
               : fmt::format("{}:{}", host, port);
}

absl::StatusOr<FileDescriptor> Listen(const std::string& host,
                                      SocketAddress& bound) {
  ASSIGN_OR_RETURN(const SocketAddress address, Numeric(host, "0"));
  if (IsAnyAddress(address)) {
    return InvalidArgument(
        "'{}' is no address that other ranks can reach; give one of this host",
        host);
  }
  ASSIGN_OR_RETURN(FileDescriptor socket, MakeSocket(address));
  bound.length = sizeof(bound.storage);
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address.storage),
           address.length) != 0 ||
      listen(socket.get(), SOMAXCONN) != 0 ||
      getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound.storage),
                  &bound.length) != 0) {
    return Unavailable("cannot listen on {}: {}", host, ErrorText(errno));
  }
  return socket;
}

absl::StatusOr<FileDescriptor> Dial(const SocketAddress& address) {
  ASSIGN_OR_RETURN(FileDescriptor socket, MakeSocket(address));
  SendAtOnce(socket);
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.storage),
              address.length) != 0 &&
      errno != EINPROGRESS) {
    return Unavailable("{} cannot be reached: {}", AddressText(address),
                       ErrorText(errno));
  }
  return socket;
}

int DialResult(const FileDescriptor& socket) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) {
    return errno;
  }
  return error;
}

absl::StatusOr<FileDescriptor> Accept(const FileDescriptor& listener) {
  FileDescriptor socket(
      accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (socket.is_open()) {
    SendAtOnce(socket);
  } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
             errno == ENOMEM) {
    return ResourceExhausted("cannot accept a connection: {}",
                             ErrorText(errno));
  }
  return socket;
}

absl::StatusOr<FileDescriptor> MakeEvent() {
  FileDescriptor event(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!event.is_open()) {
    return ResourceExhausted("no event descriptor: {}", ErrorText(errno));
  }
  return event;
}

void Signal(const FileDescriptor& event) {
  const uint64_t one = 1;
  // Fails only when it is signalled already.
  [[maybe_unused]] const ssize_t written =
      write(event.get(), &one, sizeof(one));
}

}  // namespace witan
