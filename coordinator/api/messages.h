#ifndef WITAN_COORDINATOR_API_MESSAGES_H_
#define WITAN_COORDINATOR_API_MESSAGES_H_

#include <absl/status/status.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <string>

#include "base/status.h"

namespace witan {

// The API takes requests as bytes and parses them here, since gRPC itself
// answers a request that does not parse with a bare UNIMPLEMENTED.
template <typename Message>
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, Message& message) {
  grpc::ByteBuffer copy(bytes);  // shares the data; deserializing consumes it
  const grpc::Status status =
      grpc::SerializationTraits<Message>::Deserialize(&copy, &message);
  if (status.ok()) return absl::OkStatus();
  return InvalidArgument(
      "the request is no valid {}: it is damaged, or one of its text fields is "
      "not UTF-8",
      message.GetTypeName());
}

// INTERNAL for a message that protobuf cannot write (2 GiB or more).
template <typename Message>
absl::Status SerializeMessage(const Message& message, grpc::ByteBuffer& bytes) {
  bytes.Clear();
  bool own_buffer = false;
  const grpc::Status status = grpc::SerializationTraits<Message>::Serialize(
      message, &bytes, &own_buffer);
  if (status.ok()) return absl::OkStatus();
  return Internal("the answer cannot be written: {}", status.error_message());
}

// INVALID_ARGUMENT for a request of more than kMaxRequestBytes. To be asked
// before anything is done with it: workers share the port, and what gRPC itself
// lets through is sized for them.
absl::Status CheckRequestSize(size_t bytes);

// Trailing metadata that says when a retry makes sense, if it does.
void AddRetryPushback(grpc::CallbackServerContext& rpc,
                      const absl::Status& status);

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_MESSAGES_H_
