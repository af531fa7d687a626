#ifndef WITAN_KERNELS_CPU_BF16_H_
#define WITAN_KERNELS_CPU_BF16_H_

// The 16-bit element types and their exact conversions, one element at a time.

#include <bit>
#include <cstdint>

#include "base/check.h"
#include "base/dtype.h"

namespace witan {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

inline float ToF32(float x) { return x; }

inline float ToF32(Bf16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

inline float ToF32(F16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  const uint32_t exponent = (x.bits >> 10) & 0x1f;
  const uint32_t mantissa = x.bits & 0x3ff;
  if (exponent == 0x1f) {  // infinity, or a NaN made quiet
    const uint32_t quiet = mantissa != 0 ? 0x400000 : 0;
    return std::bit_cast<float>(sign | 0x7f800000 | quiet | (mantissa << 13));
  }
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exactly
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) |
                              (mantissa << 13));
}

// To nearest, ties to even; subnormals are kept; a NaN stays a (quiet) NaN.
inline Bf16 RoundToBf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) {
    return {static_cast<uint16_t>((bits >> 16) | 0x40)};
  }
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

// Calls visitor(T{}) with the element type of a floating-point `dtype`.
template <typename Visitor>
void VisitFloat(DType dtype, Visitor&& visitor) {
  switch (dtype) {
    case DType::kF32:
      return visitor(float{});
    case DType::kBF16:
      return visitor(Bf16{});
    case DType::kF16:
      return visitor(F16{});
    case DType::kI32:
      break;
  }
  WITAN_CHECK(false, "{} is not a floating-point dtype", NameOf(dtype));
}

// Likewise for an activation dtype: bf16 or fp32.
template <typename Visitor>
void VisitActivation(DType dtype, Visitor&& visitor) {
  WITAN_CHECK(dtype == DType::kF32 || dtype == DType::kBF16,
              "{} is not an activation dtype", NameOf(dtype));
  if (dtype == DType::kF32) return visitor(float{});
  visitor(Bf16{});
}

}  // namespace witan

#endif  // WITAN_KERNELS_CPU_BF16_H_
