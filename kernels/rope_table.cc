// MakeRopeTable in double precision, with sin, cos, exp and log of our own: a
// libm may differ from the next one in the last bit.

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

}  // namespace

std::vector<float> MakeRopeTable(int64_t num_positions, int64_t head_dim,
                                 double theta) {
  WITAN_CHECK(head_dim % 2 == 0 && theta > 0, "head dim {}, theta {}", head_dim,
              theta);
  ScopedFloatingPointMode mode;
  const int64_t half = head_dim / 2;
  std::vector<float> table(static_cast<size_t>(num_positions * head_dim));
  const double log_theta = Log(theta);
  for (int64_t i = 0; i < half; ++i) {
    const double frequency = Exp(-2.0 * static_cast<double>(i) /
                                 static_cast<double>(head_dim) * log_theta);
    for (int64_t p = 0; p < num_positions; ++p) {
      const SinCos value = SinCosOf(static_cast<double>(p) * frequency);
      table[static_cast<size_t>(p * head_dim + i)] =
          static_cast<float>(value.cos);
      table[static_cast<size_t>(p * head_dim + half + i)] =
          static_cast<float>(value.sin);
    }
  }
  return table;
}

}  // namespace witan
