#ifndef WITAN_CLI_BENCH_STATISTICS_H_
#define WITAN_CLI_BENCH_STATISTICS_H_

// What records of requests say together. Pure.
//
// Latencies, in milliseconds, of requests that did not fail:
//   TTFT         from the request's begin (Record::begin_us) to the first chunk
//                with tokens
//   inter-token  a chunk of n tokens that comes g ms after the chunk with
//   tokens
//                before it adds n samples of g / n; tokens that come together
//                with the first one add none
//   chunk gap    the g itself, one sample per chunk
//   TPOT         of one request: from its first chunk with tokens to its last,
//                over its tokens but the first; none for a single token
//   end to end   from the request's begin to the end of its stream
//
// Percentile p of n samples is the ceil(p n / 100)-th smallest of all of them:
// a sample that was seen, never an interpolation.

#include <absl/status/statusor.h>
#include <grpcpp/support/status_code_enum.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/bench/record.h"

namespace witan::bench {

// REQUIRES: `ascending` is not empty, 0 < percent <= 100.
double Percentile(const std::vector<double>& ascending, double percent);

// All 0 without samples.
struct Summary {
  int64_t count = 0;
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p95 = 0;
  double p99 = 0;
  double max = 0;
};
Summary Summarize(std::vector<double> samples);

// Of one request that did not fail.
struct Latencies {
  double ttft_ms = 0;
  std::vector<double> inter_token_ms;
  std::vector<double> chunk_gap_ms;
  std::optional<double> tpot_ms;
  double end_to_end_ms = 0;
};
// REQUIRES: record.ok(), record.arrivals is not empty.
Latencies LatenciesOf(const Record& record);

// What a request must keep to be counted in the goodput. The one for
// inter-token latency is compared with the 99th percentile within the request:
// it is about stalls, as TPOT is about the mean.
struct Objectives {
  std::optional<double> ttft_ms;
  std::optional<double> inter_token_ms;
  std::optional<double> tpot_ms;
  std::optional<double> end_to_end_ms;

  bool any() const {
    return ttft_ms || inter_token_ms || tpot_ms || end_to_end_ms;
  }
};
// Reads NAME:MILLISECONDS, NAME one of ttft, itl, tpot, e2e. INVALID_ARGUMENT
// quotes what cannot be read, or is named twice.
absl::StatusOr<Objectives> ParseObjectives(
    const std::vector<std::string>& texts);
// "ttft 500 ms, itl 50 ms".
std::string Describe(const Objectives& objectives);
bool Meets(const Latencies& latencies, const Objectives& objectives);

struct ErrorCount {
  grpc::StatusCode code = grpc::StatusCode::OK;
  int64_t count = 0;
  std::string example;  // the message of the first
};

// One class, or all of them.
struct ClassReport {
  std::string name;
  int64_t num_completed = 0;
  int64_t num_failed = 0;
  int64_t num_good = 0;  // completed and within the objectives
  // Of what was completed.
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  // That came before a failure.
  int64_t failed_output_tokens = 0;
  int64_t peak_in_flight = 0;
  double mean_in_flight = 0;
  Summary ttft_ms;
  Summary inter_token_ms;
  Summary chunk_gap_ms;
  Summary tpot_ms;
  Summary end_to_end_ms;
  Summary server_queue_ms;
  Summary client_lag_ms;           // of all that was sent
  std::vector<ErrorCount> errors;  // most frequent first

  int64_t num_sent() const { return num_completed + num_failed; }
};

// A slice of time.
struct TimelineSlice {
  double begin_s = 0;
  double output_tokens_per_second = 0;
  double in_flight = 0;    // mean
  int64_t num_failed = 0;  // that ended here
};

struct Report {
  double duration_s = 0;  // from the beginning of the load to the last end
  ClassReport total;
  std::vector<ClassReport> classes;  // as in the plan
  double slice_s = 0;
  std::vector<TimelineSlice> timeline;
  // Of these only counts and errors.
  ClassReport warmup;
};

// `class_names` by class index; records in any order.
Report MakeReport(const std::vector<std::string>& class_names,
                  const Objectives& objectives,
                  const std::vector<Record>& records);

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_STATISTICS_H_
