#include "proto/rpc_status.h"

#include <absl/strings/cord.h>

#include <string_view>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "proto/error_details.pb.h"

namespace witan {
namespace {

constexpr char kFieldPayload[] = "witan/field";

template <typename Detail>
void AddDetail(const char* type_name, const Detail& detail,
               rpc::Status& status) {
  google::protobuf::Any& any = *status.add_details();
  any.set_type_url(fmt::format("type.googleapis.com/google.rpc.{}", type_name));
  any.set_value(detail.SerializeAsString());
}

// Repaired and cut to what fits in a header.
std::string HeaderText(const absl::Status& status) {
  static constexpr std::string_view kCut = "...";
  const std::string_view message = MessageOf(status);
  std::string text =
      ReplaceInvalidUtf8(message.substr(0, kMaxStatusMessageBytes + 1));
  if (text.size() <= kMaxStatusMessageBytes) return text;
  text.resize(kMaxStatusMessageBytes - kCut.size());
  // Less than one character can be missing at the end.
  text.resize(ValidUtf8Prefix(text));
  return text.append(kCut);
}

}  // namespace

absl::Status FieldViolation(const std::string& field,
                            const std::string& message) {
  absl::Status status = InvalidArgument("{}: {}", field, message);
  status.SetPayload(kFieldPayload, absl::Cord(field));
  return status;
}

absl::Status BlameField(const absl::Status& status, const std::string& field) {
  if (status.ok()) return status;
  return FieldViolation(field, std::string(MessageOf(status)));
}

std::optional<int64_t> RetryPushbackMs(absl::StatusCode code) {
  if (code == absl::StatusCode::kResourceExhausted ||
      code == absl::StatusCode::kUnavailable) {
    return kRetryPushbackMs;
  }
  return std::nullopt;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message = HeaderText(status);
  rpc::Status details;
  details.set_code(static_cast<int32_t>(status.code()));
  // Clients compare it with the call's own message.
  details.set_message(message);
  rpc::ErrorInfo info;
  info.set_reason(absl::StatusCodeToString(status.code()));
  info.set_domain("witan");
  AddDetail("ErrorInfo", info, details);
  if (const auto field = status.GetPayload(kFieldPayload)) {
    rpc::BadRequest bad_request;
    auto& violation = *bad_request.add_field_violations();
    // The message describes it, once: details travel in a header as well.
    violation.set_field(std::string(*field));
    AddDetail("BadRequest", bad_request, details);
  }
  if (const auto pushback_ms = RetryPushbackMs(status.code())) {
    rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(*pushback_ms / 1000);
    retry.mutable_retry_delay()->set_nanos(
        static_cast<int32_t>(*pushback_ms % 1000 * 1000000));
    AddDetail("RetryInfo", retry, details);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      details.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

}  // namespace witan
