#ifndef WITAN_TESTS_TESTING_RANDOM_ELEMENTS_H_
#define WITAN_TESTS_TESTING_RANDOM_ELEMENTS_H_

// Random numbers as the files of a model store them.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numbers>
#include <string>

#include "base/check.h"
#include "base/dtype.h"
#include "tests/testing/half.h"

namespace witan {

// Standard normal numbers, the same on every machine (splitmix64 and
// Box-Muller, rounded to float so that the last bit of libm does not matter).
class NormalNumbers {
 public:
  explicit NormalNumbers(uint64_t seed) : state_(seed) {}
  float Next() {
    const double u = (static_cast<double>(NextBits() >> 11) + 0.5) * 0x1p-53;
    const double v = static_cast<double>(NextBits() >> 11) * 0x1p-53;
    return static_cast<float>(std::sqrt(-2 * std::log(u)) *
                              std::cos(2 * std::numbers::pi * v));
  }

 private:
  uint64_t NextBits() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

// Appends the element, rounded to the dtype.
inline void AppendElement(std::string& bytes, DType dtype, float value) {
  char raw[4];
  switch (dtype) {
    case DType::kF32:
      std::memcpy(raw, &value, 4);
      break;
    case DType::kF16: {
      const uint16_t half = HalfOf(value);
      std::memcpy(raw, &half, 2);
      break;
    }
    case DType::kBF16: {
      const uint32_t bits = std::bit_cast<uint32_t>(value);
      const uint16_t rounded =
          static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
      std::memcpy(raw, &rounded, 2);
      break;
    }
    case DType::kI32:
      WITAN_CHECK(false, "weights are not integers");
  }
  bytes.append(raw, SizeOf(dtype));
}

// What safetensors calls it.
inline std::string FormatName(DType dtype) {
  return dtype == DType::kF32 ? "F32" : dtype == DType::kF16 ? "F16" : "BF16";
}

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_RANDOM_ELEMENTS_H_
