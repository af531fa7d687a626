#ifndef WITAN_CLI_BENCH_PLAN_H_
#define WITAN_CLI_BENCH_PLAN_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/bench/workload.h"

namespace witan::bench {

// What a load must know of the model that it is for.
struct ModelFacts {
  int64_t vocab_size = 0;
  int64_t max_context_tokens = 0;
};

struct PlannedRequest {
  int class_index = 0;
  int64_t index = 0;  // within its class, from 0; warm-up counts by itself
  bool is_warmup = false;
  // When it is due, after the beginning of the load; open loop only.
  Micros due_us = 0;
  int64_t prompt_tokens = 0;  // prefix included
  int64_t output_tokens = 0;
  std::optional<int64_t> prefix;  // which shared prefix
  std::optional<std::string> tenant;
  std::optional<int32_t> priority;
  float temperature = 0;
  uint64_t seed = 0;  // of the request's own sampling
};

// What is sent, and when: a pure function of workload, model and seed. What
// arrives in an open loop is laid out before it begins; requests of closed
// loops are drawn as they come, each from its own index, so that they do not
// depend on who was faster. Immutable; thread-safe.
class Plan {
 public:
  // INVALID_ARGUMENT when a request could exceed the model's context, or when
  // there are too many.
  static absl::StatusOr<Plan> Make(Workload workload, const ModelFacts& model);

  const Workload& workload() const { return workload_; }
  const std::vector<TrafficClass>& classes() const { return workload_.classes; }
  // All of the open loops, by due time.
  const std::vector<PlannedRequest>& open_loop() const { return open_loop_; }
  // Requests in all, if that is known before.
  std::optional<int64_t> num_requests() const;
  // Entries of the trace that were left out.
  int64_t num_skipped() const { return num_skipped_; }

  // REQUIRES: the class is a closed loop.
  PlannedRequest ClosedLoopRequest(int class_index, int64_t index) const;
  // As the classes in turn would send, with prefixes of theirs; blocks of a
  // trace are the warm-up's own, or it would make the trace's first requests
  // hits.
  PlannedRequest WarmupRequest(int64_t index) const;

  // request.prompt_tokens ids, each in [0, vocab_size). Equal prefixes and
  // equal blocks of a trace give equal ids, all else is independent.
  std::vector<int32_t> TokenIds(const PlannedRequest& request) const;
  // How many of them, from the front, are a prefix or blocks of a trace: all
  // that this load by itself can find in a prefix cache.
  int64_t SharedTokens(const PlannedRequest& request) const;

 private:
  Plan(Workload workload, const ModelFacts& model);

  absl::Status CheckContext(const TrafficClass& traffic) const;
  absl::Status AddArrivals(int class_index);
  void AddTrace();
  PlannedRequest Draw(int class_index, int64_t index, bool is_warmup) const;
  // REQUIRES: the load is a trace.
  const TraceEntry& EntryOf(int64_t index) const;
  void AppendIds(std::initializer_list<uint64_t> key, int64_t count,
                 std::vector<int32_t>* ids) const;

  Workload workload_;
  ModelFacts model_;
  // For each class with prefixes: the probability of prefix k or less.
  std::vector<std::vector<double>> prefix_cumulative_;
  std::vector<PlannedRequest> open_loop_;
  int64_t num_skipped_ = 0;
};

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_PLAN_H_
