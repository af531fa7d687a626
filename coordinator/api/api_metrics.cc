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

using Labels = std::vector<std::pair<std::string, std::string>>;
using Snapshots = std::vector<std::shared_ptr<const ReplicaSnapshot>>;

constexpr prometheus::MetricType kGauge = prometheus::MetricType::Gauge;
constexpr prometheus::MetricType kCounter = prometheus::MetricType::Counter;

// One number of a replica. Rows of one name follow each other and differ in
// their label.
struct ReplicaMetric {
  const char* name;
  const char* help;
  prometheus::MetricType type;
  double (*value)(const ReplicaSnapshot& snapshot);
  const char* label = nullptr;
  const char* label_value = nullptr;
};

template <int64_t SchedulerStats::*field>
double Stat(const ReplicaSnapshot& snapshot) {
  return static_cast<double>(snapshot.scheduler.*field);
}

double UsedBlocks(const ReplicaSnapshot& snapshot) {
  return static_cast<double>(snapshot.scheduler.num_blocks -
                             snapshot.scheduler.num_free_blocks);
}

double CacheUsage(const ReplicaSnapshot& snapshot) {
  return snapshot.scheduler.num_blocks > 0
             ? UsedBlocks(snapshot) /
                   static_cast<double>(snapshot.scheduler.num_blocks)
             : 0;
}

template <int64_t StepTimeTotals::*field>
double StepSeconds(const ReplicaSnapshot& snapshot) {
  return Seconds(snapshot.step_time.*field);
}

constexpr ReplicaMetric kReplicaMetrics[] = {
    {metric::kSequencesRunning, "Sequences being computed", kGauge,
     Stat<&SchedulerStats::num_running>},
    {metric::kSequencesWaiting, "Sequences in the queue", kGauge,
     Stat<&SchedulerStats::num_waiting>},
    {metric::kSequencesPaused, "Sequences whose client takes no tokens", kGauge,
     Stat<&SchedulerStats::num_paused>},
    {metric::kKvBlocks, "Blocks of the KV cache by state", kGauge, UsedBlocks,
     "state", "used"},
    {metric::kKvBlocks, "", kGauge, Stat<&SchedulerStats::num_free_blocks>,
     "state", "free"},
    {metric::kKvCacheUsage, "Blocks of the KV cache in use, of all", kGauge,
     CacheUsage},
    {metric::kPreemptions, "Sequences that had to give up their cache",
     kCounter, Stat<&SchedulerStats::num_preemptions>},
    {metric::kPauses, "Sequences paused for their client", kCounter,
     Stat<&SchedulerStats::num_pauses>},
    {metric::kPrefixLookupTokens,
     "Tokens of admitted sequences, looked up in the prefix cache", kCounter,
     Stat<&SchedulerStats::num_prefix_lookup_tokens>},
    {metric::kPrefixHitTokens, "Of these tokens, found and not computed again",
     kCounter, Stat<&SchedulerStats::num_prefix_hit_tokens>},
    {metric::kPrefixEvictions, "Cached blocks whose place was needed", kCounter,
     Stat<&SchedulerStats::num_prefix_evictions>},
    {metric::kPrefixParked,
     "Sequences that waited while another one computed what both begin with",
     kCounter, Stat<&SchedulerStats::num_parked>},
    {metric::kPrefixBlocks, "Blocks that the prefix cache knows, used or not",
     kGauge, Stat<&SchedulerStats::num_named_blocks>},
    {metric::kSteps, "Steps planned", kCounter,
     Stat<&SchedulerStats::num_steps>},
    {metric::kLookAheadSteps, "Steps planned while another one ran", kCounter,
     Stat<&SchedulerStats::num_look_ahead_steps>},
    {metric::kDiscardedRows, "Token rows computed for sequences that had ended",
     kCounter, Stat<&SchedulerStats::num_discarded_rows>},
    {metric::kSequencesFinished, "Sequences that ended, for whatever reason",
     kCounter, Stat<&SchedulerStats::num_finished>},
    {metric::kStepRows, "Token rows computed, by what for", kCounter,
     Stat<&SchedulerStats::num_decode_rows>, "kind", "decode"},
    {metric::kStepRows, "", kCounter, Stat<&SchedulerStats::num_prefill_rows>,
     "kind", "prefill"},
    {metric::kStepTime, "Where the time of all steps went", kCounter,
     StepSeconds<&StepTimeTotals::compute_us>, "phase", "compute"},
    {metric::kStepTime, "", kCounter,
     StepSeconds<&StepTimeTotals::communication_us>, "phase", "communication"},
    {metric::kStepTime, "", kCounter, StepSeconds<&StepTimeTotals::wait_us>,
     "phase", "wait"},
    {metric::kStepTime, "", kCounter,
     StepSeconds<&StepTimeTotals::coordinator_us>, "phase", "coordinator"},
    {metric::kGroupEpoch, "Epoch of the worker group; grows on rebuild", kGauge,
     [](const ReplicaSnapshot& snapshot) {
       return static_cast<double>(snapshot.epoch);
     }},
    {metric::kGroupServing, "1 while requests can be served", kGauge,
     [](const ReplicaSnapshot& snapshot) {
       return snapshot.state == ReplicaState::kServing ? 1.0 : 0.0;
     }},
    {metric::kGroupFailures, "Worker groups that were lost", kCounter,
     [](const ReplicaSnapshot& snapshot) {
       return static_cast<double>(snapshot.num_group_failures);
     }},
};

std::string ReplicaLabel(size_t replica) { return fmt::format("{}", replica); }

void CollectReplicas(const Snapshots& snapshots,
                     std::vector<prometheus::MetricFamily>& out) {
  for (const ReplicaMetric& row : kReplicaMetrics) {
    const bool continues = !out.empty() && out.back().name == row.name;
    FamilyBuilder family(row.name, row.help, row.type);
    for (size_t replica = 0; replica < snapshots.size(); ++replica) {
      Labels labels = {{"replica", ReplicaLabel(replica)}};
      if (row.label != nullptr) labels.push_back({row.label, row.label_value});
      family.Add(row.value(*snapshots[replica]), labels);
    }
    prometheus::MetricFamily made = family.Take();
    if (!continues) {
      out.push_back(std::move(made));
      continue;
    }
    for (prometheus::ClientMetric& metric : made.metric) {
      out.back().metric.push_back(std::move(metric));
    }
  }
}

void CollectRanks(const Snapshots& snapshots,
                  std::vector<prometheus::MetricFamily>& out) {
  FamilyBuilder up(metric::kWorkerUp,
                   "1 for a rank that is held by a live worker", kGauge);
  FamilyBuilder step(metric::kWorkerStepSeconds,
                     "Duration of the rank's latest step", kGauge);
  FamilyBuilder progress(metric::kLoadProgress,
                         "Bytes of the shard loaded, of all its bytes", kGauge);
  for (size_t replica = 0; replica < snapshots.size(); ++replica) {
    const ReplicaSnapshot& snapshot = *snapshots[replica];
    for (int rank = 0; rank < snapshot.layout.num_ranks(); ++rank) {
      const Labels labels = {{"replica", ReplicaLabel(replica)},
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
      reasoning_tokens_(
          MakeCounter(*registry_, metric::kReasoningTokens,
                      "Tokens made that are of thoughts, of choices that "
                      "ended")),
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
      queue_time_(
          MakeHistogram(*registry_, metric::kQueueTime,
                        "From arrival to the first step that held a token",
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

void ApiMetrics::OnReasoning(int64_t num_tokens) {
  reasoning_tokens_.Increment(static_cast<double>(num_tokens));
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
  const Snapshots snapshots = engine_.Snapshots();
  std::vector<prometheus::MetricFamily> out;
  CollectReplicas(snapshots, out);
  CollectRanks(snapshots, out);
  return out;
}

}  // namespace witan
