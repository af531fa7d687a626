#ifndef WITAN_TESTS_SIM_SIM_RANDOM_H_
#define WITAN_TESTS_SIM_SIM_RANDOM_H_

// Everything that a simulation draws, from one seed, with the same numbers on
// every machine (the distributions of <random> differ between libraries).

#include <cstdint>
#include <random>

namespace witan {

class SimRandom {
 public:
  explicit SimRandom(uint64_t seed) : engine_(seed) {}

  // 0 .. n - 1. REQUIRES: n >= 1.
  uint64_t Below(uint64_t n) { return engine_() % n; }
  // Both ends included. REQUIRES: low <= high.
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(Below(high - low + 1));
  }
  bool Chance(double probability) {
    return static_cast<double>(engine_() >> 11) * 0x1p-53 < probability;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace witan

#endif  // WITAN_TESTS_SIM_SIM_RANDOM_H_
