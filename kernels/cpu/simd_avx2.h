#ifndef WITAN_KERNELS_CPU_SIMD_AVX2_H_
#define WITAN_KERNELS_CPU_SIMD_AVX2_H_

// The sixteen lanes of simd_portable.h as two AVX2 registers; see there for
// what each function means.

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/bf16.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace witan::avx2 {

constexpr bool kHasBf16Dot = false;

struct F32x16 {
  __m256 low, high;
};

inline F32x16 Set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F32x16 Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }

// All bits of lanes [begin, end).
struct LaneMask {
  __m256i low, high;
};
inline LaneMask MaskOfLanes(int64_t begin, int64_t end) {
  const __m256i first = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i second = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
  const __m256i before = _mm256_set1_epi32(static_cast<int>(begin) - 1);
  const __m256i after = _mm256_set1_epi32(static_cast<int>(end));
  return {_mm256_and_si256(_mm256_cmpgt_epi32(first, before),
                           _mm256_cmpgt_epi32(after, first)),
          _mm256_and_si256(_mm256_cmpgt_epi32(second, before),
                           _mm256_cmpgt_epi32(after, second))};
}

inline F32x16 Load(const float* from) {
  return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
}
inline F32x16 LoadN(const float* from, int64_t n) {
  const LaneMask mask = MaskOfLanes(0, n);
  return {_mm256_maskload_ps(from, mask.low),
          _mm256_maskload_ps(from + 8, mask.high)};
}
inline __m256 WidenBf16(__m128i bits) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline __m128i LoadBits128(const void* from) {
  return _mm_loadu_si128(static_cast<const __m128i*>(from));
}
inline F32x16 Load(const Bf16* from) {
  return {WidenBf16(LoadBits128(from)), WidenBf16(LoadBits128(from + 8))};
}
inline F32x16 Load(const F16* from) {
  return {_mm256_cvtph_ps(LoadBits128(from)),
          _mm256_cvtph_ps(LoadBits128(from + 8))};
}
template <typename T>
inline F32x16 LoadN(const T* from, int64_t n) {
  static_assert(sizeof(T) == 2);
  if (n == 16) return Load(from);
  T copy[16] = {};
  std::memcpy(copy, from, static_cast<size_t>(n) * sizeof(T));
  return Load(copy);
}

inline void Store(float* to, F32x16 v) {
  _mm256_storeu_ps(to, v.low);
  _mm256_storeu_ps(to + 8, v.high);
}
inline void StoreN(float* to, F32x16 v, int64_t n) {
  const LaneMask mask = MaskOfLanes(0, n);
  _mm256_maskstore_ps(to, mask.low, v.low);
  _mm256_maskstore_ps(to + 8, mask.high, v.high);
}
// The bf16 bits of each lane in the low half of its 32 bits.
inline __m256i NarrowToBf16(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i top = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(
      _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd),
      16);
  const __m256i quiet = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
  const __m256 is_nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(is_nan));
}
inline void Store(Bf16* to, F32x16 v) {
  const __m256i packed =
      _mm256_packus_epi32(NarrowToBf16(v.low), NarrowToBf16(v.high));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm256_permute4x64_epi64(packed, 0xd8));
}
inline void StoreN(Bf16* to, F32x16 v, int64_t n) {
  if (n == 16) return Store(to, v);
  Bf16 copy[16];
  Store(copy, v);
  std::memcpy(to, copy, static_cast<size_t>(n) * sizeof(Bf16));
}

inline F32x16 Add(F32x16 a, F32x16 b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline F32x16 Sub(F32x16 a, F32x16 b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
inline F32x16 Mul(F32x16 a, F32x16 b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline F32x16 Div(F32x16 a, F32x16 b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
inline F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low),
          _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline F32x16 Max(F32x16 a, F32x16 b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
inline F32x16 IfLess(F32x16 a, F32x16 b, F32x16 yes, F32x16 no) {
  return {_mm256_blendv_ps(no.low, yes.low,
                           _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
          _mm256_blendv_ps(no.high, yes.high,
                           _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
}
inline F32x16 IfNumber(F32x16 x, F32x16 yes, F32x16 no) {
  return {_mm256_blendv_ps(no.low, yes.low,
                           _mm256_cmp_ps(x.low, x.low, _CMP_ORD_Q)),
          _mm256_blendv_ps(no.high, yes.high,
                           _mm256_cmp_ps(x.high, x.high, _CMP_ORD_Q))};
}
inline F32x16 KeepLanes(F32x16 v, int64_t begin, int64_t end, F32x16 fill) {
  const LaneMask mask = MaskOfLanes(begin, end);
  return {_mm256_blendv_ps(fill.low, v.low, _mm256_castsi256_ps(mask.low)),
          _mm256_blendv_ps(fill.high, v.high, _mm256_castsi256_ps(mask.high))};
}

inline __m256 AddToExponent(__m256 x, __m256 n_bits) {
  return _mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_castps_si256(x),
                       _mm256_slli_epi32(_mm256_castps_si256(n_bits), 23)));
}
inline F32x16 AddToExponent(F32x16 x, F32x16 n_bits) {
  return {AddToExponent(x.low, n_bits.low), AddToExponent(x.high, n_bits.high)};
}
inline void SplitExponent(__m256 x, __m256& mantissa, __m256& exponent) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i e = _mm256_srai_epi32(
      _mm256_sub_epi32(bits, _mm256_set1_epi32(0x3f3504f3)), 23);
  mantissa =
      _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(e, 23)));
  exponent = _mm256_cvtepi32_ps(e);
}
inline void SplitExponent(F32x16 x, F32x16& mantissa, F32x16& exponent) {
  SplitExponent(x.low, mantissa.low, exponent.low);
  SplitExponent(x.high, mantissa.high, exponent.high);
}

inline float SumLanes(F32x16 v) {
  const __m256 eight = _mm256_add_ps(v.low, v.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight),
                                 _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float MaxLanes(F32x16 v) {
  const __m256 eight = _mm256_max_ps(v.low, v.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight),
                                 _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
template <int kCount>
inline void SumLanesOfEach(const F32x16 (&v)[kCount], float* sums) {
  for (int i = 0; i < kCount; ++i) sums[i] = SumLanes(v[i]);
}

}  // namespace witan::avx2

#pragma GCC pop_options

#endif  // WITAN_KERNELS_CPU_SIMD_AVX2_H_
