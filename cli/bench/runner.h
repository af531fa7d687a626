#ifndef WITAN_CLI_BENCH_RUNNER_H_
#define WITAN_CLI_BENCH_RUNNER_H_

#include <grpcpp/channel.h>

#include <atomic>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "cli/bench/feed.h"
#include "cli/bench/plan.h"
#include "cli/bench/record.h"

namespace witan::bench {

class Call;

struct RunnerOptions {
  // Of one request, from its sending; then it fails with DEADLINE_EXCEEDED.
  int64_t timeout_ms = 0;
  // Once true, nothing more is sent and what is in flight is cancelled.
  const std::atomic<bool>* interrupted = nullptr;
};

struct RunState {
  bool is_warmup = false;
  Micros elapsed_us = 0;
  int64_t num_ended = 0;
  int64_t num_failed = 0;
  int64_t num_in_flight = 0;
  int64_t num_tokens = 0;  // received
};

struct RunResult {
  std::vector<Record> records;  // in the order of their ends, warm-up first
  bool interrupted = false;
  int64_t num_unsent = 0;  // planned, when it was interrupted
  // Clients would have gone on, but kMaxBenchRequests were sent.
  bool stopped_at_max_requests = false;
  // CPU time of this process over the time of the measured load.
  double client_cores = 0;
};

// Sends a plan and keeps what becomes of it. Requests are sent by the thread
// that calls Run and answered on gRPC's own threads, none of which waits for a
// request: their number bounds nothing. Nothing is tried twice.
class Runner {
 public:
  // Called by Run's thread about every kBenchProgressIntervalMs, and at the end
  // of the warm-up and of the load.
  using ProgressFn = std::function<void(const RunState&)>;

  // Requests take the channels in turn. All outlive this.
  Runner(const Plan& plan,
         const std::vector<std::shared_ptr<grpc::Channel>>& channels,
         const RunnerOptions& options, const Clock& clock);
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  // The warm-up, then the load, to the end of the last request. Once.
  RunResult Run(const ProgressFn& on_progress);

 private:
  friend class Call;

  void Drive(bool is_warmup, Feed& feed, const ProgressFn& on_progress);
  void Send(PlannedRequest request);
  // Takes the calls that have ended.
  void Harvest(Feed& feed);
  void WaitUntil(Micros deadline) WITAN_EXCLUDES(mutex_);
  void CancelAll();
  bool interrupted() const;

  // For calls, on gRPC's threads.
  void OnTokens(int count) { num_tokens_ += count; }
  void OnDone(Call* call) WITAN_EXCLUDES(mutex_);

  const Plan& plan_;
  const RunnerOptions options_;
  const Clock& clock_;
  struct Stubs;
  const std::unique_ptr<Stubs> stubs_;
  std::atomic<int64_t> num_tokens_ = 0;

  // Run's thread.
  Micros begin_ = 0;
  RunState state_;
  std::unordered_map<Call*, std::unique_ptr<Call>> live_;
  size_t next_stub_ = 0;
  bool cancelled_ = false;
  RunResult result_;

  Mutex mutex_;
  CondVar changed_;
  std::vector<Call*> ended_ WITAN_GUARDED_BY(mutex_);
};

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_RUNNER_H_
