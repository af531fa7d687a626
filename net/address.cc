#include "net/address.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <string_view>

#include "base/status.h"

namespace witan {
namespace {

bool IsLoopback(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
}

}  // namespace

std::string HostPort(const std::string& host, int port) {
  if (host.find(':') != std::string::npos) {
    return fmt::format("[{}]:{}", host, port);
  }
  return fmt::format("{}:{}", host, port);
}

std::string CheckHostPort(const std::string& text) {
  const size_t colon = text.rfind(':');
  const std::string_view host = std::string_view(text).substr(0, colon);
  const std::string_view port = std::string_view(text).substr(
      colon == std::string::npos ? text.size() : colon + 1);
  int number = 0;
  const auto [end, error] =
      std::from_chars(port.data(), port.data() + port.size(), number);
  const bool is_port = error == std::errc() &&
                       end == port.data() + port.size() && number >= 1 &&
                       number <= 65535;
  const bool is_bare_v6 =
      host.find(':') != std::string_view::npos && !host.starts_with('[');
  if (is_port && !host.empty() && !is_bare_v6) return "";
  return fmt::format(
      "\"{}\" is no HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051", text);
}

absl::Status CheckCanListen(const ListenAddress& address,
                            bool insecure_listen) {
  if (address.port < 0 || address.port > 65535) {
    return InvalidArgument("port is {}; allowed is 0 (any free one) to 65535",
                           address.port);
  }
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* raw = nullptr;
  const int error = getaddrinfo(
      address.host.c_str(), std::to_string(address.port).c_str(), &hints, &raw);
  if (error != 0) {
    return InvalidArgument(
        "\"{}\" is no address to listen on ({}); give a numeric one such as "
        "127.0.0.1, ::1 or 0.0.0.0",
        address.host, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> info(raw, freeaddrinfo);
  if (!insecure_listen && !IsLoopback(*info->ai_addr)) {
    return FailedPrecondition(
        "refusing to listen on {} in plaintext; everybody who reaches this "
        "address could use it. Listen on 127.0.0.1, or say --insecure-listen",
        address.host);
  }
  const int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return ResourceExhausted("cannot open a socket: {}", std::strerror(errno));
  }
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  int bind_error = 0;
  if (bind(fd, info->ai_addr, info->ai_addrlen) != 0 || listen(fd, 1) != 0) {
    bind_error = errno;
  }
  close(fd);
  if (bind_error == 0) return absl::OkStatus();
  if (bind_error == EADDRINUSE) {
    return ResourceExhausted(
        "port {} on {} is in use by another process; choose another port, or 0 "
        "for any free one",
        address.port, address.host);
  }
  if (bind_error == EACCES) {
    return ResourceExhausted(
        "not allowed to listen on port {}; choose one above 1023",
        address.port);
  }
  return InvalidArgument("cannot listen on {}: {}",
                         HostPort(address.host, address.port),
                         std::strerror(bind_error));
}

}  // namespace witan
