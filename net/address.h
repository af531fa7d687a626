#ifndef WITAN_NET_ADDRESS_H_
#define WITAN_NET_ADDRESS_H_

// Where a process listens. Until TLS exists every port is plaintext, so every
// listener stands on loopback unless the operator says otherwise.

#include <absl/status/statusor.h>

#include <string>

namespace witan {

struct ListenAddress {
  std::string host = "127.0.0.1";  // an IPv4 or IPv6 address
  int port = 0;                    // 0: any free one
};

// "127.0.0.1:50051", "[::1]:50051".
std::string HostPort(const std::string& host, int port);

// "" for "host:port" with a port of 1 to 65535, also with a literal such as
// [::1]; else what is wrong with it, for an option's check.
std::string CheckHostPort(const std::string& text);

// OK if `address` can be listened on now. FAILED_PRECONDITION for an address
// other than loopback without `insecure_listen`; RESOURCE_EXHAUSTED for a port
// in use (the message names it and the remedy); INVALID_ARGUMENT for what is
// no address of this host or no port.
absl::Status CheckCanListen(const ListenAddress& address, bool insecure_listen);

}  // namespace witan

#endif  // WITAN_NET_ADDRESS_H_
