#ifndef WITAN_WORKER_WORKER_METRICS_H_
#define WITAN_WORKER_WORKER_METRICS_H_

#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <cstdint>
#include <memory>

#include "base/step_plan.h"

namespace witan {

// What a worker tells Prometheus. Thread-safe.
class WorkerMetrics {
 public:
  WorkerMetrics();

  void OnConnected(bool connected);
  void OnEpoch(Epoch epoch);
  void OnLoadProgress(int64_t done, int64_t total);
  void OnStep(const StepTimings& timings);

  std::shared_ptr<prometheus::Registry> registry() const { return registry_; }

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Gauge& connected_;
  prometheus::Gauge& epoch_;
  prometheus::Gauge& load_progress_;
  prometheus::Family<prometheus::Histogram>& step_seconds_;
  prometheus::Histogram& compute_;
  prometheus::Histogram& communication_;
  prometheus::Histogram& wait_;
};

}  // namespace witan

#endif  // WITAN_WORKER_WORKER_METRICS_H_
