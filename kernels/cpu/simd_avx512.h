#ifndef WITAN_KERNELS_CPU_SIMD_AVX512_H_
#define WITAN_KERNELS_CPU_SIMD_AVX512_H_

// The sixteen lanes of simd_portable.h as one AVX-512 register (see there for
// what each function means), and the bf16 dot product of order one.

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/bf16.h"

// GCC 12 takes the deliberately undefined operands of its own AVX-512
// intrinsics for a mistake.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#pragma GCC push_options
#pragma GCC target( \
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

namespace witan::avx512 {

constexpr bool kHasBf16Dot = true;

struct F32x16 {
  __m512 v;
};

inline F32x16 Set1(float x) { return {_mm512_set1_ps(x)}; }
inline F32x16 Zero() { return {_mm512_setzero_ps()}; }

inline __mmask16 MaskOfLanes(int64_t begin, int64_t end) {
  const auto below = [](int64_t lane) {
    return lane >= 16 ? 0xffffu : (1u << (lane < 0 ? 0 : lane)) - 1;
  };
  return static_cast<__mmask16>(below(end) & ~below(begin));
}

inline F32x16 Load(const float* from) { return {_mm512_loadu_ps(from)}; }
inline F32x16 LoadN(const float* from, int64_t n) {
  return {_mm512_maskz_loadu_ps(MaskOfLanes(0, n), from)};
}
inline __m256i LoadBits256(const void* from, int64_t n) {
  return _mm256_maskz_loadu_epi16(MaskOfLanes(0, n), from);
}
inline F32x16 Widen(__m256i bits, Bf16) {
  return {
      _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
inline F32x16 Widen(__m256i bits, F16) { return {_mm512_cvtph_ps(bits)}; }
template <typename T>
inline F32x16 Load(const T* from) {
  return Widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)), T{});
}
template <typename T>
inline F32x16 LoadN(const T* from, int64_t n) {
  return Widen(LoadBits256(from, n), T{});
}

inline void Store(float* to, F32x16 v) { _mm512_storeu_ps(to, v.v); }
inline void StoreN(float* to, F32x16 v, int64_t n) {
  _mm512_mask_storeu_ps(to, MaskOfLanes(0, n), v.v);
}
// In integers: vcvtneps2bf16 would flush subnormals.
inline __m256i NarrowToBf16(F32x16 v) {
  const __m512i bits = _mm512_castps_si512(v.v);
  const __m512i top = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(
      _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd),
      16);
  return _mm512_cvtepi32_epi16(
      _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(v.v, v.v, _CMP_UNORD_Q),
                           top, _mm512_set1_epi32(0x40)));
}
inline void Store(Bf16* to, F32x16 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), NarrowToBf16(v));
}
inline void StoreN(Bf16* to, F32x16 v, int64_t n) {
  _mm256_mask_storeu_epi16(to, MaskOfLanes(0, n), NarrowToBf16(v));
}

inline F32x16 Add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 Sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 Mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 Div(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline F32x16 Max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32x16 IfLess(F32x16 a, F32x16 b, F32x16 yes, F32x16 no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v,
                               yes.v)};
}
inline F32x16 IfNumber(F32x16 x, F32x16 yes, F32x16 no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, x.v, _CMP_ORD_Q), no.v,
                               yes.v)};
}
inline F32x16 KeepLanes(F32x16 v, int64_t begin, int64_t end, F32x16 fill) {
  return {_mm512_mask_blend_ps(MaskOfLanes(begin, end), fill.v, v.v)};
}

inline F32x16 AddToExponent(F32x16 x, F32x16 n_bits) {
  return {_mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_castps_si512(x.v),
                       _mm512_slli_epi32(_mm512_castps_si512(n_bits.v), 23)))};
}
inline void SplitExponent(F32x16 x, F32x16& mantissa, F32x16& exponent) {
  const __m512i bits = _mm512_castps_si512(x.v);
  const __m512i e = _mm512_srai_epi32(
      _mm512_sub_epi32(bits, _mm512_set1_epi32(0x3f3504f3)), 23);
  mantissa.v =
      _mm512_castsi512_ps(_mm512_sub_epi32(bits, _mm512_slli_epi32(e, 23)));
  exponent.v = _mm512_cvtepi32_ps(e);
}

// Each halves a pair of accumulators: one level of the lane tree for both.
inline __m512 JoinHalves(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44),
                       _mm512_shuffle_f32x4(a, b, 0xee));
}
inline __m512 JoinQuarters(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88),
                       _mm512_shuffle_f32x4(a, b, 0xdd));
}
inline __m512 JoinPairs(__m512 a, __m512 b) {
  const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
  return _mm512_add_ps(_mm512_castpd_ps(_mm512_shuffle_pd(x, y, 0x00)),
                       _mm512_castpd_ps(_mm512_shuffle_pd(x, y, 0xff)));
}
inline __m512 JoinSingles(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88),
                       _mm512_shuffle_ps(a, b, 0xdd));
}
// Accumulators kFirst, +4, +8, +12 to one register whose 128-bit lane i holds
// the four partial sums of accumulator kFirst + 4 i. Those from kCount on are
// zero. Indices are constants so that accumulators never leave registers.
template <int kFirst, int kCount>
inline __m512 JoinFour(const F32x16 (&v)[kCount]) {
  const auto at = [&]<int kIndex>() {
    if constexpr (kIndex < kCount) return v[kIndex].v;
    return _mm512_setzero_ps();
  };
  __m512 low = _mm512_setzero_ps(), high = _mm512_setzero_ps();
  if constexpr (kFirst < kCount) {
    low = JoinHalves(at.template operator()<kFirst>(),
                     at.template operator()<kFirst + 4>());
  }
  if constexpr (kFirst + 8 < kCount) {
    high = JoinHalves(at.template operator()<kFirst + 8>(),
                      at.template operator()<kFirst + 12>());
  }
  return JoinQuarters(low, high);
}
// Stores SumLanes(v[i]) to sums[i] for i from kFirst on, and zeros up to the
// next multiple of 16.
template <int kFirst = 0, int kCount>
inline void SumLanesOfEach(const F32x16 (&v)[kCount], float* sums) {
  _mm512_storeu_ps(
      sums + kFirst,
      JoinSingles(JoinPairs(JoinFour<kFirst>(v), JoinFour<kFirst + 1>(v)),
                  JoinPairs(JoinFour<kFirst + 2>(v), JoinFour<kFirst + 3>(v))));
  if constexpr (kFirst + 16 < kCount) SumLanesOfEach<kFirst + 16>(v, sums);
}
inline float SumLanes(F32x16 v) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v.v),
                                     _mm512_extractf32x8_ps(v.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight),
                                 _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float MaxLanes(F32x16 v) { return _mm512_reduce_max_ps(v.v); }

// Sixteen pairs of bf16, for vdpbf16ps.
struct Bf16x32 {
  __m512i v;
};
inline Bf16x32 LoadPairs(const void* from) {
  return {_mm512_loadu_si512(from)};
}
// The first n elements; zeros after them.
inline Bf16x32 LoadPairsN(const Bf16* from, int64_t n) {
  return {_mm512_maskz_loadu_epi16((1u << n) - 1, from)};
}
inline Bf16x32 BroadcastPair(uint32_t pair) {
  return {_mm512_set1_epi32(static_cast<int>(pair))};
}
inline Bf16x32 And(Bf16x32 v, uint32_t mask) {
  return {_mm512_and_si512(v.v, _mm512_set1_epi32(static_cast<int>(mask)))};
}
// acc[l] + a[2l+1] * b[2l+1] + a[2l] * b[2l], as vdpbf16ps does it.
inline F32x16 DotPairs(F32x16 acc, Bf16x32 a, Bf16x32 b) {
  return {_mm512_dpbf16_ps(acc.v, (__m512bh)a.v, (__m512bh)b.v)};
}

}  // namespace witan::avx512

#pragma GCC pop_options

#endif  // WITAN_KERNELS_CPU_SIMD_AVX512_H_
