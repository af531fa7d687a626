#ifndef WITAN_COORDINATOR_SCHEDULE_SCHEDULER_STATS_H_
#define WITAN_COORDINATOR_SCHEDULE_SCHEDULER_STATS_H_

#include <cstdint>

namespace witan {

// What a Scheduler tells about itself.
struct SchedulerStats {
  // --- Now -----------------------------------------------------------------
  int64_t num_running = 0;
  int64_t num_waiting = 0;  // preempted and parked ones included
  int64_t num_paused = 0;
  int64_t num_free_blocks = 0;  // that can be given: free, or kept by the cache
  int64_t num_named_blocks = 0;  // that the prefix cache knows, in use or not
  int64_t num_blocks = 0;        // that can be used; without the null block
  // --- Since the start (only grow) -------------------------------------------
  int64_t num_steps = 0;
  int64_t num_look_ahead_steps = 0;  // planned while another one ran
  int64_t num_decode_rows = 0;
  int64_t num_prefill_rows = 0;
  int64_t num_discarded_rows = 0;  // computed for sequences that had ended
  int64_t num_preemptions = 0;
  int64_t num_pauses = 0;
  int64_t num_parked = 0;
  // Tokens of admitted sequences, and of them those found in the cache.
  int64_t num_prefix_lookup_tokens = 0;
  int64_t num_prefix_hit_tokens = 0;
  int64_t num_prefix_evictions = 0;  // blocks
  int64_t num_finished = 0;

  // Adds the counters (not the gauges) of `other`.
  void AddCounters(const SchedulerStats& other);
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_SCHEDULER_STATS_H_
