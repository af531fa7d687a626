#include "worker/comm/endpoint.h"

#include <sys/random.h>

#include <charconv>

#include "base/check.h"
#include "base/status.h"

namespace witan {
namespace {

constexpr int kVersion = 1;

// Takes "NAME=VALUE" and the space after it off the front of `text`.
bool TakeNumber(std::string_view& text, std::string_view name,
                uint64_t& value) {
  if (!text.starts_with(name) || !text.substr(name.size()).starts_with('=')) {
    return false;
  }
  text.remove_prefix(name.size() + 1);
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data() + text.size() || *end != ' ') {
    return false;
  }
  text.remove_prefix(end - text.data() + 1);
  return true;
}

bool TakeNonce(std::string_view& text, Nonce& nonce) {
  constexpr std::string_view kName = "nonce=";
  const size_t length = kName.size() + 2 * nonce.size() + 1;
  if (!text.starts_with(kName) || text.size() < length ||
      text[length - 1] != ' ') {
    return false;
  }
  for (size_t i = 0; i < nonce.size(); ++i) {
    const char* digits = text.data() + kName.size() + 2 * i;
    uint8_t value = 0;
    if (std::from_chars(digits, digits + 2, value, 16).ptr != digits + 2) {
      return false;
    }
    nonce[i] = std::byte{value};
  }
  text.remove_prefix(length);
  return true;
}

}  // namespace

Nonce DrawNonce() {
  Nonce nonce;
  // Up to 256 bytes come whole; it can only fail before the system is up.
  WITAN_CHECK(getrandom(nonce.data(), nonce.size(), 0) ==
              static_cast<ssize_t>(nonce.size()));
  return nonce;
}

std::string Hex(const Nonce& nonce) {
  std::string hex;
  for (const std::byte value : nonce) {
    hex += fmt::format("{:02x}", std::to_integer<unsigned>(value));
  }
  return hex;
}

std::string EncodeEndpoint(std::string_view transport,
                           const Endpoint& endpoint) {
  return fmt::format(
      "witan-{} {} epoch={} rank={} size={} send={} nonce={} at={}", transport,
      kVersion, endpoint.epoch, endpoint.rank, endpoint.size,
      endpoint.max_send_bytes, Hex(endpoint.nonce), endpoint.address);
}

absl::StatusOr<Endpoint> ParseEndpoint(std::string_view transport,
                                       std::string_view text) {
  if (text.size() > kMaxRendezvousBytes) {
    return InvalidArgument("an endpoint of {} bytes; the maximum is {}",
                           text.size(), kMaxRendezvousBytes);
  }
  const std::string_view all = text;
  const std::string start = fmt::format("witan-{} {} ", transport, kVersion);
  Endpoint endpoint;
  uint64_t rank = 0;
  uint64_t size = 0;
  uint64_t max_send_bytes = 0;
  bool good = text.starts_with(start);
  if (good) text.remove_prefix(start.size());
  good = good && TakeNumber(text, "epoch", endpoint.epoch) &&
         TakeNumber(text, "rank", rank) && TakeNumber(text, "size", size) &&
         TakeNumber(text, "send", max_send_bytes) &&
         TakeNonce(text, endpoint.nonce) && text.starts_with("at=") &&
         text.find('\0') == std::string_view::npos && size <= kMaxRanks &&
         rank < size;
  if (!good) {
    return InvalidArgument(
        "an endpoint that cannot be read: '{}'; expected one like '{}'",
        all.substr(0, 200), EncodeEndpoint(transport, {.size = 1}));
  }
  text.remove_prefix(3);
  endpoint.rank = static_cast<int>(rank);
  endpoint.size = static_cast<int>(size);
  endpoint.max_send_bytes = max_send_bytes;
  endpoint.address = std::string(text);
  return endpoint;
}

absl::StatusOr<std::vector<Endpoint>> ParseEndpoints(
    std::string_view transport, std::span<const std::string> texts,
    const CommunicatorOptions& options) {
  if (texts.size() != static_cast<size_t>(options.size)) {
    return InvalidArgument("{} endpoints came for {} ranks", texts.size(),
                           options.size);
  }
  std::vector<Endpoint> endpoints;
  for (int rank = 0; rank < options.size; ++rank) {
    auto parsed = ParseEndpoint(transport, texts[rank]);
    if (!parsed.ok()) {
      return Annotate(parsed.status(), fmt::format("rank {}", rank));
    }
    const Endpoint& endpoint = *parsed;
    if (endpoint.epoch != options.epoch || endpoint.rank != rank ||
        endpoint.size != options.size ||
        endpoint.max_send_bytes != options.max_send_bytes) {
      return FailedPrecondition(
          "the endpoint of rank {} is of rank {} of {}, epoch {}, send buffers "
          "of {} bytes; rank {} belongs to a group of {}, epoch {}, {} bytes",
          rank, endpoint.rank, endpoint.size, endpoint.epoch,
          endpoint.max_send_bytes, options.rank, options.size, options.epoch,
          options.max_send_bytes);
    }
    endpoints.push_back(endpoint);
  }
  return endpoints;
}

}  // namespace witan
