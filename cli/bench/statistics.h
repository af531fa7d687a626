#ifndef WITAN_CLI_BENCH_STATISTICS_H_
#define WITAN_CLI_BENCH_STATISTICS_H_

// What records of requests say together. Pure.
//
// Latencies, in milliseconds, of requests that did not fail:
//   TTFT         from the request's begin (Record::begin_us) to the first chunk
//                with tokens
//   inter-token  a chunk of n tokens that comes g ms after the chunk with
//                tokens before it adds n samples of g / n; tokens that come
//                together with the first one add none
//   chunk gap    the g itself, one sample per chunk: a stall that inter-token
//                latencies share out among the tokens behind it is seen here
//   TPOT         of one request: from its first chunk with tokens to its last,
//                over its tokens but the first; none for a single token
//   end to end   from the request's begin to the end of its stream
//
// Percentile p of n samples is the ceil(p n / 100)-th smallest of all of them:
// a sample that was seen, never an interpolation.
//
// Times that rates are over:
//   duration     of all: from the beginning of the load to the last end of a
//                request, failed ones included. Of a class: from the begin of
//                its first request (Record::begin_us) to the last end of one of
//                its own, so that neither a later start nor the other classes
//                dilute it. Everything "per second" is what was completed, over
//                this
//   send window  from the beginning of the load to the last sending
//   drain        the rest of the duration: what was in flight is waited for. A
//                straggler makes it long and all rates over the duration small
// Output tokens per second while sending are those that came within the send
// window, of whatever became of their requests, over the send window: what a
// straggler cannot change.

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
// inter-token latency is compared with the 99th percentile within the request,
// where a chunk of many tokens makes little of the wait before it; the one for
// the chunk gap with the longest of the request, which is a stall as its reader
// sees it.
struct Objectives {
  std::optional<double> ttft_ms;
  std::optional<double> inter_token_ms;
  std::optional<double> chunk_gap_ms;
  std::optional<double> tpot_ms;
  std::optional<double> end_to_end_ms;

  bool any() const {
    return ttft_ms || inter_token_ms || chunk_gap_ms || tpot_ms ||
           end_to_end_ms;
  }
};
// Reads NAME:MILLISECONDS, NAME one of ttft, itl, gap, tpot, e2e.
// INVALID_ARGUMENT quotes what cannot be read, or is named twice.
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
  double begin_s = 0;    // after the beginning of the load
  double duration_s = 0;
  // Of what was completed.
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of these, found in the server's prefix cache
  // Completed requests of which more was cached than they share with others of
  // this load: the server has seen their prompts before.
  int64_t num_unshared_hits = 0;
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
  // `count` over the duration; 0 if that is 0.
  double PerSecond(int64_t count) const {
    return duration_s > 0 ? static_cast<double>(count) / duration_s : 0;
  }
  // Of the prompt tokens; 0 without any.
  double CachedPercent() const {
    return prompt_tokens > 0 ? 100 * static_cast<double>(cached_tokens) /
                                   static_cast<double>(prompt_tokens)
                             : 0;
  }
};

// A slice of time.
struct TimelineSlice {
  double begin_s = 0;
  double output_tokens_per_second = 0;
  double in_flight = 0;    // mean
  int64_t num_failed = 0;  // that ended here
};

struct Report {
  double duration_s = 0;
  double send_window_s = 0;
  // None if everything was sent at the beginning of the load.
  std::optional<double> output_tokens_per_second_while_sending;
  ClassReport total;
  std::vector<ClassReport> classes;  // as in the plan
  double slice_s = 0;
  std::vector<TimelineSlice> timeline;
  // Of these only counts and errors.
  ClassReport warmup;

  double drain_s() const { return duration_s - send_window_s; }
};

// `class_names` by class index; records in any order.
Report MakeReport(const std::vector<std::string>& class_names,
                  const Objectives& objectives,
                  const std::vector<Record>& records);

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_STATISTICS_H_
