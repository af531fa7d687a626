#ifndef WITAN_BASE_LOG_H_
#define WITAN_BASE_LOG_H_

// Structured log lines: a fixed message and named fields. For people when
// stderr is a terminal, else one JSON object per line. Never prompts, outputs
// or anything else of a user's text; request ids are fine.
//
//   LogInfo("worker registered", {{"worker_id", id}, {"host", host_name}});
//
// At most kMaxLogLinesPerSecond lines a second are written; the next line
// after a silence says how many were dropped. Errors are always written.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/clock.h"
#include "base/mutex.h"

namespace witan {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };
enum class LogFormat : uint8_t { kText, kJson };

class LogField {
 public:
  LogField(std::string_view name, std::string_view value);
  LogField(std::string_view name, const char* value)
      : LogField(name, std::string_view(value)) {}
  LogField(std::string_view name, const std::string& value)
      : LogField(name, std::string_view(value)) {}
  LogField(std::string_view name, bool value);
  LogField(std::string_view name, double value);
  template <typename T, typename = std::enable_if_t<std::is_integral_v<T> &&
                                                    !std::is_same_v<T, bool>>>
  LogField(std::string_view name, T value)
      : name_(name), value_(std::to_string(value)), is_text_(false) {}

 private:
  friend class Logger;
  std::string_view name_;
  std::string value_;
  bool is_text_ = true;
};

// Thread-safe.
class Logger {
 public:
  // Receives one whole line with its newline; called under a lock.
  using WriteFn = std::function<void(std::string_view line)>;
  // Microseconds since 1970, for the timestamps.
  using WallClockFn = std::function<int64_t()>;

  Logger(LogFormat format, LogLevel min_level, WriteFn write,
         WallClockFn wall_clock, const Clock& clock);

  void Log(LogLevel level, std::string_view message,
           std::initializer_list<LogField> fields);
  void set_min_level(LogLevel level);

 private:
  std::string Line(LogLevel level, std::string_view message,
                   const LogField* begin, const LogField* end) const;

  const LogFormat format_;
  const WriteFn write_;
  const WallClockFn wall_clock_;
  const Clock& clock_;
  Mutex mutex_;
  LogLevel min_level_ WITAN_GUARDED_BY(mutex_);
  Micros second_begin_ WITAN_GUARDED_BY(mutex_);
  int lines_this_second_ WITAN_GUARDED_BY(mutex_) = 0;
  int64_t num_dropped_ WITAN_GUARDED_BY(mutex_) = 0;
};

// Writes to stderr; text if that is a terminal, else JSON.
Logger& ProcessLog();

inline void LogDebug(std::string_view message,
                     std::initializer_list<LogField> fields = {}) {
  ProcessLog().Log(LogLevel::kDebug, message, fields);
}
inline void LogInfo(std::string_view message,
                    std::initializer_list<LogField> fields = {}) {
  ProcessLog().Log(LogLevel::kInfo, message, fields);
}
inline void LogWarning(std::string_view message,
                       std::initializer_list<LogField> fields = {}) {
  ProcessLog().Log(LogLevel::kWarning, message, fields);
}
inline void LogError(std::string_view message,
                     std::initializer_list<LogField> fields = {}) {
  ProcessLog().Log(LogLevel::kError, message, fields);
}

}  // namespace witan

#endif  // WITAN_BASE_LOG_H_
