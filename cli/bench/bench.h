#ifndef WITAN_CLI_BENCH_BENCH_H_
#define WITAN_CLI_BENCH_BENCH_H_

// The verb `witan bench`: options, output, exit code. What it does is in the
// files beside it.

#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cli/bench/plan.h"
#include "cli/bench/runner.h"
#include "cli/bench/workload.h"
#include "cli/command.h"

namespace witan::bench {

struct BenchOptions {
  std::string server;
  // --NAME of ClassSettings; those not given are not set.
  std::map<std::string, std::optional<std::string>> settings;
  std::map<std::string, bool> flags;
  std::vector<std::string> classes;
  std::string trace_file;
  TraceFit trace_fit;
  double duration_s = 0;
  int64_t num_warmup_requests = 0;
  uint64_t seed = 0;
  std::vector<std::string> objectives;
  int64_t num_connections = 1;
  double timeout_s = 600;
  std::string json_file;  // "-" is stdout; empty: none
  bool json_requests = false;
  std::string plot_file;
  bool allow_errors = false;
};

// Reads the trace, if there is one. INVALID_ARGUMENT or the file's error, for
// people.
absl::StatusOr<Workload> ReadWorkload(const BenchOptions& options);

// "45 / 100 requests, 3 in flight, 0 failed, 81.2 tokens/s", behind the bar.
// `previous` is an earlier state of the same phase, for the rate.
std::string DescribeProgress(const RunState& state, const RunState& previous,
                             std::optional<int64_t> num_requests);

// Share of a run that is over: of its requests or of its time, the larger where
// both end it, since the run ends with the first. None when neither is known.
std::optional<int64_t> PercentDone(const RunState& state, double duration_s,
                                   std::optional<int64_t> num_requests);

// Runs all of it and returns an exit code of base/config.h.
int RunBench(const BenchOptions& options);

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_BENCH_H_
