#ifndef WITAN_BASE_STATUS_H_
#define WITAN_BASE_STATUS_H_

// Makers of absl::Status from a format string, and the two macros that pass an
// error on. They exist because Debian's absl::string_view is not
// std::string_view: callers write fmt format strings and never meet it.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

namespace witan {

// The message of a status as a std::string_view, valid while `status` lives.
inline std::string_view MessageOf(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

template <typename... Args>
absl::Status MakeStatus(absl::StatusCode code,
                        fmt::format_string<Args...> format, Args&&... args) {
  return absl::Status(code, fmt::format(format, std::forward<Args>(args)...));
}

#define WITAN_DEFINE_STATUS_MAKER(Name, Code)                              \
  template <typename... Args>                                              \
  absl::Status Name(fmt::format_string<Args...> format, Args&&... args) {  \
    return absl::Status(Code,                                              \
                        fmt::format(format, std::forward<Args>(args)...)); \
  }
WITAN_DEFINE_STATUS_MAKER(InvalidArgument, absl::StatusCode::kInvalidArgument)
WITAN_DEFINE_STATUS_MAKER(NotFound, absl::StatusCode::kNotFound)
WITAN_DEFINE_STATUS_MAKER(AlreadyExists, absl::StatusCode::kAlreadyExists)
WITAN_DEFINE_STATUS_MAKER(ResourceExhausted,
                          absl::StatusCode::kResourceExhausted)
WITAN_DEFINE_STATUS_MAKER(FailedPrecondition,
                          absl::StatusCode::kFailedPrecondition)
WITAN_DEFINE_STATUS_MAKER(DeadlineExceeded, absl::StatusCode::kDeadlineExceeded)
WITAN_DEFINE_STATUS_MAKER(Unavailable, absl::StatusCode::kUnavailable)
WITAN_DEFINE_STATUS_MAKER(Cancelled, absl::StatusCode::kCancelled)
WITAN_DEFINE_STATUS_MAKER(Internal, absl::StatusCode::kInternal)
#undef WITAN_DEFINE_STATUS_MAKER

// `status` with "prefix: " before its message; OK stays OK.
inline absl::Status Annotate(const absl::Status& status,
                             std::string_view prefix) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      fmt::format("{}: {}", prefix, MessageOf(status)));
}

}  // namespace witan

#define WITAN_CONCAT_INNER(a, b) a##b
#define WITAN_CONCAT(a, b) WITAN_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)              \
  do {                                           \
    absl::Status witan_status = (expression);    \
    if (!witan_status.ok()) return witan_status; \
  } while (false)

// ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
#define ASSIGN_OR_RETURN(declaration, expression)                             \
  ASSIGN_OR_RETURN_IMPL(WITAN_CONCAT(witan_statusor_, __LINE__), declaration, \
                        expression)
#define ASSIGN_OR_RETURN_IMPL(statusor, declaration, expression) \
  auto statusor = (expression);                                  \
  if (!statusor.ok()) return statusor.status();                  \
  declaration = std::move(statusor).value()

#endif  // WITAN_BASE_STATUS_H_
