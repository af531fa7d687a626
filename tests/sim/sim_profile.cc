#include "tests/sim/sim_profile.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"
#include "base/step_plan.h"

namespace witan {
namespace {

// Mostly never, else between the two.
Micros DrawInterval(SimRandom& random, double probability, Micros low,
                    Micros high) {
  return random.Chance(probability) ? random.Between(low, high) : 0;
}

void DrawCluster(SimRandom& random, SimProfile& profile) {
  profile.num_replicas =
      random.Chance(0.25) ? static_cast<int>(random.Between(2, 3)) : 1;
  profile.route_by_prefix = random.Chance(0.7);
  profile.num_ranks = 1 << random.Below(3);
  profile.num_spares = static_cast<int>(random.Below(3));
  profile.look_ahead = random.Chance(0.75);
  profile.max_sequences = random.Between(1, 8);
  profile.max_step_tokens =
      random.Between(std::max<int64_t>(4, profile.max_sequences), 64);
  profile.max_prefill_chunk_tokens =
      random.Chance(0.3) ? 0 : random.Between(1, 40);
  profile.max_prefill_tokens_beside_decode =
      random.Chance(0.5) ? 0 : random.Between(1, 40);
  profile.prefix_cache = random.Chance(0.8);
  profile.max_context_tokens = 512;
  // A request may need nearly all of it, and one of all of it is within the
  // context.
  const int64_t min_blocks = std::max<int64_t>(5, profile.max_sequences + 1);
  profile.num_blocks =
      random.Between(min_blocks, random.Chance(0.5) ? min_blocks + 2 : 16);
}

void DrawLoad(SimRandom& random, SimProfile& profile) {
  profile.num_requests = static_cast<int>(random.Between(5, 40));
  profile.load_us =
      profile.faults_us + random.Between(0, 10 * kMicrosPerSecond);
  const int64_t capacity = (profile.num_blocks - 1) * kBlockTokens;
  profile.max_prompt_tokens =
      random.Between(1, std::min<int64_t>(150, capacity / 2));
  profile.max_output_tokens =
      random.Between(1, std::min<int64_t>(120, capacity / 2));
  profile.cancel_probability = random.Chance(0.5) ? 0.2 : 0;
  profile.deadline_probability = random.Chance(0.5) ? 0.2 : 0;
  profile.stop_probability = random.Chance(0.5) ? 0.3 : 0;
  profile.penalty_probability = random.Chance(0.5) ? 0.3 : 0;
  profile.choices_probability = random.Chance(0.5) ? 0.3 : 0;
  profile.num_tenants = random.Chance(0.5) ? 3 : 1;
  profile.num_priorities = random.Chance(0.5) ? 3 : 1;
  profile.num_prefixes =
      random.Chance(0.6) ? static_cast<int>(random.Between(1, 4)) : 0;
  profile.slow_reader_probability = random.Chance(0.4) ? 0.3 : 0;
  profile.force_probability = random.Chance(0.5) ? 0.4 : 0;
  profile.score_probability = random.Chance(0.5) ? 0.3 : 0;
}

void DrawFaults(SimRandom& random, SimProfile& profile) {
  constexpr Micros kSecond = kMicrosPerSecond;
  profile.faults_us = random.Between(5 * kSecond, 60 * kSecond);
  profile.max_delay_us = random.Between(50, 20000);
  profile.spike_probability = random.Chance(0.5) ? 0.02 : 0;
  profile.max_spike_us = random.Between(kSecond / 10, 3 * kSecond);
  profile.crash_every_us = DrawInterval(random, 0.5, kSecond, 30 * kSecond);
  profile.pause_every_us = DrawInterval(random, 0.5, kSecond, 30 * kSecond);
  profile.reset_every_us = DrawInterval(random, 0.5, kSecond, 30 * kSecond);
  profile.partition_every_us = DrawInterval(random, 0.5, kSecond, 30 * kSecond);
  profile.coordinator_pause_every_us =
      DrawInterval(random, 0.2, 5 * kSecond, 30 * kSecond);
  profile.failure_every_us = DrawInterval(random, 0.3, kSecond, 20 * kSecond);
  profile.hang_every_us = DrawInterval(random, 0.2, 5 * kSecond, 40 * kSecond);
  profile.bad_return_probability = random.Chance(0.5) ? 0.6 : 0;
  if (random.Chance(0.4)) {
    profile.num_lost_for_good = static_cast<int>(
        random.Below(profile.num_replicas * profile.num_spares + 1));
  }
  if (random.Chance(0.25)) {
    profile.loss_probability = random.Chance(0.6) ? 0.002 : 0;
    profile.repeat_probability = random.Chance(0.6) ? 0.005 : 0;
    profile.reorder_probability = random.Chance(0.6) ? 0.01 : 0;
  }
}

}  // namespace

SimProfile DrawProfile(SimRandom& random) {
  SimProfile profile;
  DrawCluster(random, profile);
  DrawFaults(random, profile);
  DrawLoad(random, profile);
  return profile;
}

std::string Describe(const SimProfile& p) {
  return fmt::format(
      "{} replicas of {} ranks and {} spares, look-ahead {}, {} slots, {} "
      "blocks, {} rows, chunks of {}; prefix cache {}; {} requests of {} + {} "
      "tokens in {} s; "
      "delays of {} us; faults for {} s, a crash every {} s, pause {}, reset "
      "{}, partition {}, coordinator pause {}, failure {}, hang {}; {} lost "
      "for "
      "good; loss {}, "
      "repeat {}, reorder {}",
      p.num_replicas, p.num_ranks, p.num_spares, p.look_ahead, p.max_sequences,
      p.num_blocks, p.max_step_tokens, p.max_prefill_chunk_tokens,
      p.prefix_cache, p.num_requests, p.max_prompt_tokens, p.max_output_tokens,
      p.load_us / kMicrosPerSecond, p.max_delay_us,
      p.faults_us / kMicrosPerSecond, p.crash_every_us / kMicrosPerSecond,
      p.pause_every_us / kMicrosPerSecond, p.reset_every_us / kMicrosPerSecond,
      p.partition_every_us / kMicrosPerSecond,
      p.coordinator_pause_every_us / kMicrosPerSecond,
      p.failure_every_us / kMicrosPerSecond, p.hang_every_us / kMicrosPerSecond,
      p.num_lost_for_good, p.loss_probability, p.repeat_probability,
      p.reorder_probability);
}

}  // namespace witan
