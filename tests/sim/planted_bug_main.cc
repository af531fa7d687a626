// Runs seeds of a simulation that is linked with a planted bug until a checker
// finds it, and says after how many. Exit status 1: none of those did that the
// tests run anyway.
//
//   sim_bug_NAME [SEEDS]

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

#include "tests/sim/sim_world.h"

int main(int argc, char** argv) {
  const int64_t num_seeds = argc > 1 ? std::atoll(argv[1]) : 2000;
  for (int64_t seed = 1; seed <= num_seeds; ++seed) {
    const witan::SimOutcome outcome = witan::RunSeed(seed, /*tracing=*/false);
    if (outcome.violation.empty()) continue;
    fmt::print("found by seed {}: {}\n", seed, outcome.violation);
    return 0;
  }
  fmt::print("{} seeds did not find the planted bug\n", num_seeds);
  return 1;
}
