#ifndef WITAN_KERNELS_CPU_SIMD_PORTABLE_H_
#define WITAN_KERNELS_CPU_SIMD_PORTABLE_H_

// Sixteen fp32 lanes in plain C++: the definition that simd_avx2.h and
// simd_avx512.h reproduce bit for bit. std::fma is the only call into a libm;
// IEEE 754 leaves it no choice of result.

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/bf16.h"

namespace witan::portable {

constexpr bool kHasBf16Dot = false;

struct F32x16 {
  float lane[16];
};

template <typename Function>
inline F32x16 EachLane(Function&& function) {
  F32x16 result;
  for (int i = 0; i < 16; ++i) result.lane[i] = function(i);
  return result;
}

inline F32x16 Set1(float x) {
  return EachLane([&](int) { return x; });
}
inline F32x16 Zero() { return Set1(0.0f); }

// Sixteen elements as fp32; LoadN reads `n` and zeroes the other lanes.
template <typename T>
inline F32x16 Load(const T* from) {
  return EachLane([&](int i) { return ToF32(from[i]); });
}
template <typename T>
inline F32x16 LoadN(const T* from, int64_t n) {
  return EachLane([&](int i) { return i < n ? ToF32(from[i]) : 0.0f; });
}
// Stores lanes [0, n), rounded to the type of the target.
inline void StoreN(float* to, F32x16 v, int64_t n) {
  for (int i = 0; i < n; ++i) to[i] = v.lane[i];
}
inline void StoreN(Bf16* to, F32x16 v, int64_t n) {
  for (int i = 0; i < n; ++i) to[i] = RoundToBf16(v.lane[i]);
}
template <typename T>
inline void Store(T* to, F32x16 v) {
  StoreN(to, v, 16);
}

inline F32x16 Add(F32x16 a, F32x16 b) {
  return EachLane([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline F32x16 Sub(F32x16 a, F32x16 b) {
  return EachLane([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline F32x16 Mul(F32x16 a, F32x16 b) {
  return EachLane([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline F32x16 Div(F32x16 a, F32x16 b) {
  return EachLane([&](int i) { return a.lane[i] / b.lane[i]; });
}
// a * b + c, rounded once.
inline F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) {
  return EachLane(
      [&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
// The larger one; b where either is a NaN.
inline F32x16 Max(F32x16 a, F32x16 b) {
  return EachLane(
      [&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}

// yes where a < b (never for a NaN), else no.
inline F32x16 IfLess(F32x16 a, F32x16 b, F32x16 yes, F32x16 no) {
  return EachLane(
      [&](int i) { return a.lane[i] < b.lane[i] ? yes.lane[i] : no.lane[i]; });
}
// yes where x is not a NaN, else no.
inline F32x16 IfNumber(F32x16 x, F32x16 yes, F32x16 no) {
  return EachLane(
      [&](int i) { return x.lane[i] == x.lane[i] ? yes.lane[i] : no.lane[i]; });
}
// v in lanes [begin, end), fill elsewhere.
inline F32x16 KeepLanes(F32x16 v, int64_t begin, int64_t end, F32x16 fill) {
  return EachLane(
      [&](int i) { return i >= begin && i < end ? v.lane[i] : fill.lane[i]; });
}

// The bits of x plus the low 9 bits of `n_bits`' bits, shifted to the exponent:
// x * 2^n when n_bits = 1.5 * 2^23 + n and the result is normal.
inline F32x16 AddToExponent(F32x16 x, F32x16 n_bits) {
  return EachLane([&](int i) {
    return std::bit_cast<float>(
        std::bit_cast<uint32_t>(x.lane[i]) +
        (std::bit_cast<uint32_t>(n_bits.lane[i]) << 23));
  });
}
// x = mantissa * 2^exponent, mantissa in [sqrt(1/2), sqrt(2)), for x positive
// and normal.
inline void SplitExponent(F32x16 x, F32x16& mantissa, F32x16& exponent) {
  for (int i = 0; i < 16; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(x.lane[i]);
    const int32_t e = (bits - 0x3f3504f3) >> 23;
    mantissa.lane[i] = std::bit_cast<float>(static_cast<uint32_t>(bits) -
                                            (static_cast<uint32_t>(e) << 23));
    exponent.lane[i] = static_cast<float>(e);
  }
}

// The lane tree: v[l] + v[l+8], then +4, +2, +1.
inline float SumLanes(F32x16 v) {
  for (int width = 8; width >= 1; width /= 2) {
    for (int i = 0; i < width; ++i) v.lane[i] += v.lane[i + width];
  }
  return v.lane[0];
}
// The largest lane. REQUIRES: no NaN.
inline float MaxLanes(F32x16 v) {
  float best = v.lane[0];
  for (int i = 1; i < 16; ++i) best = v.lane[i] > best ? v.lane[i] : best;
  return best;
}
// sums[i] = SumLanes(v[i]); sums has room for whole vectors of 16.
template <int kCount>
inline void SumLanesOfEach(const F32x16 (&v)[kCount], float* sums) {
  for (int i = 0; i < kCount; ++i) sums[i] = SumLanes(v[i]);
}

}  // namespace witan::portable

#endif  // WITAN_KERNELS_CPU_SIMD_PORTABLE_H_
