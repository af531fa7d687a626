#include "worker/worker_metrics.h"

#include <algorithm>

#include "base/build_id.h"
#include "base/metric_names.h"

namespace witan {
namespace {

prometheus::Gauge& MakeGauge(prometheus::Registry& registry, const char* name,
                             const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(
      {});
}

prometheus::Histogram& AddPhase(
    prometheus::Family<prometheus::Histogram>& family, const char* phase) {
  return family.Add({{"phase", phase}},
                    prometheus::Histogram::BucketBoundaries{
                        .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05,
                        .1, .25, .5, 1, 2.5, 5, 10, 30});
}

double Seconds(int64_t us) {
  return static_cast<double>(std::max<int64_t>(us, 0)) * 1e-6;
}

}  // namespace

WorkerMetrics::WorkerMetrics()
    : registry_(std::make_shared<prometheus::Registry>()),
      connected_(MakeGauge(*registry_, metric::kWorkerConnected,
                           "1 while the coordinator has accepted this worker")),
      epoch_(MakeGauge(*registry_, metric::kWorkerEpoch,
                       "Epoch of the group this worker was given last")),
      load_progress_(MakeGauge(*registry_, metric::kWorkerLoadProgress,
                               "Bytes of the shard loaded, of all its bytes")),
      step_seconds_(prometheus::BuildHistogram()
                        .Name(metric::kStepSeconds)
                        .Help("Time of one step of this rank, by where it went")
                        .Register(*registry_)),
      compute_(AddPhase(step_seconds_, "compute")),
      communication_(AddPhase(step_seconds_, "communication")),
      wait_(AddPhase(step_seconds_, "wait")) {
  prometheus::BuildGauge()
      .Name(metric::kBuildInfo)
      .Help("Always 1; what runs here is in the labels")
      .Register(*registry_)
      .Add({{"version", Version()}, {"build_id", BuildId()}})
      .Set(1);
}

void WorkerMetrics::OnConnected(bool connected) {
  connected_.Set(connected ? 1 : 0);
}

void WorkerMetrics::OnEpoch(Epoch epoch) {
  epoch_.Set(static_cast<double>(epoch));
}

void WorkerMetrics::OnLoadProgress(int64_t done, int64_t total) {
  load_progress_.Set(
      total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0);
}

void WorkerMetrics::OnStep(const StepTimings& timings) {
  compute_.Observe(Seconds(timings.total_us - timings.communication_us));
  communication_.Observe(Seconds(timings.communication_us - timings.wait_us));
  wait_.Observe(Seconds(timings.wait_us));
}

}  // namespace witan
