#ifndef WITAN_COORDINATOR_SCHEDULE_SCHEDULER_OPTIONS_H_
#define WITAN_COORDINATOR_SCHEDULE_SCHEDULER_OPTIONS_H_

#include <cstdint>

#include "coordinator/schedule/block_name.h"

namespace witan {

struct SchedulerOptions {
  int64_t max_step_tokens = 0;           // rows of one step, >= 1
  int64_t max_prefill_chunk_tokens = 0;  // rows of one prompt in one step, >= 1
  int64_t max_sequences = 0;             // running at once (slots), >= 1
  int64_t num_blocks = 0;                // the null block included, >= 2
  int64_t max_context_tokens = 0;        // of one sequence, >= 1
  // Prompt rows of one step that has decode rows, >= 1; 0: no such bound.
  int64_t max_prefill_tokens_beside_decode = 0;
  bool prefix_cache = true;
  PrefixIdentity identity;
  bool look_ahead = true;  // plan one step beyond the running one
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_SCHEDULER_OPTIONS_H_
