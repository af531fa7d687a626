#include "cli/bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "cli/bench/axis.h"
#include "cli/bench/distribution.h"

namespace witan::bench {
namespace {

// A timeline has about this many slices.
constexpr double kTimelineSlices = 120;
constexpr double kInterTokenPercent = 99;

double Millis(Micros us) {
  return static_cast<double>(us) / static_cast<double>(kMicrosPerMilli);
}

double Seconds(Micros us) {
  return static_cast<double>(us) / static_cast<double>(kMicrosPerSecond);
}

// Samples of one class while they are collected.
struct Samples {
  std::vector<double> ttft, inter_token, chunk_gap, tpot, end_to_end;
  std::vector<double> server_queue, client_lag;
};

void AppendTo(std::vector<double>& to, const std::vector<double>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

void CountErrors(const std::vector<const Record*>& records,
                 ClassReport* report) {
  std::map<grpc::StatusCode, ErrorCount> errors;
  for (const Record* record : records) {
    if (record->ok()) continue;
    ErrorCount& error = errors[record->code];
    error.code = record->code;
    if (error.count++ == 0) error.example = record->message;
  }
  for (auto& [code, error] : errors) report->errors.push_back(error);
  std::stable_sort(report->errors.begin(), report->errors.end(),
                   [](const ErrorCount& a, const ErrorCount& b) {
                     return a.count > b.count;
                   });
}

void CountInFlight(const std::vector<const Record*>& records,
                   ClassReport* report) {
  std::vector<std::pair<Micros, int>> changes;
  double busy_s = 0;
  for (const Record* record : records) {
    changes.emplace_back(record->sent_us, 1);
    changes.emplace_back(record->ended_us, -1);
    busy_s += Seconds(record->ended_us - record->sent_us);
  }
  // At equal times ends come first: a client that goes on at once has never had
  // two requests.
  std::sort(changes.begin(), changes.end());
  int64_t in_flight = 0;
  for (const auto& [at, change] : changes) {
    in_flight += change;
    report->peak_in_flight = std::max(report->peak_in_flight, in_flight);
  }
  if (report->duration_s > 0) {
    report->mean_in_flight = busy_s / report->duration_s;
  }
}

// A stretch of time.
struct Span {
  Micros begin_us = 0;
  Micros end_us = 0;
};

// From the first begin to the last end.
Span SpanOf(const std::vector<const Record*>& records) {
  if (records.empty()) return {};
  Span span = {records.front()->begin_us(), records.front()->ended_us};
  for (const Record* record : records) {
    span.begin_us = std::min(span.begin_us, record->begin_us());
    span.end_us = std::max(span.end_us, record->ended_us);
  }
  return span;
}

ClassReport ReportOf(std::string name, const Objectives& objectives,
                     const std::vector<const Record*>& records, Span span) {
  ClassReport report;
  report.name = std::move(name);
  report.begin_s = Seconds(span.begin_us);
  report.duration_s = Seconds(span.end_us - span.begin_us);
  Samples samples;
  for (const Record* record : records) {
    samples.client_lag.push_back(Millis(record->lag_us()));
    if (!record->ok()) {
      ++report.num_failed;
      report.failed_output_tokens += record->NumTokens();
      continue;
    }
    ++report.num_completed;
    report.prompt_tokens += record->prompt_tokens;
    report.cached_tokens += record->cached_tokens;
    if (record->cached_tokens > record->shared_tokens) {
      ++report.num_unshared_hits;
    }
    report.output_tokens += record->NumTokens();
    const Latencies latencies = LatenciesOf(*record);
    if (Meets(latencies, objectives)) ++report.num_good;
    samples.ttft.push_back(latencies.ttft_ms);
    samples.end_to_end.push_back(latencies.end_to_end_ms);
    samples.server_queue.push_back(record->server_queue_ms);
    if (latencies.tpot_ms) samples.tpot.push_back(*latencies.tpot_ms);
    AppendTo(samples.inter_token, latencies.inter_token_ms);
    AppendTo(samples.chunk_gap, latencies.chunk_gap_ms);
  }
  report.ttft_ms = Summarize(std::move(samples.ttft));
  report.inter_token_ms = Summarize(std::move(samples.inter_token));
  report.chunk_gap_ms = Summarize(std::move(samples.chunk_gap));
  report.tpot_ms = Summarize(std::move(samples.tpot));
  report.end_to_end_ms = Summarize(std::move(samples.end_to_end));
  report.server_queue_ms = Summarize(std::move(samples.server_queue));
  report.client_lag_ms = Summarize(std::move(samples.client_lag));
  CountErrors(records, &report);
  CountInFlight(records, &report);
  return report;
}

void AddSendWindow(const std::vector<const Record*>& records, Report* report) {
  Micros last_sent = 0;
  for (const Record* record : records) {
    last_sent = std::max(last_sent, record->sent_us);
  }
  report->send_window_s = Seconds(last_sent);
  if (last_sent == 0) return;
  int64_t num_tokens = 0;
  for (const Record* record : records) {
    for (const TokenArrival& arrival : record->arrivals) {
      if (arrival.at_us <= last_sent) num_tokens += arrival.num_tokens;
    }
  }
  report->output_tokens_per_second_while_sending =
      static_cast<double>(num_tokens) / report->send_window_s;
}

void AddTimeline(const std::vector<const Record*>& records, Report* report) {
  if (report->duration_s <= 0) return;
  const double slice_s =
      RoundUp(std::max(report->duration_s / kTimelineSlices, 1e-3));
  const size_t num_slices =
      static_cast<size_t>(std::ceil(report->duration_s / slice_s));
  report->slice_s = slice_s;
  report->timeline.resize(num_slices);
  const auto slice_at = [&](double at_s) -> size_t {
    return std::min(static_cast<size_t>(std::max(at_s, 0.0) / slice_s),
                    num_slices - 1);
  };
  for (size_t i = 0; i < num_slices; ++i) {
    report->timeline[i].begin_s = static_cast<double>(i) * slice_s;
  }
  for (const Record* record : records) {
    for (const TokenArrival& arrival : record->arrivals) {
      report->timeline[slice_at(Seconds(arrival.at_us))]
          .output_tokens_per_second += arrival.num_tokens / slice_s;
    }
    const double begin = Seconds(record->sent_us);
    const double end = Seconds(record->ended_us);
    for (size_t i = slice_at(begin); i <= slice_at(end); ++i) {
      TimelineSlice& slice = report->timeline[i];
      const double inside = std::min(end, slice.begin_s + slice_s) -
                            std::max(begin, slice.begin_s);
      slice.in_flight += std::max(inside, 0.0) / slice_s;
    }
    if (!record->ok()) ++report->timeline[slice_at(end)].num_failed;
  }
}

}  // namespace

double Percentile(const std::vector<double>& ascending, double percent) {
  WITAN_CHECK(!ascending.empty(), "a percentile of nothing");
  const double rank =
      std::ceil(percent * static_cast<double>(ascending.size()) / 100);
  const size_t index = static_cast<size_t>(std::max(rank, 1.0)) - 1;
  return ascending[std::min(index, ascending.size() - 1)];
}

Summary Summarize(std::vector<double> samples) {
  Summary summary;
  if (samples.empty()) return summary;
  std::sort(samples.begin(), samples.end());
  summary.count = static_cast<int64_t>(samples.size());
  summary.mean = std::accumulate(samples.begin(), samples.end(), 0.0) /
                 static_cast<double>(samples.size());
  summary.p50 = Percentile(samples, 50);
  summary.p90 = Percentile(samples, 90);
  summary.p95 = Percentile(samples, 95);
  summary.p99 = Percentile(samples, 99);
  summary.max = samples.back();
  return summary;
}

Latencies LatenciesOf(const Record& record) {
  WITAN_CHECK(!record.arrivals.empty(), "a request without tokens");
  const TokenArrival& first = record.arrivals.front();
  const TokenArrival& last = record.arrivals.back();
  Latencies result;
  result.ttft_ms = Millis(first.at_us - record.begin_us());
  result.end_to_end_ms = Millis(record.ended_us - record.begin_us());
  for (size_t i = 1; i < record.arrivals.size(); ++i) {
    const TokenArrival& chunk = record.arrivals[i];
    const double gap = Millis(chunk.at_us - record.arrivals[i - 1].at_us);
    result.chunk_gap_ms.push_back(gap);
    result.inter_token_ms.insert(result.inter_token_ms.end(),
                                 static_cast<size_t>(chunk.num_tokens),
                                 gap / chunk.num_tokens);
  }
  const int64_t num_tokens = record.NumTokens();
  if (num_tokens > 1) {
    result.tpot_ms =
        Millis(last.at_us - first.at_us) / static_cast<double>(num_tokens - 1);
  }
  return result;
}

absl::StatusOr<Objectives> ParseObjectives(
    const std::vector<std::string>& texts) {
  Objectives objectives;
  for (const std::string& text : texts) {
    const size_t colon = text.find(':');
    const std::string name = text.substr(0, colon);
    std::optional<double>* const target =
        name == "ttft"   ? &objectives.ttft_ms
        : name == "itl"  ? &objectives.inter_token_ms
        : name == "gap"  ? &objectives.chunk_gap_ms
        : name == "tpot" ? &objectives.tpot_ms
        : name == "e2e"  ? &objectives.end_to_end_ms
                         : nullptr;
    if (target == nullptr || colon == std::string::npos) {
      return InvalidArgument(
          "--objective {}: must be ttft, itl, gap, tpot or e2e, a colon and "
          "milliseconds, e.g. ttft:500",
          text);
    }
    const auto value = ParseNumber(text.substr(colon + 1));
    if (!value.ok() || !(*value > 0)) {
      return InvalidArgument(
          "--objective {}: \"{}\" is not a number of milliseconds above 0",
          text, text.substr(colon + 1));
    }
    if (target->has_value()) {
      return InvalidArgument("--objective names {} twice; name it once", name);
    }
    *target = *value;
  }
  return objectives;
}

std::string Describe(const Objectives& objectives) {
  std::string text;
  const auto add = [&text](const char* name, std::optional<double> value) {
    if (!value) return;
    text += fmt::format("{}{} {} ms", text.empty() ? "" : ", ", name, *value);
  };
  add("ttft", objectives.ttft_ms);
  add("itl", objectives.inter_token_ms);
  add("gap", objectives.chunk_gap_ms);
  add("tpot", objectives.tpot_ms);
  add("e2e", objectives.end_to_end_ms);
  return text;
}

bool Meets(const Latencies& latencies, const Objectives& objectives) {
  if (objectives.ttft_ms && latencies.ttft_ms > *objectives.ttft_ms) {
    return false;
  }
  if (objectives.end_to_end_ms &&
      latencies.end_to_end_ms > *objectives.end_to_end_ms) {
    return false;
  }
  if (objectives.tpot_ms && latencies.tpot_ms &&
      *latencies.tpot_ms > *objectives.tpot_ms) {
    return false;
  }
  if (objectives.chunk_gap_ms &&
      std::any_of(latencies.chunk_gap_ms.begin(), latencies.chunk_gap_ms.end(),
                  [&](double gap) { return gap > *objectives.chunk_gap_ms; })) {
    return false;
  }
  if (objectives.inter_token_ms && !latencies.inter_token_ms.empty()) {
    std::vector<double> ascending = latencies.inter_token_ms;
    std::sort(ascending.begin(), ascending.end());
    return Percentile(ascending, kInterTokenPercent) <=
           *objectives.inter_token_ms;
  }
  return true;
}

Report MakeReport(const std::vector<std::string>& class_names,
                  const Objectives& objectives,
                  const std::vector<Record>& records) {
  std::vector<const Record*> measured;
  std::vector<const Record*> warmup;
  std::vector<std::vector<const Record*>> by_class(class_names.size());
  for (const Record& record : records) {
    if (record.is_warmup) {
      warmup.push_back(&record);
      continue;
    }
    measured.push_back(&record);
    by_class[static_cast<size_t>(record.class_index)].push_back(&record);
  }
  Report report;
  const Span whole = {.begin_us = 0, .end_us = SpanOf(measured).end_us};
  report.duration_s = Seconds(whole.end_us);
  report.total = ReportOf("all", objectives, measured, whole);
  for (size_t i = 0; i < class_names.size(); ++i) {
    report.classes.push_back(
        ReportOf(class_names[i], objectives, by_class[i], SpanOf(by_class[i])));
  }
  report.warmup.name = "warm-up";
  for (const Record* record : warmup) {
    ++(record->ok() ? report.warmup.num_completed : report.warmup.num_failed);
  }
  CountErrors(warmup, &report.warmup);
  AddSendWindow(measured, &report);
  AddTimeline(measured, &report);
  return report;
}

}  // namespace witan::bench
