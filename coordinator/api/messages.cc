#include "coordinator/api/messages.h"

#include "proto/rpc_status.h"

namespace witan {

void AddRetryPushback(grpc::CallbackServerContext& rpc,
                      const absl::Status& status) {
  if (const auto pushback_ms = RetryPushbackMs(status.code())) {
    rpc.AddTrailingMetadata("grpc-retry-pushback-ms",
                            std::to_string(*pushback_ms));
  }
}

}  // namespace witan
