#ifndef WITAN_TESTS_SIM_SIM_PROFILE_H_
#define WITAN_TESTS_SIM_SIM_PROFILE_H_

// The shape of one simulated world: cluster, load, and what goes wrong how
// often. Drawn from the seed, so that a seed is the whole story.

#include <algorithm>
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "tests/sim/sim_random.h"

namespace witan {

struct SimProfile {
  // --- Cluster ---------------------------------------------------------------
  int num_replicas = 1;
  int num_ranks = 1;   // of each replica
  int num_spares = 0;  // of each replica
  bool route_by_prefix = true;
  bool look_ahead = true;
  bool prefix_cache = true;
  int64_t max_prefill_chunk_tokens = 0;
  int64_t max_prefill_tokens_beside_decode = 0;
  int64_t max_step_tokens = 0;
  int64_t max_sequences = 0;
  int64_t num_blocks = 0;  // the null block included
  int64_t max_context_tokens = 0;

  // --- Load ------------------------------------------------------------------
  int num_requests = 0;
  Micros load_us = 0;  // in which they arrive; longer than faults_us
  int64_t max_prompt_tokens = 0;
  int64_t max_output_tokens = 0;
  double cancel_probability = 0;
  double deadline_probability = 0;
  double stop_probability = 0;
  double penalty_probability = 0;
  double choices_probability = 0;  // of more than one choice
  double force_probability = 0;    // of a client that forces tokens
  double score_probability = 0;    // of a prompt that is scored
  int num_tenants = 1;
  int num_priorities = 1;
  // Prompts begin like one of so many others; 0: each is new from the start.
  int num_prefixes = 0;
  double slow_reader_probability = 0;

  // --- Network ---------------------------------------------------------------
  Micros max_delay_us = 0;       // of an ordinary message, one way
  double spike_probability = 0;  // of one that takes up to max_spike_us
  Micros max_spike_us = 0;
  // Of a single message. A transport that promises streams does none of this;
  // it is tried all the same.
  double loss_probability = 0;
  double repeat_probability = 0;
  double reorder_probability = 0;

  // --- Faults: mean time between two of a kind, 0: never
  // ----------------------
  Micros faults_us = 0;  // none begins or lasts longer
  Micros crash_every_us = 0;
  Micros pause_every_us = 0;
  Micros reset_every_us = 0;
  Micros partition_every_us = 0;
  Micros coordinator_pause_every_us = 0;
  Micros failure_every_us = 0;  // a rank reports one
  Micros hang_every_us = 0;     // a rank goes on living and answers no step
  int num_lost_for_good = 0;    // workers, at most the spares
  double bad_return_probability = 0;  // a crashed worker comes back wrong

  // Sequences that run at once: one row of a step is left for prompts.
  int64_t max_running() const {
    return std::clamp<int64_t>(max_step_tokens - 1, 1, max_sequences);
  }
  bool IsLawful() const {
    return loss_probability == 0 && repeat_probability == 0 &&
           reorder_probability == 0;
  }
};

SimProfile DrawProfile(SimRandom& random);

// For traces: one line.
std::string Describe(const SimProfile& profile);

}  // namespace witan

#endif  // WITAN_TESTS_SIM_SIM_PROFILE_H_
