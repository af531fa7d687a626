#include "coordinator/api/messages.h"

#include "base/limits.h"
#include "proto/rpc_status.h"

namespace witan {

absl::Status CheckRequestSize(size_t bytes) {
  if (bytes <= kMaxRequestBytes) return absl::OkStatus();
  return InvalidArgument(
      "the request has {} bytes; at most {} are allowed in one request", bytes,
      kMaxRequestBytes);
}

void AddRetryPushback(grpc::CallbackServerContext& rpc,
                      const absl::Status& status) {
  if (const auto pushback_ms = RetryPushbackMs(status.code())) {
    rpc.AddTrailingMetadata("grpc-retry-pushback-ms",
                            std::to_string(*pushback_ms));
  }
}

}  // namespace witan
