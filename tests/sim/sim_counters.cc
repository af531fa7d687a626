#include "tests/sim/sim_world.h"

namespace witan {
namespace {

void Add(TokenCounters& sum, const TokenCounters& other) {
  sum.num_submitted += other.num_submitted;
  sum.num_tokens += other.num_tokens;
  sum.num_length += other.num_length;
  sum.num_stopped += other.num_stopped;
  sum.num_cancelled += other.num_cancelled;
  sum.num_expired += other.num_expired;
  sum.num_refused += other.num_refused;
  sum.num_ended_by_loss += other.num_ended_by_loss;
  sum.num_preempted += other.num_preempted;
  sum.num_cached += other.num_cached;
  sum.num_forced += other.num_forced;
  sum.num_scored += other.num_scored;
}

void Add(NetworkCounters& sum, const NetworkCounters& other) {
  sum.num_messages += other.num_messages;
  sum.num_lost += other.num_lost;
  sum.num_lost_in_reset += other.num_lost_in_reset;
  sum.num_repeated += other.num_repeated;
  sum.num_reordered += other.num_reordered;
  sum.num_held += other.num_held;
}

void Add(FaultCounters& sum, const FaultCounters& other) {
  sum.num_partitions += other.num_partitions;
  sum.num_one_way_partitions += other.num_one_way_partitions;
  sum.num_resets += other.num_resets;
  sum.num_reported_failures += other.num_reported_failures;
  sum.num_hangs += other.num_hangs;
  sum.num_lost_for_good += other.num_lost_for_good;
}

}  // namespace

void SimCounters::Add(const SimCounters& other) {
  witan::Add(tokens, other.tokens);
  witan::Add(network, other.network);
  workers.Add(other.workers);
  coordinator.num_stale_messages += other.coordinator.num_stale_messages;
  coordinator.num_pauses += other.coordinator.num_pauses;
  coordinator.num_spare_moves += other.coordinator.num_spare_moves;
  coordinator.num_routed_to_others += other.coordinator.num_routed_to_others;
  for (size_t i = 0; i < coordinator.num_lost_while.size(); ++i) {
    coordinator.num_lost_while[i] += other.coordinator.num_lost_while[i];
  }
  witan::Add(faults, other.faults);
  num_group_failures += other.num_group_failures;
  num_epochs += other.num_epochs;
  num_steps += other.num_steps;
  num_look_ahead_steps += other.num_look_ahead_steps;
  num_discarded_rows += other.num_discarded_rows;
  num_preemptions += other.num_preemptions;
  num_pauses += other.num_pauses;
  num_parked += other.num_parked;
  num_evictions += other.num_evictions;
  num_shared_blocks += other.num_shared_blocks;
  num_events += other.num_events;
  simulated_us += other.simulated_us;
}

}  // namespace witan
