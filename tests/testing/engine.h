#ifndef WITAN_TESTS_TESTING_ENGINE_H_
#define WITAN_TESTS_TESTING_ENGINE_H_

// The real Scheduler in front of a ThreadCluster: runs sequences to their end
// and returns what each produced.

#include <absl/status/statusor.h>

#include <map>
#include <vector>

#include "coordinator/schedule/scheduler.h"
#include "tests/testing/thread_cluster.h"

namespace witan {

struct EngineOptions {
  int64_t max_prefill_chunk_tokens = 1 << 20;
  int64_t max_step_tokens = 0;  // 0: the cluster's
  bool look_ahead = true;
  bool prefix_cache = true;
  // Tokens of sequences of this id or a multiple of it are forced as
  // FakeForcedToken says; 0: none.
  SequenceId forces_every = 0;
  int64_t vocab_size = 0;  // of forced tokens
};

struct EngineRun {
  // Every token of every sequence, by id.
  std::map<SequenceId, std::vector<SampledToken>> outputs;
  // What was asked for of the prompts' tokens but the first ones.
  std::map<SequenceId, std::vector<SampledToken>> scores;
  int64_t num_forced = 0;
  SchedulerStats stats;
  int64_t num_steps = 0;
  int64_t max_rows_of_a_step = 0;
  int64_t max_sequences_of_a_step = 0;
};

// Adds specs[i] before the step number arrival_steps[i] is planned (0: at
// once), and runs until everything has finished. `first_step` continues the
// step numbers of an earlier run on the same cluster and is updated.
absl::StatusOr<EngineRun> RunSequences(
    ThreadCluster& cluster, const ThreadClusterOptions& cluster_options,
    const EngineOptions& options, const std::vector<SequenceSpec>& specs,
    const std::vector<int64_t>& arrival_steps, StepNumber& first_step);

// Equality of token ids and of the bits of every logprob.
bool SameBits(const std::vector<SampledToken>& a,
              const std::vector<SampledToken>& b);

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_ENGINE_H_
