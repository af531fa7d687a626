#ifndef WITAN_PROTO_RPC_STATUS_H_
#define WITAN_PROTO_RPC_STATUS_H_

// absl::Status inside the process, grpc::Status with google.rpc details on the
// wire.

#include <absl/status/status.h>
#include <fmt/format.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace witan {

// INVALID_ARGUMENT "field: message" about one field of a request; the field's
// name travels with the status and becomes a BadRequest detail.
absl::Status FieldViolation(const std::string& field,
                            const std::string& message);

// Any error as FieldViolation with its message: for what would fail the same
// way each time for the same value of `field`, whatever code its finder gave
// it. OK stays OK.
absl::Status BlameField(const absl::Status& status, const std::string& field);

template <typename... Args>
absl::Status InvalidField(const std::string& field,
                          fmt::format_string<Args...> format, Args&&... args) {
  return FieldViolation(field,
                        fmt::format(format, std::forward<Args>(args)...));
}

// Milliseconds after which a call that ended with `code` may be repeated; none
// if that would not help.
std::optional<int64_t> RetryPushbackMs(absl::StatusCode code);

// With ErrorInfo, and BadRequest or RetryInfo where they apply. A message that
// is not UTF-8 is repaired, one of more than kMaxStatusMessageBytes cut at a
// character and ended with "...": all of it travels in headers, and a client
// that gets more than it takes of those sees neither code nor message.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The code and the message of a call's outcome.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace witan

#endif  // WITAN_PROTO_RPC_STATUS_H_
