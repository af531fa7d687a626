#ifndef WITAN_CLI_BENCH_WORKLOAD_H_
#define WITAN_CLI_BENCH_WORKLOAD_H_

// What a benchmark shall send, as options say it. Pure.

#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/bench/distribution.h"
#include "cli/bench/trace.h"

namespace witan::bench {

// Requests of one kind: how they come, how long they are, on whose account.
struct TrafficClass {
  std::string name;

  // Open loop if rate > 0: bursts of `burst` requests come as a Poisson process
  // of `rate` bursts per second, or all at once if it is infinite, whatever
  // becomes of those before. Closed loop if num_clients > 0: each client has
  // one request in flight and thinks before the next. Neither: a trace.
  double rate = 0;
  int64_t burst = 1;
  int64_t num_clients = 0;
  double think_time_ms = 0;
  double start_s = 0;        // when the class joins in
  int64_t num_requests = 0;  // at most; 0: as many as the duration allows

  // Of the request's own part of the prompt, behind a shared prefix.
  Distribution prompt_tokens;
  Distribution output_tokens;
  // 0: no shared prefixes. Prefix k of num_prefixes is drawn with a
  // probability proportional to 1 / (k + 1)^prefix_skew.
  int64_t prefix_tokens = 0;
  int64_t num_prefixes = 1;
  double prefix_skew = 0;
  bool tenant_per_prefix = false;  // tenant-K for prefix K, or TENANT-K

  std::optional<std::string> tenant;
  std::optional<int32_t> priority;
  double temperature = 0;

  bool open_loop() const { return num_clients == 0; }
  bool is_trace() const { return num_clients == 0 && rate == 0; }
};

struct Workload {
  std::vector<TrafficClass> classes;  // at least one
  // Of the only class when it is a trace.
  Trace trace;
  TraceFit trace_fit;
  double duration_s = 0;  // no request begins later; 0: no such bound
  int64_t num_warmup_requests = 0;
  uint64_t seed = 0;
};

// One setting of a class: an option --NAME, and a key NAME=VALUE of --class.
struct ClassSetting {
  const char* name;
  const char* value_name;  // in the help text; empty for a flag
  const char* group;       // heading in the help text
  const char* help;
  // What it is when nobody says it; empty: unset.
  const char* default_value;
  // Reads `text`; INVALID_ARGUMENT says what is wrong with it.
  absl::Status (*apply)(const std::string& text, TrafficClass* out);
};

const std::vector<ClassSetting>& ClassSettings();

struct WorkloadOptions {
  // Settings of all classes that do not say otherwise, by name.
  std::map<std::string, std::string> settings;
  // NAME:KEY=VALUE,...; none: one class "all".
  std::vector<std::string> classes;
  // The text of a trace file; then there are no classes.
  std::optional<std::string> trace;
  std::string trace_file;  // for messages
  TraceFit trace_fit;
  double duration_s = 0;
  int64_t num_warmup_requests = 0;
  uint64_t seed = 0;
};

// INVALID_ARGUMENT names the option, its value and the remedy.
absl::StatusOr<Workload> MakeWorkload(const WorkloadOptions& options);

// NAME:KEY=VALUE,... as name and settings. A part without "=" belongs to the
// value before it, so that distributions need no quotes.
absl::StatusOr<std::pair<std::string, std::map<std::string, std::string>>>
ParseClass(const std::string& text);

// Of a class with tenant_per_prefix.
std::string TenantOfPrefix(const TrafficClass& traffic, int64_t prefix);

// "open loop, Poisson 8 requests/s, prompt uniform:64-256, ...", for people.
std::string Describe(const TrafficClass& traffic);

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_WORKLOAD_H_
