#ifndef WITAN_CLI_BENCH_RANDOM_H_
#define WITAN_CLI_BENCH_RANDOM_H_

// Random numbers that are a function of a key, the same on every machine and
// with every standard library, so that a load is a function of its seed.

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <numbers>

namespace witan::bench {

// SplitMix64, started at a hash of the key. Streams of different keys have
// nothing to do with each other. Not for secrets.
class Random {
 public:
  explicit Random(std::initializer_list<uint64_t> key) {
    for (const uint64_t word : key) state_ = Mix(state_ + kStep + word);
  }

  uint64_t Next() { return Mix(state_ += kStep); }
  // [0, 1), a multiple of 2^-53.
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  // [0, bound). REQUIRES: bound > 0.
  int64_t Below(int64_t bound) {
    const auto product = static_cast<unsigned __int128>(Next()) *
                         static_cast<unsigned __int128>(bound);
    return static_cast<int64_t>(product >> 64);
  }
  double Exponential(double mean) { return -mean * std::log1p(-Uniform()); }
  // Mean 0, standard deviation 1.
  double Normal() {
    const double radius = std::sqrt(-2 * std::log1p(-Uniform()));
    return radius * std::cos(2 * std::numbers::pi * Uniform());
  }

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15;

  static uint64_t Mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  uint64_t state_ = 0;
};

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_RANDOM_H_
