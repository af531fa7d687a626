#include "base/log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <ctime>
#include <utility>

#include "base/limits.h"
#include "base/utf8.h"

namespace witan {
namespace {

std::string_view NameOf(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "unknown";
}

void AppendQuoted(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : ReplaceInvalidUtf8(text)) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<int>(c));
    } else {
      out += c;
    }
  }
  out += '"';
}

// 2026-01-31T12:00:00.000000Z
std::string Timestamp(int64_t wall_us) {
  const std::time_t seconds =
      static_cast<std::time_t>(wall_us / kMicrosPerSecond);
  std::tm utc = {};
  gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
                     utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                     utc.tm_hour, utc.tm_min, utc.tm_sec,
                     wall_us % kMicrosPerSecond);
}

int64_t SystemWallClock() {
  std::timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * kMicrosPerSecond + now.tv_nsec / 1000;
}

bool NeedsQuotes(std::string_view text) {
  if (text.empty()) return true;
  for (const char c : text) {
    if (c == ' ' || c == '"' || c == '=' || c == '\\' ||
        static_cast<unsigned char>(c) < 0x20) {
      return true;
    }
  }
  return false;
}

}  // namespace

LogField::LogField(std::string_view name, std::string_view value)
    : name_(name), value_(value) {}

LogField::LogField(std::string_view name, bool value)
    : name_(name), value_(value ? "true" : "false"), is_text_(false) {}

// JSON has no word for infinities and NaN: those become text.
LogField::LogField(std::string_view name, double value)
    : name_(name),
      value_(fmt::format("{}", value)),
      is_text_(!std::isfinite(value)) {}

Logger::Logger(LogFormat format, LogLevel min_level, WriteFn write,
               WallClockFn wall_clock, const Clock& clock)
    : format_(format),
      write_(std::move(write)),
      wall_clock_(std::move(wall_clock)),
      clock_(clock),
      min_level_(min_level),
      second_begin_(clock.Now()) {}

void Logger::set_min_level(LogLevel level) {
  MutexLock lock(mutex_);
  min_level_ = level;
}

std::string Logger::Line(LogLevel level, std::string_view message,
                         const LogField* begin, const LogField* end) const {
  const std::string time = Timestamp(wall_clock_());
  std::string line;
  if (format_ == LogFormat::kText) {
    line =
        fmt::format("{} {:<7} {}", time.substr(11, 12), NameOf(level), message);
    for (const LogField* field = begin; field != end; ++field) {
      line += fmt::format("  {}=", field->name_);
      if (field->is_text_ && NeedsQuotes(field->value_)) {
        AppendQuoted(line, field->value_);
      } else {
        line += field->value_;
      }
    }
    return line + '\n';
  }
  line = fmt::format("{{\"time\":\"{}\",\"level\":\"{}\",\"message\":", time,
                     NameOf(level));
  AppendQuoted(line, message);
  for (const LogField* field = begin; field != end; ++field) {
    line += ',';
    AppendQuoted(line, field->name_);
    line += ':';
    if (field->is_text_) {
      AppendQuoted(line, field->value_);
    } else {
      line += field->value_;
    }
  }
  return line + "}\n";
}

void Logger::Log(LogLevel level, std::string_view message,
                 std::initializer_list<LogField> fields) {
  MutexLock lock(mutex_);
  if (level < min_level_) return;
  const Micros now = clock_.Now();
  if (now - second_begin_ >= kMicrosPerSecond) {
    second_begin_ = now;
    lines_this_second_ = 0;
  }
  if (lines_this_second_ >= kMaxLogLinesPerSecond &&
      level != LogLevel::kError) {
    ++num_dropped_;
    return;
  }
  ++lines_this_second_;
  if (num_dropped_ > 0) {
    const LogField dropped("dropped_lines", num_dropped_);
    num_dropped_ = 0;
    write_(Line(LogLevel::kWarning, "log lines were dropped", &dropped,
                &dropped + 1));
  }
  write_(Line(level, message, fields.begin(), fields.end()));
}

Logger& ProcessLog() {
  static Logger* const logger = new Logger(
      isatty(STDERR_FILENO) != 0 ? LogFormat::kText : LogFormat::kJson,
      LogLevel::kInfo,
      [](std::string_view line) {
        std::fwrite(line.data(), 1, line.size(), stderr);
      },
      SystemWallClock, MonotonicClock());
  return *logger;
}

}  // namespace witan
