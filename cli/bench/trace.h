#ifndef WITAN_CLI_BENCH_TRACE_H_
#define WITAN_CLI_BENCH_TRACE_H_

// Traces of real load: when requests came and how long they were. Pure.

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace witan::bench {

struct TraceEntry {
  Micros at_us = 0;  // after the first entry
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  // Names of the prompt's blocks, front to back: equal ids mean equal tokens.
  // What they do not cover belongs to this request alone.
  std::vector<int64_t> block_ids;
  std::optional<std::string> tenant;
  std::optional<int32_t> priority;
  int64_t line = 0;  // of the file, from 1
};

struct Trace {
  std::vector<TraceEntry> entries;  // by time; equal times as in the file
  // Fields of JSON lines that were there and mean nothing here.
  std::vector<std::string> ignored_fields;
};

// Reads one of two formats, told apart by the first line, at most the first
// `max_entries` entries:
//
//   JSON lines, as in the Mooncake traces:
//     {"timestamp": 27482, "input_length": 6955, "output_length": 52,
//      "hash_ids": [46, 47, 2354]}
//   with `timestamp` in milliseconds; hash_ids, tenant and priority may be
//   missing.
//
//   CSV, as in the Azure LLM inference traces:
//     TIMESTAMP,ContextTokens,GeneratedTokens
//     2023-11-16 18:15:46.6805900,374,44
//   with an optional zone (Z or +HH:MM) behind the time.
//
// INVALID_ARGUMENT names the line, the field, its value and what is allowed.
// Lengths of 0 are read; see FitTrace.
absl::StatusOr<Trace> ParseTrace(const std::string& text, int64_t max_entries);

struct TraceFit {
  double speed = 1;         // 2 replays in half the time
  double length_scale = 1;  // of prompts, outputs and blocks
  int64_t block_tokens = 512;
  // Entries that no request can be made of are left out instead of refused.
  bool skip_unservable = false;
};

// Scales `trace` and checks it against a context of `max_context_tokens`;
// scaled lengths are rounded up. Returns how many entries were left out.
// INVALID_ARGUMENT names the first line that cannot be served and the remedy.
// REQUIRES: speed > 0, length_scale > 0.
absl::StatusOr<int64_t> FitTrace(const TraceFit& fit,
                                 int64_t max_context_tokens, Trace* trace);

// Tokens of one block after scaling, at least 1.
int64_t ScaledBlockTokens(const TraceFit& fit);

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_TRACE_H_
