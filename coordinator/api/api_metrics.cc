#include "coordinator/api/api_metrics.h"

#include <fmt/format.h>

#include <span>
#include <utility>

#include "base/build_id.h"
#include "base/metric_names.h"

namespace witan {
namespace {

using prometheus::Histogram;

double Seconds(Micros us) { return static_cast<double>(us) * 1e-6; }

prometheus::Counter& MakeCounter(prometheus::Registry& registry,
                                 const char* name, const char* help) {
  return prometheus::BuildCounter()
      .Name(name)
      .Help(help)
      .Register(registry)
      .Add({});
}

Histogram& MakeHistogram(prometheus::Registry& registry, const char* name,
                         const char* help, std::span<const double> boundaries) {
  return prometheus::BuildHistogram()
      .Name(name)
      .Help(help)
      .Register(registry)
      .Add({},
           Histogram::BucketBoundaries(boundaries.begin(), boundaries.end()));
}

// Seconds. Fine where a local model answers, coarse where a queue is long.
constexpr double kFirstTokenBuckets[] = {
    .001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
    1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
constexpr double kInterTokenBuckets[] = {
    .002, .004, .006, .008, .01, .015, .02, .025, .03, .035, .04, .06,
    .08,  .1,   .2,   .4,   .6,  .8,   1,   2,    4,   6,    8};
constexpr double kDurationBuckets[] = {
    .05, .1, .2, .3, .5, .8, 1,   1.5, 2,   2.5, 5,    10,
    15,  20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};

// Builds the families of one scrape.
class FamilyBuilder {
 public:
  FamilyBuilder(const char* name, const char* help,
                prometheus::MetricType type) {
    family_.name = name;
    family_.help = help;
    family_.type = type;
  }

  FamilyBuilder& Add(
      double value,
      const std::vector<std::pair<std::string, std::string>>& labels = {}) {
    prometheus::ClientMetric metric;
    for (const auto& [name, label] : labels) {
      metric.label.push_back({name, label});
    }
    if (family_.type == prometheus::MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    family_.metric.push_back(std::move(metric));
    return *this;
  }

  prometheus::MetricFamily Take() { return std::move(family_); }

 private:
  prometheus::MetricFamily family_;
};

FamilyBuilder Gauge(const char* name, const char* help) {
  return FamilyBuilder(name, help, prometheus::MetricType::Gauge);
}

FamilyBuilder Counter(const char* name, const char* help) {
  return FamilyBuilder(name, help, prometheus::MetricType::Counter);
}

void CollectPrefixCache(const SchedulerStats& stats,
                        std::vector<prometheus::MetricFamily>& out) {
  out.push_back(Counter(metric::kPrefixLookupTokens,
                        "Tokens of admitted sequences, looked up in the cache")
                    .Add(static_cast<double>(stats.num_prefix_lookup_tokens))
                    .Take());
  out.push_back(Counter(metric::kPrefixHitTokens,
                        "Of these tokens, found and not computed again")
                    .Add(static_cast<double>(stats.num_prefix_hit_tokens))
                    .Take());
  out.push_back(
      Counter(metric::kPrefixEvictions, "Cached blocks whose place was needed")
          .Add(static_cast<double>(stats.num_prefix_evictions))
          .Take());
  out.push_back(Counter(metric::kPrefixParked,
                        "Sequences that waited for another one to compute what "
                        "both begin with")
                    .Add(static_cast<double>(stats.num_parked))
                    .Take());
  out.push_back(Gauge(metric::kPrefixBlocks,
                      "Blocks that the prefix cache knows, in use or not")
                    .Add(static_cast<double>(stats.num_named_blocks))
                    .Take());
}

void CollectScheduler(const SchedulerStats& stats,
                      std::vector<prometheus::MetricFamily>& out) {
  const double used =
      static_cast<double>(stats.num_blocks - stats.num_free_blocks);
  const double all = static_cast<double>(stats.num_blocks);
  out.push_back(Gauge(metric::kSequencesRunning, "Sequences being computed")
                    .Add(static_cast<double>(stats.num_running))
                    .Take());
  out.push_back(Gauge(metric::kSequencesWaiting, "Sequences in the queue")
                    .Add(static_cast<double>(stats.num_waiting))
                    .Take());
  out.push_back(Gauge(metric::kSequencesPaused,
                      "Sequences whose client does not take its tokens")
                    .Add(static_cast<double>(stats.num_paused))
                    .Take());
  out.push_back(Gauge(metric::kKvBlocks, "Blocks of the KV cache by state")
                    .Add(used, {{"state", "used"}})
                    .Add(all - used, {{"state", "free"}})
                    .Take());
  out.push_back(
      Gauge(metric::kKvCacheUsage, "Blocks of the KV cache in use, of all")
          .Add(all > 0 ? used / all : 0)
          .Take());
  out.push_back(
      Counter(metric::kPreemptions, "Sequences that had to give up their cache")
          .Add(static_cast<double>(stats.num_preemptions))
          .Take());
  out.push_back(Counter(metric::kPauses, "Sequences paused for their client")
                    .Add(static_cast<double>(stats.num_pauses))
                    .Take());
  CollectPrefixCache(stats, out);
  out.push_back(Counter(metric::kSteps, "Steps planned")
                    .Add(static_cast<double>(stats.num_steps))
                    .Take());
  out.push_back(
      Counter(metric::kLookAheadSteps, "Steps planned while another one ran")
          .Add(static_cast<double>(stats.num_look_ahead_steps))
          .Take());
  out.push_back(Counter(metric::kDiscardedRows,
                        "Token rows computed for sequences that had ended")
                    .Add(static_cast<double>(stats.num_discarded_rows))
                    .Take());
  out.push_back(Counter(metric::kSequencesFinished,
                        "Sequences that ended, for whatever reason")
                    .Add(static_cast<double>(stats.num_finished))
                    .Take());
  out.push_back(
      Counter(metric::kStepRows, "Token rows computed, by what for")
          .Add(static_cast<double>(stats.num_decode_rows), {{"kind", "decode"}})
          .Add(static_cast<double>(stats.num_prefill_rows),
               {{"kind", "prefill"}})
          .Take());
}

void CollectRanks(const ReplicaSnapshot& snapshot,
                  std::vector<prometheus::MetricFamily>& out) {
  FamilyBuilder up =
      Gauge(metric::kWorkerUp, "1 for a rank that is held by a live worker");
  FamilyBuilder step =
      Gauge(metric::kWorkerStepSeconds, "Duration of the rank's latest step");
  FamilyBuilder progress = Gauge(metric::kLoadProgress,
                                 "Bytes of the shard loaded, of all its bytes");
  for (int rank = 0; rank < snapshot.layout.num_ranks(); ++rank) {
    const std::vector<std::pair<std::string, std::string>> labels = {
        {"rank", fmt::format("{}", rank)}};
    const size_t index = static_cast<size_t>(rank);
    if (index >= snapshot.ranks.size()) {
      up.Add(0, labels);
      progress.Add(0, labels);
      continue;
    }
    const RankSnapshot& held = snapshot.ranks[index];
    up.Add(1, labels);
    step.Add(Seconds(held.last_step.total_us), labels);
    const double done = static_cast<double>(held.load_bytes_done);
    const double total = static_cast<double>(held.load_bytes_total);
    progress.Add(held.prepared ? 1 : total > 0 ? done / total : 0, labels);
  }
  out.push_back(up.Take());
  out.push_back(step.Take());
  out.push_back(progress.Take());
}

}  // namespace

ApiMetrics::ApiMetrics()
    : registry_(std::make_shared<prometheus::Registry>()),
      requests_(prometheus::BuildCounter()
                    .Name(metric::kRequests)
                    .Help("Requests that ended, by method and outcome")
                    .Register(*registry_)),
      rejected_(prometheus::BuildCounter()
                    .Name(metric::kAdmissionRejected)
                    .Help("Requests refused for want of room, by what was full")
                    .Register(*registry_)),
      in_flight_(prometheus::BuildGauge()
                     .Name(metric::kRequestsInFlight)
                     .Help("Streams that are open")
                     .Register(*registry_)
                     .Add({})),
      prompt_tokens_(MakeCounter(*registry_, metric::kPromptTokens,
                                 "Tokens of prompts that were admitted")),
      generated_tokens_(
          MakeCounter(*registry_, metric::kGeneratedTokens, "Tokens made")),
      slow_readers_cut_(
          MakeCounter(*registry_, metric::kSlowReadersCut,
                      "Streams ended because their client did not read")),
      time_to_first_token_(MakeHistogram(
          *registry_, metric::kTimeToFirstToken,
          "From a request's arrival to its first token", kFirstTokenBuckets)),
      inter_token_latency_(MakeHistogram(
          *registry_, metric::kInterTokenLatency,
          "Between one token of a choice and the next", kInterTokenBuckets)),
      request_duration_(MakeHistogram(*registry_, metric::kRequestDuration,
                                      "From a request's arrival to its end",
                                      kDurationBuckets)),
      queue_time_(MakeHistogram(*registry_, metric::kQueueTime,
                                "Until the first step that held a token",
                                kFirstTokenBuckets)) {
  prometheus::BuildGauge()
      .Name(metric::kBuildInfo)
      .Help("Always 1; what runs here is in the labels")
      .Register(*registry_)
      .Add({{"version", Version()}, {"build_id", BuildId()}})
      .Set(1);
}

void ApiMetrics::OnRequestStarted() { in_flight_.Increment(); }

void ApiMetrics::OnRequestEnded(const std::string& method,
                                const std::string& outcome,
                                Micros duration_us) {
  in_flight_.Decrement();
  requests_.Add({{"method", method}, {"outcome", outcome}}).Increment();
  request_duration_.Observe(Seconds(duration_us));
}

void ApiMetrics::OnRequestRefused(const std::string& method,
                                  const std::string& outcome) {
  requests_.Add({{"method", method}, {"outcome", outcome}}).Increment();
}

void ApiMetrics::OnRejected(const std::string& reason) {
  rejected_.Add({{"reason", reason}}).Increment();
}

void ApiMetrics::OnPrompt(int64_t num_tokens) {
  prompt_tokens_.Increment(static_cast<double>(num_tokens));
}

void ApiMetrics::OnFirstToken(Micros since_arrival_us) {
  generated_tokens_.Increment();
  time_to_first_token_.Observe(Seconds(since_arrival_us));
}

void ApiMetrics::OnLaterToken(Micros since_previous_us) {
  generated_tokens_.Increment();
  inter_token_latency_.Observe(Seconds(since_previous_us));
}

void ApiMetrics::OnQueued(Micros queued_us) {
  queue_time_.Observe(Seconds(queued_us));
}

void ApiMetrics::OnSlowReaderCut() { slow_readers_cut_.Increment(); }

std::vector<prometheus::MetricFamily> ClusterMetrics::Collect() const {
  const std::shared_ptr<const ReplicaSnapshot> snapshot = engine_.Snapshot();
  std::vector<prometheus::MetricFamily> out;
  CollectScheduler(snapshot->scheduler, out);
  CollectRanks(*snapshot, out);
  out.push_back(
      Gauge(metric::kGroupEpoch, "Epoch of the worker group; grows on rebuild")
          .Add(static_cast<double>(snapshot->epoch))
          .Take());
  out.push_back(Gauge(metric::kGroupServing, "1 while requests can be served")
                    .Add(snapshot->state == ReplicaState::kServing ? 1 : 0)
                    .Take());
  out.push_back(Counter(metric::kGroupFailures, "Worker groups that were lost")
                    .Add(static_cast<double>(snapshot->num_group_failures))
                    .Take());
  return out;
}

}  // namespace witan
