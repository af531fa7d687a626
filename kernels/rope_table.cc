// MakeRopeTable in double precision, with sin, cos, exp and log of our own: a
// libm may differ from the next one in the last bit.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "base/check.h"
#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"

namespace witan {
namespace {

// Taylor series are enough on the reduced ranges: what is left out is below
// 1e-18 in all four.

double Exp(double x) {
  const double n = std::nearbyint(x / std::numbers::ln2);
  // ln 2 as a double and the rest of it; fma makes the reduction exact.
  double r = std::fma(-n, std::numbers::ln2, x);
  r = std::fma(-n, 2.3190468138462996e-17, r);
  double sum = 1, term = 1;
  for (int i = 1; i <= 16; ++i) {
    term *= r / i;
    sum += term;
  }
  return std::ldexp(sum, static_cast<int>(n));
}

double Log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < std::numbers::sqrt2 / 2) {
    m *= 2;
    --exponent;
  }
  const double s = (m - 1) / (m + 1), s2 = s * s;
  double sum = 0;
  for (int i = 25; i >= 1; i -= 2) sum = sum * s2 + 1.0 / i;
  return exponent * std::numbers::ln2 + 2 * s * sum;
}

struct SinCos {
  double sin, cos;
};

// Exact to rounding for |angle| up to 2^50: fma subtracts the multiple of
// pi / 2, which is given to 107 bits, without losing any.
SinCos SinCosOf(double angle) {
  const double n = std::nearbyint(angle / (std::numbers::pi / 2));
  double r = std::fma(-n, std::numbers::pi / 2, angle);
  r = std::fma(-n, 6.123233995736766e-17, r);
  const double r2 = r * r;
  double sin = 1, cos = 1;
  for (int i = 19; i >= 3; i -= 2) sin = 1 - sin * r2 / (i * (i - 1));
  for (int i = 20; i >= 2; i -= 2) cos = 1 - cos * r2 / (i * (i - 1));
  sin *= r;
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      return {sin, cos};
    case 1:
      return {cos, -sin};
    case 2:
      return {-sin, -cos};
    default:
      return {-cos, sin};
  }
}

// Llama 3.1: low frequencies are divided by the factor, high ones are kept, and
// between the two bounds the quotient goes over linearly.
double Llama3Frequency(double frequency, const RopeParameters& rope) {
  const auto original = static_cast<double>(rope.original_context_tokens);
  const double rotations = original * frequency / (2 * std::numbers::pi);
  if (rotations < rope.low_freq_factor) return frequency / rope.factor;
  if (rotations > rope.high_freq_factor) return frequency;
  const double kept = (rotations - rope.low_freq_factor) /
                      (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - kept) * frequency / rope.factor + kept * frequency;
}

// YaRN: which frequencies turn how often over the original context decides how
// much of the factor they get; index is that of the frequency.
double YarnFrequency(double frequency, int64_t index,
                     const RopeParameters& rope) {
  const auto original = static_cast<double>(rope.original_context_tokens);
  const auto dim = static_cast<double>(rope.rotary_dim);
  const auto index_of_rotations = [&](double rotations) {
    return dim * Log(original / (rotations * 2 * std::numbers::pi)) /
           (2 * Log(rope.theta));
  };
  double low = index_of_rotations(rope.beta_fast);
  double high = index_of_rotations(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  const double scaled =
      std::clamp((static_cast<double>(index) - low) / (high - low), 0.0, 1.0);
  return frequency / rope.factor * scaled + frequency * (1 - scaled);
}

double FrequencyOf(int64_t index, const RopeParameters& rope, bool is_long) {
  const double frequency =
      Exp(-2.0 * static_cast<double>(index) /
          static_cast<double>(rope.rotary_dim) * Log(rope.theta));
  switch (rope.scaling) {
    case RopeScaling::kNone:
      return frequency;
    case RopeScaling::kLinear:
      return frequency / rope.factor;
    case RopeScaling::kLlama3:
      return Llama3Frequency(frequency, rope);
    case RopeScaling::kYarn:
      return YarnFrequency(frequency, index, rope);
    case RopeScaling::kLongRope:
      return frequency / (is_long
                              ? rope.long_factors
                              : rope.short_factors)[static_cast<size_t>(index)];
  }
  WITAN_CHECK(false, "unknown scaling {}", static_cast<int>(rope.scaling));
}

}  // namespace

std::vector<float> MakeRopeTable(int64_t num_positions,
                                 const RopeParameters& rope, bool is_long) {
  const int64_t dim = rope.rotary_dim;
  WITAN_CHECK(dim % 2 == 0 && rope.theta > 0, "rotary dim {}, theta {}", dim,
              rope.theta);
  ScopedFloatingPointMode mode;
  const int64_t half = dim / 2;
  const double scale =
      is_long ? rope.long_attention_factor : rope.attention_factor;
  std::vector<float> table(static_cast<size_t>(num_positions * dim));
  for (int64_t i = 0; i < half; ++i) {
    const double frequency = FrequencyOf(i, rope, is_long);
    for (int64_t p = 0; p < num_positions; ++p) {
      const SinCos value = SinCosOf(static_cast<double>(p) * frequency);
      table[static_cast<size_t>(p * dim + i)] =
          static_cast<float>(scale * value.cos);
      table[static_cast<size_t>(p * dim + half + i)] =
          static_cast<float>(scale * value.sin);
    }
  }
  return table;
}

}  // namespace witan
