// Thousands of simulated lives of a cluster. What they check is in the headers
// of World and the checkers; here is how many, and that what they are about did
// happen in them.
//
//   WITAN_SIM_SEED=N      only seed N, with its trace
//   WITAN_SIM_NUM_SEEDS=N seeds 1 to N

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>

#include "tests/sim/sim_world.h"

namespace witan {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
// Under a sanitizer a seed costs ten times as much, and memory is all that is
// looked at.
constexpr int64_t kNumSeeds = kSanitized ? 150 : 2000;
constexpr size_t kShownLines = 60;

int64_t NumberFrom(const char* variable, int64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::atoll(text);
}

// What runs a seed again.
std::string CommandFor(int64_t seed) {
  return fmt::format("WITAN_SIM_SEED={} {}", seed,
                     std::filesystem::read_symlink("/proc/self/exe").string());
}

void PrintTrace(const SimOutcome& outcome, size_t num_lines) {
  const size_t size = outcome.trace.size();
  for (size_t i = size > num_lines ? size - num_lines : 0; i < size; ++i) {
    fmt::print("{}\n", outcome.trace[i]);
  }
}

void PrintCounters(const SimCounters& c) {
  fmt::print(
      "{} sequences, {} tokens: {} to their length, {} stopped, {} cancelled, "
      "{} expired, {} refused, {} ended by loss; {} preempted, {} from the "
      "cache\n{} preemptions, {} pauses, {} parked, {} evictions, {} shared "
      "blocks; lost while {} {} {} {} {}\n"
      "{} crashes, {} pauses, {} pauses of the coordinator, {} resets, {} "
      "partitions, {} failures, {} hangs, {} wrong returns\n"
      "{} messages: {} lost in resets, {} held, {} lost, {} repeated, {} "
      "reordered; {} stale ones, {} stale plans\n"
      "{} epochs, {} group failures, {} steps, {} ahead, {} void rows, {} "
      "executions; {} events in {} s\n",
      c.tokens.num_submitted, c.tokens.num_tokens, c.tokens.num_length,
      c.tokens.num_stopped, c.tokens.num_cancelled, c.tokens.num_expired,
      c.tokens.num_refused, c.tokens.num_ended_by_loss, c.tokens.num_preempted,
      c.tokens.num_cached, c.num_preemptions, c.num_pauses, c.num_parked,
      c.num_evictions, c.num_shared_blocks, c.coordinator.num_lost_while[0],
      c.coordinator.num_lost_while[1], c.coordinator.num_lost_while[2],
      c.coordinator.num_lost_while[3], c.coordinator.num_lost_while.back(),
      c.workers.num_crashes, c.workers.num_pauses, c.coordinator.num_pauses,
      c.faults.num_resets, c.faults.num_partitions,
      c.faults.num_reported_failures, c.faults.num_hangs,
      c.workers.num_bad_returns, c.network.num_messages,
      c.network.num_lost_in_reset, c.network.num_held, c.network.num_lost,
      c.network.num_repeated, c.network.num_reordered,
      c.coordinator.num_stale_messages, c.workers.num_refused_plans,
      c.num_epochs, c.num_group_failures, c.num_steps, c.num_look_ahead_steps,
      c.num_discarded_rows, c.workers.num_executed, c.num_events,
      c.simulated_us / kMicrosPerSecond);
}

// All of it did happen, again and again.
void ExpectPremises(const SimCounters& sum, int64_t num_seeds) {
  const std::pair<const char*, int64_t> premises[] = {
      {"complete", sum.tokens.num_length},
      {"stopped", sum.tokens.num_stopped},
      {"cancelled", sum.tokens.num_cancelled},
      {"expired", sum.tokens.num_expired},
      {"refused", sum.tokens.num_refused},
      {"ended by loss", sum.tokens.num_ended_by_loss},
      {"preempted", sum.tokens.num_preempted},
      {"from the cache", sum.tokens.num_cached},
      {"forced tokens", sum.tokens.num_forced},
      {"scored tokens", sum.tokens.num_scored},
      {"paused", sum.num_pauses},
      {"parked", sum.num_parked},
      {"evictions", sum.num_evictions},
      {"shared blocks", sum.num_shared_blocks},
      {"void rows", sum.num_discarded_rows},
      {"steps ahead", sum.num_look_ahead_steps},
      {"crashes", sum.workers.num_crashes},
      {"pauses of workers", sum.workers.num_pauses},
      {"wrong returns", 10 * sum.workers.num_bad_returns},
      {"stale plans", 4 * sum.workers.num_refused_plans},
      {"stale messages", sum.coordinator.num_stale_messages},
      {"pauses of the coordinator", 4 * sum.coordinator.num_pauses},
      {"resets", sum.faults.num_resets},
      {"partitions", sum.faults.num_partitions},
      {"one-way partitions", sum.faults.num_one_way_partitions},
      {"failures", sum.faults.num_reported_failures},
      {"hangs", 4 * sum.faults.num_hangs},
      {"lost for good", 10 * sum.faults.num_lost_for_good},
      {"moves of spares", 20 * sum.coordinator.num_spare_moves},
      {"routed", sum.coordinator.num_routed_to_others},
      {"lost in resets", sum.network.num_lost_in_reset},
      {"held by partitions", sum.network.num_held},
      {"lost", 10 * sum.network.num_lost},
      {"repeated", 4 * sum.network.num_repeated},
      {"reordered", 4 * sum.network.num_reordered},
      {"lost while waiting", 4 * sum.coordinator.num_lost_while[0]},
      {"lost while preparing", 10 * sum.coordinator.num_lost_while[1]},
      {"lost while connecting", 100 * sum.coordinator.num_lost_while[2]},
      {"lost during the known answer", 100 * sum.coordinator.num_lost_while[3]},
      {"lost while serving", sum.coordinator.num_lost_while.back()},
  };
  for (const auto& [what, number] : premises) {
    EXPECT_GT(number, num_seeds / 2) << what;
  }
}

TEST(SimTest, WhateverHappensEveryPromiseIsKept) {
  const int64_t only = NumberFrom("WITAN_SIM_SEED", 0);
  if (only > 0) {
    const SimOutcome outcome = RunSeed(only, /*tracing=*/true);
    PrintTrace(outcome, outcome.trace.size());
    PrintCounters(outcome.counters);
    ASSERT_EQ(outcome.violation, "");
    return;
  }
  const int64_t num_seeds = NumberFrom("WITAN_SIM_NUM_SEEDS", kNumSeeds);
  SimCounters sum;
  for (int64_t seed = 1; seed <= num_seeds; ++seed) {
    const SimOutcome outcome = RunSeed(seed, /*tracing=*/false);
    if (!outcome.violation.empty()) {
      PrintTrace(RunSeed(seed, /*tracing=*/true), kShownLines);
      FAIL() << "seed " << seed << ": " << outcome.violation
             << "\nfor all of its trace: " << CommandFor(seed);
    }
    sum.Add(outcome.counters);
  }
  PrintCounters(sum);
  if (num_seeds >= kNumSeeds) ExpectPremises(sum, num_seeds);
}

TEST(SimTest, ASeedIsTheWholeStory) {
  for (const uint64_t seed : {3, 4, 5}) {
    const SimOutcome first = RunSeed(seed, /*tracing=*/true);
    const SimOutcome second = RunSeed(seed, /*tracing=*/true);
    EXPECT_GT(first.trace.size(), 100u);
    EXPECT_EQ(first.trace, second.trace);
  }
}

}  // namespace
}  // namespace witan
