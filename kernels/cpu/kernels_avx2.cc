// The kernels over simd_avx2.h.

#include <xmmintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd_avx2.h"

#pragma GCC target("avx2,fma,f16c")

namespace witan::avx2 {
namespace {

// In order of dependence.
// clang-format off
#include "kernels/cpu/elementwise-inl.h"
#include "kernels/cpu/matmul-inl.h"
#include "kernels/cpu/attention-inl.h"
#include "kernels/cpu/moe-inl.h"
#include "kernels/cpu/noise-inl.h"
#include "kernels/cpu/table-inl.h"
// clang-format on

}  // namespace
}  // namespace witan::avx2

namespace witan {

const CpuKernels& Avx2Kernels() { return avx2::kKernels; }

}  // namespace witan
