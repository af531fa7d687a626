#ifndef WITAN_BASE_CHECK_H_
#define WITAN_BASE_CHECK_H_

// WITAN_CHECK states an invariant of our own code. A failure is a bug in
// Witan: it prints the condition and the message and aborts. Nothing that a
// network peer, a file or a user controls may reach one; those become
// absl::Status (base/status.h).
//
//   WITAN_CHECK(x.rows == y.rows, "x has {} rows, y has {}", x.rows, y.rows);

#include <fmt/format.h>

#include <string>

namespace witan {

// Prints "file:line: check failed: condition: message" and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const std::string& message);

}  // namespace witan

#define WITAN_CHECK(condition, ...)                        \
  do {                                                     \
    if (!(condition)) [[unlikely]] {                       \
      ::witan::CheckFailed(__FILE__, __LINE__, #condition, \
                           ::fmt::format("" __VA_ARGS__)); \
    }                                                      \
  } while (false)

#endif  // WITAN_BASE_CHECK_H_
