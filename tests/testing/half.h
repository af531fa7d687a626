#ifndef WITAN_TESTS_TESTING_HALF_H_
#define WITAN_TESTS_TESTING_HALF_H_

// IEEE half precision for tests, by its definition: clang 14 has no type for
// it on x86-64, and tests shall not ask the kernels.

#include <cmath>
#include <cstdint>
#include <limits>

namespace witan {

// To nearest, ties to even. REQUIRES: `x` is not NaN.
inline uint16_t HalfOf(float x) {
  const uint32_t sign = std::signbit(x) ? 0x8000 : 0;
  const double size = std::abs(static_cast<double>(x));
  if (size >= 65520) return static_cast<uint16_t>(sign | 0x7c00);  // infinity
  // The exponent of the last bit follows that of the number, down to that of
  // the smallest normal one.
  const int exponent = size < 0x1p-14 ? -14 : std::ilogb(size);
  const auto units =
      static_cast<uint32_t>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  // Counts up through subnormal and normal numbers alike.
  return static_cast<uint16_t>(
      sign | ((static_cast<uint32_t>(exponent + 14) << 10) + units));
}

inline float FloatOfHalf(uint16_t half) {
  const int exponent = (half >> 10) & 0x1f;
  const int units = half & 0x3ff;
  double size = 0;
  if (exponent == 0) {
    size = std::ldexp(units, -24);
  } else if (exponent == 31) {
    size = units == 0 ? std::numeric_limits<double>::infinity()
                      : std::numeric_limits<double>::quiet_NaN();
  } else {
    size = std::ldexp(0x400 + units, exponent - 25);
  }
  return static_cast<float>((half & 0x8000) != 0 ? -size : size);
}

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_HALF_H_
