#ifndef WITAN_WORKER_COMM_ENDPOINT_H_
#define WITAN_WORKER_COMM_ENDPOINT_H_

// What a rendezvous tells the other ranks of its group, as one line of text:
//   witan-tcp 1 epoch=7 rank=0 size=2 send=65536 nonce=0a1b... at=10.0.0.1:4242

#include <absl/status/statusor.h>

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "worker/comm/communicator.h"

namespace witan {

// Drawn anew for every rendezvous: whoever knows it was told by the
// coordinator.
using Nonce = std::array<std::byte, 16>;

Nonce DrawNonce();
std::string Hex(const Nonce& nonce);

struct Endpoint {
  uint64_t epoch = 0;
  int rank = 0;
  int size = 0;
  size_t max_send_bytes = 0;
  Nonce nonce{};
  std::string address;  // a path or HOST:PORT; may be empty
  bool operator==(const Endpoint&) const = default;
};

// `transport` is a word such as "tcp".
std::string EncodeEndpoint(std::string_view transport,
                           const Endpoint& endpoint);

// INVALID_ARGUMENT when `text` is no endpoint of `transport`.
absl::StatusOr<Endpoint> ParseEndpoint(std::string_view transport,
                                       std::string_view text);

// The endpoints of a whole group, by rank. FAILED_PRECONDITION when they are
// not those of the group that `options` describes.
absl::StatusOr<std::vector<Endpoint>> ParseEndpoints(
    std::string_view transport, std::span<const std::string> texts,
    const CommunicatorOptions& options);

}  // namespace witan

#endif  // WITAN_WORKER_COMM_ENDPOINT_H_
