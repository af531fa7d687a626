#include "cli/bench/trace.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "base/limits.h"
#include "base/status.h"
#include "proto/generation_request.h"

namespace witan::bench {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kCsvHeader =
    "TIMESTAMP,ContextTokens,GeneratedTokens";

// A value in a message, cut where it is long.
std::string Quoted(const std::string& text) {
  if (text.size() <= kMaxQuotedBytes) return text;
  return text.substr(0, kMaxQuotedBytes) + "...";
}

std::string Quoted(const Json& value) {
  return Quoted(
      value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

absl::StatusOr<int64_t> WholeNumber(const Json& value, const char* field,
                                    int64_t min, int64_t max) {
  const bool fits_unsigned = value.is_number_unsigned() &&
                             value.get<uint64_t>() > static_cast<uint64_t>(max);
  if (!value.is_number_integer() || fits_unsigned ||
      value.get<int64_t>() < min || value.get<int64_t>() > max) {
    return InvalidArgument("{} is {}; it must be a whole number from {} to {}",
                           field, Quoted(value), min, max);
  }
  return value.get<int64_t>();
}

absl::StatusOr<int64_t> RequiredWholeNumber(const Json& object,
                                            const char* field, int64_t max) {
  const auto found = object.find(field);
  if (found == object.end()) {
    return InvalidArgument(
        "{} is missing; a line is {{\"timestamp\": MILLISECONDS, "
        "\"input_length\": TOKENS, \"output_length\": TOKENS, \"hash_ids\": "
        "[...]}}",
        field);
  }
  return WholeNumber(*found, field, 0, max);
}

absl::StatusOr<Micros> ReadTimestamp(const Json& object) {
  const auto found = object.find("timestamp");
  if (found == object.end()) {
    return InvalidArgument("timestamp is missing; it is in milliseconds");
  }
  const double limit = static_cast<double>(kMaxTraceMs);
  if (!found->is_number() || !(found->get<double>() >= 0) ||
      found->get<double>() > limit) {
    return InvalidArgument(
        "timestamp is {}; it must be a number of milliseconds from 0 to {}",
        Quoted(*found), kMaxTraceMs);
  }
  return std::llround(found->get<double>() *
                      static_cast<double>(kMicrosPerMilli));
}

absl::Status ReadOptionalFields(const Json& object, TraceEntry* entry,
                                std::set<std::string>* ignored) {
  for (const auto& [name, value] : object.items()) {
    if (name == "hash_ids") {
      if (!value.is_array()) {
        return InvalidArgument("hash_ids is {}; it must be a list of numbers",
                               Quoted(value));
      }
      for (const Json& id : value) {
        ASSIGN_OR_RETURN(entry->block_ids.emplace_back(),
                         WholeNumber(id, "hash_ids", 0, INT64_MAX));
      }
    } else if (name == "tenant") {
      if (!value.is_string()) {
        return InvalidArgument("tenant is {}; it must be a string",
                               Quoted(value));
      }
      entry->tenant = value.get<std::string>();
      RETURN_IF_ERROR(CheckTenant(*entry->tenant));
    } else if (name == "priority") {
      ASSIGN_OR_RETURN(const int64_t priority,
                       WholeNumber(value, "priority", -kMaxAbsolutePriority,
                                   kMaxAbsolutePriority));
      entry->priority = static_cast<int32_t>(priority);
    } else if (name != "timestamp" && name != "input_length" &&
               name != "output_length" &&
               ignored->size() < static_cast<size_t>(kMaxJsonDepth)) {
      ignored->insert(Quoted(name));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TraceEntry> ReadJsonLine(std::string_view line,
                                        std::set<std::string>* ignored) {
  const Json object = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return InvalidArgument("\"{}\" is not a JSON object",
                           Quoted(std::string(line)));
  }
  TraceEntry entry;
  ASSIGN_OR_RETURN(entry.at_us, ReadTimestamp(object));
  ASSIGN_OR_RETURN(
      entry.prompt_tokens,
      RequiredWholeNumber(object, "input_length", kMaxContextTokens));
  ASSIGN_OR_RETURN(
      entry.output_tokens,
      RequiredWholeNumber(object, "output_length", kMaxContextTokens));
  RETURN_IF_ERROR(ReadOptionalFields(object, &entry, ignored));
  return entry;
}

// Days from 1970 of a date of the Gregorian calendar.
int64_t DaysFromCivil(int64_t year, int64_t month, int64_t day) {
  // Years that begin in March end with the day that a leap year adds.
  const int64_t shifted = month <= 2 ? year - 1 : year;
  const int64_t day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
  return shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 +
         day_of_year - 719468;
}

// Takes a number of exactly `num_digits` digits and then `end` (0: nothing) off
// the front of `text`; -1 if it is not there.
int64_t TakeDigits(std::string_view& text, size_t num_digits, char end) {
  const size_t length = num_digits + (end == 0 ? 0 : 1);
  if (text.size() < length) return -1;
  int64_t value = 0;
  for (size_t i = 0; i < num_digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    value = value * 10 + (text[i] - '0');
  }
  if (end != 0 && text[num_digits] != end) return -1;
  text.remove_prefix(length);
  return value;
}

// ".123456789" as microseconds; what is finer is dropped.
Micros TakeFraction(std::string_view& text) {
  if (text.empty() || text.front() != '.') return 0;
  text.remove_prefix(1);
  Micros value = 0;
  Micros unit = kMicrosPerSecond / 10;
  while (!text.empty() && text.front() >= '0' && text.front() <= '9') {
    value += (text.front() - '0') * unit;
    unit /= 10;
    text.remove_prefix(1);
  }
  return value;
}

absl::StatusOr<Micros> ReadDateTime(std::string_view text) {
  const std::string whole(text);
  const int64_t year = TakeDigits(text, 4, '-');
  const int64_t month = TakeDigits(text, 2, '-');
  const int64_t day = TakeDigits(text, 2, 0);
  const bool separated =
      !text.empty() && (text.front() == ' ' || text.front() == 'T');
  if (separated) text.remove_prefix(1);
  const int64_t hour = TakeDigits(text, 2, ':');
  const int64_t minute = TakeDigits(text, 2, ':');
  const int64_t second = TakeDigits(text, 2, 0);
  const Micros fraction = TakeFraction(text);
  int64_t zone_minutes = 0;
  if (!text.empty() && (text.front() == '+' || text.front() == '-')) {
    const int64_t sign = text.front() == '+' ? 1 : -1;
    text.remove_prefix(1);
    const int64_t zone_hour = TakeDigits(text, 2, ':');
    const int64_t zone_minute = TakeDigits(text, 2, 0);
    zone_minutes = zone_hour < 0 || zone_minute < 0
                       ? -1000000
                       : sign * (zone_hour * 60 + zone_minute);
  } else if (text == "Z") {
    text.remove_prefix(1);
  }
  if (year < 0 || month < 1 || month > 12 || day < 1 || day > 31 ||
      !separated || hour < 0 || hour > 23 || minute < 0 || minute > 59 ||
      second < 0 || second > 60 || zone_minutes == -1000000 || !text.empty()) {
    return InvalidArgument(
        "TIMESTAMP is {}; it must be a time like 2023-11-16 18:15:46.6805900",
        Quoted(whole));
  }
  const int64_t minutes = (DaysFromCivil(year, month, day) * 24 + hour) * 60 +
                          minute - zone_minutes;
  return (minutes * 60 + second) * kMicrosPerSecond + fraction;
}

absl::StatusOr<int64_t> ReadCsvCount(std::string_view text, const char* field) {
  const Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) {
    return InvalidArgument("{} is \"{}\"; it must be a number of tokens", field,
                           Quoted(std::string(text)));
  }
  return WholeNumber(value, field, 0, kMaxContextTokens);
}

absl::StatusOr<TraceEntry> ReadCsvLine(std::string_view line) {
  const size_t first = line.find(',');
  const size_t second =
      first == std::string_view::npos ? first : line.find(',', first + 1);
  if (second == std::string_view::npos ||
      line.find(',', second + 1) != std::string_view::npos) {
    return InvalidArgument("\"{}\" is not three columns {}",
                           Quoted(std::string(line)), kCsvHeader);
  }
  TraceEntry entry;
  ASSIGN_OR_RETURN(entry.at_us, ReadDateTime(line.substr(0, first)));
  ASSIGN_OR_RETURN(entry.prompt_tokens,
                   ReadCsvCount(line.substr(first + 1, second - first - 1),
                                "ContextTokens"));
  ASSIGN_OR_RETURN(entry.output_tokens,
                   ReadCsvCount(line.substr(second + 1), "GeneratedTokens"));
  return entry;
}

// The next line without its end; false at the end of `text`.
bool TakeLine(std::string_view& text, std::string_view* line) {
  if (text.empty()) return false;
  const size_t end = text.find('\n');
  *line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  if (!line->empty() && line->back() == '\r') line->remove_suffix(1);
  return true;
}

// By time, the first at 0.
absl::Status PutInOrder(Trace* trace) {
  auto& entries = trace->entries;
  std::stable_sort(entries.begin(), entries.end(),
                   [](const TraceEntry& a, const TraceEntry& b) {
                     return a.at_us < b.at_us;
                   });
  const Micros begin = entries.front().at_us;
  for (TraceEntry& entry : entries) entry.at_us -= begin;
  if (entries.back().at_us > kMaxTraceMs * kMicrosPerMilli) {
    return InvalidArgument(
        "line {}: its time is more than {} days after the first one's",
        entries.back().line, kMaxTraceMs / (24 * 3600 * 1000));
  }
  return absl::OkStatus();
}

int64_t Scaled(int64_t tokens, double scale) {
  return static_cast<int64_t>(std::ceil(static_cast<double>(tokens) * scale));
}

// Empty when a request can be made of `entry`, else why not.
std::string WhyUnservable(const TraceEntry& entry, int64_t block_tokens,
                          int64_t max_context_tokens) {
  if (entry.prompt_tokens == 0) return "its prompt has no token";
  if (entry.output_tokens == 0) return "its output has no token";
  if (entry.prompt_tokens + entry.output_tokens > max_context_tokens) {
    return fmt::format(
        "its prompt of {} and output of {} tokens exceed the model's context "
        "of {}",
        entry.prompt_tokens, entry.output_tokens, max_context_tokens);
  }
  const int64_t num_blocks = static_cast<int64_t>(entry.block_ids.size());
  if ((num_blocks - 1) * block_tokens >= entry.prompt_tokens) {
    return fmt::format(
        "its hash_ids name {} blocks of {} tokens, more than its prompt of {} "
        "tokens has; --replay-block-tokens says how long a block is",
        num_blocks, block_tokens, entry.prompt_tokens);
  }
  return "";
}

}  // namespace

absl::StatusOr<Trace> ParseTrace(const std::string& text, int64_t max_entries) {
  Trace trace;
  std::set<std::string> ignored;
  std::string_view rest = text;
  std::string_view line;
  bool is_csv = false;
  for (int64_t number = 1; TakeLine(rest, &line); ++number) {
    const std::string where = fmt::format("line {}", number);
    if (line.size() > kMaxTraceLineBytes) {
      return InvalidArgument("{} has {} bytes; at most {} are read", where,
                             line.size(), kMaxTraceLineBytes);
    }
    if (number == 1 && line == kCsvHeader) {
      is_csv = true;
      continue;
    }
    if (line.empty()) continue;
    if (number == 1 && line.front() != '{') {
      return InvalidArgument(
          "line 1: \"{}\" is neither a JSON object nor the header {}",
          Quoted(std::string(line)), kCsvHeader);
    }
    auto entry = is_csv ? ReadCsvLine(line) : ReadJsonLine(line, &ignored);
    if (!entry.ok()) return Annotate(entry.status(), where);
    entry->line = number;
    trace.entries.push_back(*std::move(entry));
    if (static_cast<int64_t>(trace.entries.size()) == max_entries) break;
  }
  if (trace.entries.empty()) return InvalidArgument("has no entry");
  RETURN_IF_ERROR(PutInOrder(&trace));
  trace.ignored_fields.assign(ignored.begin(), ignored.end());
  return trace;
}

int64_t ScaledBlockTokens(const TraceFit& fit) {
  return std::max<int64_t>(1, Scaled(fit.block_tokens, fit.length_scale));
}

absl::StatusOr<int64_t> FitTrace(const TraceFit& fit,
                                 int64_t max_context_tokens, Trace* trace) {
  const int64_t block_tokens = ScaledBlockTokens(fit);
  std::vector<TraceEntry> kept;
  int64_t num_skipped = 0;
  for (TraceEntry& entry : trace->entries) {
    entry.at_us = std::llround(static_cast<double>(entry.at_us) / fit.speed);
    entry.prompt_tokens = Scaled(entry.prompt_tokens, fit.length_scale);
    entry.output_tokens = Scaled(entry.output_tokens, fit.length_scale);
    const std::string why =
        WhyUnservable(entry, block_tokens, max_context_tokens);
    if (why.empty()) {
      kept.push_back(std::move(entry));
    } else if (fit.skip_unservable) {
      ++num_skipped;
    } else {
      return InvalidArgument(
          "line {}: {}; leave such entries out with --replay-skip-unservable "
          "or "
          "make all shorter with --replay-length-scale",
          entry.line, why);
    }
  }
  trace->entries = std::move(kept);
  if (trace->entries.empty()) {
    return InvalidArgument(
        "none of its {} entries fits the model's context of {} tokens; make "
        "them shorter with --replay-length-scale",
        num_skipped, max_context_tokens);
  }
  return num_skipped;
}

}  // namespace witan::bench
