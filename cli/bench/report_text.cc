#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "base/limits.h"
#include "cli/bench/report.h"
#include "cli/client.h"

namespace witan::bench {
namespace {

// A client later than this, and than a tenth of the median TTFT, is worth a
// warning.
constexpr double kLateMs = 5;

std::string Row(std::string_view name, const Summary& s) {
  if (s.count == 0) return fmt::format("{:<14} no sample\n", name);
  return fmt::format(
      "{:<14}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}"
      "{:>10.2f}{:>10}\n",
      name, s.mean, s.p50, s.p90, s.p95, s.p99, s.max, s.count);
}

std::string LatencyTable(const ClassReport& r) {
  std::string text = fmt::format(
      "\n{:<14}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "latency, ms",
      "mean", "p50", "p90", "p95", "p99", "max", "samples");
  text += Row("TTFT", r.ttft_ms);
  text += Row("inter-token", r.inter_token_ms);
  text += Row("chunk gap", r.chunk_gap_ms);
  text += Row("TPOT", r.tpot_ms);
  text += Row("end to end", r.end_to_end_ms);
  text += Row("server queue", r.server_queue_ms);
  text += Row("client lag", r.client_lag_ms);
  return text;
}

std::string ClassTable(const RunFacts& facts, const Report& report) {
  size_t width = 5;
  for (const ClassReport& r : report.classes) {
    width = std::max(width, r.name.size());
  }
  std::string text = fmt::format(
      "\n{:<{}} {:>7} {:>6} {:>7} {:>9} {:>8}   {:>8} {:>8}   {:>8} {:>8}   "
      "{:>8} {:>8}{}\n",
      "class", width, "done", "failed", "req/s", "tokens/s", "cached %",
      "TTFT p50", "p99", "ITL p50", "p99", "e2e p50", "p99",
      facts.objectives.any() ? "     good" : "");
  for (const ClassReport& r : report.classes) {
    text += fmt::format(
        "{:<{}} {:>7} {:>6} {:>7.2f} {:>9.1f} {:>8.1f}   {:>8.1f} {:>8.1f}   "
        "{:>8.1f} {:>8.1f}   {:>8.1f} {:>8.1f}",
        r.name, width, r.num_completed, r.num_failed,
        r.PerSecond(r.num_completed), r.PerSecond(r.output_tokens),
        r.CachedPercent(), r.ttft_ms.p50, r.ttft_ms.p99, r.inter_token_ms.p50,
        r.inter_token_ms.p99, r.end_to_end_ms.p50, r.end_to_end_ms.p99);
    if (facts.objectives.any()) text += fmt::format("  {:>7}", r.num_good);
    text += "\n";
  }
  return text;
}

std::string ErrorLines(const char* what, const ClassReport& r) {
  std::string text;
  for (const ErrorCount& error : r.errors) {
    text += fmt::format("{} {} times {}, e.g. {}\n", what, error.count,
                        NameOf(error.code), error.example);
  }
  return text;
}

std::string Head(const RunFacts& facts, const Plan& plan) {
  std::string text =
      fmt::format("model        {} ({}, {}) at {}, tp={} ep={}, build {}\n",
                  facts.model, facts.architecture, facts.weights_dtype,
                  facts.server, facts.tp, facts.ep, facts.server_build_id);
  for (const TrafficClass& traffic : plan.classes()) {
    const bool is_only = plan.classes().size() == 1;
    text += fmt::format("load         {}{}\n",
                        is_only ? "" : traffic.name + ": ", Describe(traffic));
  }
  if (plan.num_skipped() > 0) {
    text += fmt::format(
        "left out     {} entries of the trace that the model cannot serve\n",
        plan.num_skipped());
  }
  return text;
}

std::string Notes(const RunFacts& facts, const Report& report) {
  const ClassReport& total = report.total;
  std::string text;
  const Summary& lag = total.client_lag_ms;
  if (lag.p99 > std::max(kLateMs, total.ttft_ms.p50 / 10)) {
    text += fmt::format(
        "note: the client sent late (p99 {:.1f} ms, {:.2f} cores busy): part "
        "of these latencies is its own\n",
        lag.p99, facts.client_cores);
  }
  if (total.num_unshared_hits > 0) {
    text += fmt::format(
        "note: {} prompts were found in the server's prefix cache although "
        "this load does not share them; use another --seed than an earlier "
        "run\n",
        total.num_unshared_hits);
  }
  if (facts.stopped_at_max_requests) {
    text += fmt::format(
        "note: stopped after {} requests, the most that are sent, before the "
        "load was to end; shorten --duration or lower the number of clients\n",
        kMaxBenchRequests);
  }
  if (facts.interrupted) {
    text += fmt::format(
        "note: interrupted; what was in flight was cancelled and counts as "
        "failed, {} planned requests were not sent\n",
        facts.num_unsent);
  }
  return text;
}

}  // namespace

std::string ToText(const RunFacts& facts, const Plan& plan,
                   const Report& report) {
  const ClassReport& total = report.total;
  std::string text = Head(facts, plan);
  text += fmt::format(
      "requests     {} completed, {} failed in {:.2f} s, of which {:.2f} s "
      "after the last request was sent; in flight {:.1f} on average, {} at "
      "most\n",
      total.num_completed, total.num_failed, report.duration_s,
      report.drain_s(), total.mean_in_flight, total.peak_in_flight);
  text += fmt::format(
      "throughput   {:.2f} requests/s, {:.1f} output tokens/s, {:.1f} prompt "
      "tokens/s\n",
      total.PerSecond(total.num_completed),
      total.PerSecond(total.output_tokens),
      total.PerSecond(total.prompt_tokens));
  if (report.output_tokens_per_second_while_sending) {
    text += fmt::format(
        "             {:.1f} output tokens/s while sending, in the first "
        "{:.2f} s\n",
        *report.output_tokens_per_second_while_sending, report.send_window_s);
  }
  text += fmt::format(
      "prefix cache {} of {} prompt tokens were cached ({:.1f} %)\n",
      total.cached_tokens, total.prompt_tokens, total.CachedPercent());
  if (facts.objectives.any()) {
    text += fmt::format("goodput      {:.2f} requests/s: {} of {} kept {}\n",
                        total.PerSecond(total.num_good), total.num_good,
                        total.num_sent(), Describe(facts.objectives));
  }
  text += LatencyTable(total);
  if (report.classes.size() > 1) text += ClassTable(facts, report);
  const std::string tail = ErrorLines("failed:", total) +
                           ErrorLines("failed in warm-up:", report.warmup) +
                           Notes(facts, report);
  return tail.empty() ? text : text + "\n" + tail;
}

}  // namespace witan::bench
