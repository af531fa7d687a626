#include <cmath>

#include "base/limits.h"
#include "cli/bench/report.h"
#include "cli/client.h"

namespace witan::bench {
namespace {

using Json = nlohmann::ordered_json;

double Millis(Micros us) {
  return static_cast<double>(us) / static_cast<double>(kMicrosPerMilli);
}

template <typename T>
Json OrNull(const std::optional<T>& value) {
  return value.has_value() ? Json(*value) : Json();
}

Json SummaryJson(const Summary& s) {
  return {{"count", s.count}, {"mean", s.mean}, {"p50", s.p50}, {"p90", s.p90},
          {"p95", s.p95},     {"p99", s.p99},   {"max", s.max}};
}

Json ErrorsJson(const std::vector<ErrorCount>& errors) {
  Json list = Json::array();
  for (const ErrorCount& error : errors) {
    list.push_back({{"code", NameOf(error.code)},
                    {"count", error.count},
                    {"example", error.example}});
  }
  return list;
}

Json ClassJson(const ClassReport& r, bool has_goodput) {
  Json json;
  json["name"] = r.name;
  json["completed"] = r.num_completed;
  json["failed"] = r.num_failed;
  json["begin_s"] = r.begin_s;
  json["duration_s"] = r.duration_s;
  json["prompt_tokens"] = r.prompt_tokens;
  json["cached_tokens"] = r.cached_tokens;
  json["unshared_cache_hits"] = r.num_unshared_hits;
  json["output_tokens"] = r.output_tokens;
  json["output_tokens_of_failed"] = r.failed_output_tokens;
  json["requests_per_second"] = r.PerSecond(r.num_completed);
  json["prompt_tokens_per_second"] = r.PerSecond(r.prompt_tokens);
  json["output_tokens_per_second"] = r.PerSecond(r.output_tokens);
  json["good"] = has_goodput ? Json(r.num_good) : Json();
  json["goodput_per_second"] =
      has_goodput ? Json(r.PerSecond(r.num_good)) : Json();
  json["mean_in_flight"] = r.mean_in_flight;
  json["peak_in_flight"] = r.peak_in_flight;
  json["ttft_ms"] = SummaryJson(r.ttft_ms);
  json["inter_token_ms"] = SummaryJson(r.inter_token_ms);
  json["chunk_gap_ms"] = SummaryJson(r.chunk_gap_ms);
  json["tpot_ms"] = SummaryJson(r.tpot_ms);
  json["end_to_end_ms"] = SummaryJson(r.end_to_end_ms);
  json["server_queue_ms"] = SummaryJson(r.server_queue_ms);
  json["client_lag_ms"] = SummaryJson(r.client_lag_ms);
  json["errors"] = ErrorsJson(r.errors);
  return json;
}

Json TrafficJson(const TrafficClass& c) {
  Json json;
  json["name"] = c.name;
  json["arrivals"] = c.is_trace()    ? "trace"
                     : c.open_loop() ? "open loop"
                                     : "closed loop";
  if (c.rate > 0) {
    json["rate"] = std::isinf(c.rate) ? Json("inf") : Json(c.rate);
    json["burst"] = c.burst;
  }
  if (c.num_clients > 0) {
    json["clients"] = c.num_clients;
    json["think_time_ms"] = c.think_time_ms;
  }
  json["start_s"] = c.start_s;
  json["num_requests"] = c.num_requests > 0 ? Json(c.num_requests) : Json();
  if (!c.is_trace()) {
    json["prompt_tokens"] = c.prompt_tokens.text();
    json["output_tokens"] = c.output_tokens.text();
    json["shared_prefix_tokens"] = c.prefix_tokens;
    json["num_prefixes"] = c.num_prefixes;
    json["prefix_skew"] = c.prefix_skew;
    json["tenant_per_prefix"] = c.tenant_per_prefix;
  }
  json["tenant"] = OrNull(c.tenant);
  json["priority"] = OrNull(c.priority);
  json["temperature"] = c.temperature;
  return json;
}

Json ConfigJson(const RunFacts& facts, const Plan& plan) {
  const Workload& workload = plan.workload();
  Json json;
  json["seed"] = workload.seed;
  json["duration_s"] =
      workload.duration_s > 0 ? Json(workload.duration_s) : Json();
  json["warmup_requests"] = workload.num_warmup_requests;
  json["connections"] = facts.num_connections;
  json["timeout_ms"] = facts.timeout_ms;
  json["objectives"] = {{"ttft_ms", OrNull(facts.objectives.ttft_ms)},
                        {"itl_ms", OrNull(facts.objectives.inter_token_ms)},
                        {"gap_ms", OrNull(facts.objectives.chunk_gap_ms)},
                        {"tpot_ms", OrNull(facts.objectives.tpot_ms)},
                        {"e2e_ms", OrNull(facts.objectives.end_to_end_ms)}};
  for (const TrafficClass& traffic : plan.classes()) {
    json["classes"].push_back(TrafficJson(traffic));
  }
  if (plan.classes().front().is_trace()) {
    json["trace"] = {{"entries", workload.trace.entries.size()},
                     {"skipped", plan.num_skipped()},
                     {"speed", workload.trace_fit.speed},
                     {"length_scale", workload.trace_fit.length_scale},
                     {"block_tokens", workload.trace_fit.block_tokens}};
  }
  return json;
}

Json RecordJson(const Record& record, const std::string& class_name) {
  Json json;
  json["class"] = class_name;
  json["index"] = record.index;
  json["warmup"] = record.is_warmup;
  json["due_ms"] = Millis(record.due_us);
  json["sent_ms"] = Millis(record.sent_us);
  json["ended_ms"] = Millis(record.ended_us);
  json["prompt_tokens"] = record.prompt_tokens;
  json["cached_tokens"] = record.cached_tokens;
  json["output_tokens"] = record.NumTokens();
  json["prefix"] = OrNull(record.prefix);
  json["code"] = NameOf(record.code);
  json["message"] = record.message;
  if (record.ok()) {
    const Latencies latencies = LatenciesOf(record);
    json["ttft_ms"] = latencies.ttft_ms;
    json["tpot_ms"] = OrNull(latencies.tpot_ms);
    json["end_to_end_ms"] = latencies.end_to_end_ms;
    json["server_queue_ms"] = record.server_queue_ms;
  }
  Json& chunks = json["chunks"] = Json::array();
  for (const TokenArrival& arrival : record.arrivals) {
    chunks.push_back({Millis(arrival.at_us), arrival.num_tokens});
  }
  return json;
}

}  // namespace

Json ToJson(const RunFacts& facts, const Plan& plan, const Report& report,
            const std::vector<Record>* records) {
  Json json;
  json["server"] = {
      {"address", facts.server},
      {"model", facts.model},
      {"architecture", facts.architecture},
      {"weights_dtype", facts.weights_dtype},
      {"vocab_size", facts.model_facts.vocab_size},
      {"max_context_tokens", facts.model_facts.max_context_tokens},
      {"tp", facts.tp},
      {"ep", facts.ep},
      {"num_ranks", facts.num_ranks},
      {"build_id", facts.server_build_id},
      {"weights_id", facts.weights_id},
      {"numerics_id", facts.numerics_id}};
  json["client"] = {{"version", facts.version},
                    {"build_id", facts.build_id},
                    {"cores_busy", facts.client_cores}};
  json["started_at"] = facts.started_at;
  json["config"] = ConfigJson(facts, plan);
  json["interrupted"] = facts.interrupted;
  json["not_sent"] = facts.num_unsent;
  json["stopped_at_max_requests"] = facts.stopped_at_max_requests;
  json["duration_s"] = report.duration_s;
  json["send_window_s"] = report.send_window_s;
  json["drain_s"] = report.drain_s();
  json["output_tokens_per_second_while_sending"] =
      OrNull(report.output_tokens_per_second_while_sending);
  const bool has_goodput = facts.objectives.any();
  json["total"] = ClassJson(report.total, has_goodput);
  for (const ClassReport& each : report.classes) {
    json["classes"].push_back(ClassJson(each, has_goodput));
  }
  json["warmup"] = {{"completed", report.warmup.num_completed},
                    {"failed", report.warmup.num_failed},
                    {"errors", ErrorsJson(report.warmup.errors)}};
  Json& timeline = json["timeline"] = Json::array();
  for (const TimelineSlice& slice : report.timeline) {
    timeline.push_back(
        {{"begin_s", slice.begin_s},
         {"output_tokens_per_second", slice.output_tokens_per_second},
         {"in_flight", slice.in_flight},
         {"failed", slice.num_failed}});
  }
  if (records != nullptr) {
    Json& list = json["requests"] = Json::array();
    for (const Record& record : *records) {
      const size_t index = static_cast<size_t>(record.class_index);
      list.push_back(RecordJson(record, plan.classes()[index].name));
    }
  }
  return json;
}

}  // namespace witan::bench
