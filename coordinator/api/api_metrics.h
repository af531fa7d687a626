#ifndef WITAN_COORDINATOR_API_API_METRICS_H_
#define WITAN_COORDINATOR_API_API_METRICS_H_

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "coordinator/cluster/engine.h"

namespace witan {

// What the API itself counts. Thread-safe.
class ApiMetrics {
 public:
  ApiMetrics();

  void OnRequestStarted();
  // `outcome`: see metric::kRequests.
  void OnRequestEnded(const std::string& method, const std::string& outcome,
                      Micros duration_us);
  // A request that ended before it started.
  void OnRequestRefused(const std::string& method, const std::string& outcome);
  // `reason`: see metric::kAdmissionRejected.
  void OnRejected(const std::string& reason);
  void OnPrompt(int64_t num_tokens);
  // Tokens of the thought of a choice that ended.
  void OnReasoning(int64_t num_tokens);
  void OnFirstToken(Micros since_arrival_us);
  void OnLaterToken(Micros since_previous_us);
  void OnQueued(Micros queued_us);
  void OnSlowReaderCut();

  int64_t num_prompt_tokens() const {
    return static_cast<int64_t>(prompt_tokens_.Value());
  }
  int64_t num_generated_tokens() const {
    return static_cast<int64_t>(generated_tokens_.Value());
  }
  std::shared_ptr<prometheus::Registry> registry() const { return registry_; }

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Counter>& rejected_;
  prometheus::Gauge& in_flight_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generated_tokens_;
  prometheus::Counter& reasoning_tokens_;
  prometheus::Counter& slow_readers_cut_;
  prometheus::Histogram& time_to_first_token_;
  prometheus::Histogram& inter_token_latency_;
  prometheus::Histogram& request_duration_;
  prometheus::Histogram& queue_time_;
};

// The cluster's state, read from the engine's snapshot at each scrape.
class ClusterMetrics final : public prometheus::Collectable {
 public:
  // REQUIRES: `engine` outlives this object.
  explicit ClusterMetrics(const Engine& engine) : engine_(engine) {}
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Engine& engine_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_API_METRICS_H_
