#ifndef WITAN_TESTS_TESTING_THREAD_CLUSTER_H_
#define WITAN_TESTS_TESTING_THREAD_CLUSTER_H_

// All ranks of one replica as threads of this process: the real Worker on
// every rank, the chosen transport between them, and step plans posted by
// hand. Used by one test thread.

#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/step_plan.h"
#include "base/worker_protocol.h"
#include "kernels/backend.h"
#include "model/shard_plan.h"
#include "tests/testing/blocking_queue.h"
#include "worker/worker.h"

namespace witan {

enum class ThreadTransport : uint8_t { kLocal, kSharedMemory, kTcp };

struct ThreadClusterOptions {
  std::string model_directory;
  Layout layout;
  ThreadTransport transport = ThreadTransport::kLocal;
  CpuPath cpu_path = CpuPath::kAuto;
  int num_threads = 1;
  int64_t max_context_tokens = 256;
  int64_t max_step_tokens = 256;
  int64_t max_sequences = 64;
  int64_t num_blocks = 1024;
  int64_t one_shot_max_bytes = 64 << 10;
  // Directories of adapters, by index.
  std::vector<std::string> adapters;
  int64_t max_adapter_rank = 64;
  Epoch epoch = 1;
};

class ThreadCluster {
 public:
  static absl::StatusOr<std::unique_ptr<ThreadCluster>> Start(
      const ThreadClusterOptions& options);
  ~ThreadCluster();

  // Enqueues the plan on every rank; returns at once.
  void Post(const StepPlan& plan);
  // The next result of rank 0, or the first error of any rank.
  absl::StatusOr<StepResult> Take();

  // What every rank reported when it was prepared.
  const std::vector<GroupPrepared>& prepared() const { return prepared_; }
  Worker& worker(int rank) { return *workers_[rank]; }

 private:
  ThreadCluster() = default;

  void RunRank(int rank);

  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<GroupPrepared> prepared_;
  std::vector<std::unique_ptr<BlockingQueue<StepPlan>>> plans_;
  BlockingQueue<std::unique_ptr<absl::StatusOr<StepResult>>> results_;
  std::vector<std::thread> threads_;
};

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_THREAD_CLUSTER_H_
