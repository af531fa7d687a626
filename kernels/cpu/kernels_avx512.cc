// The kernels over simd_avx512.h.

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
#include "kernels/cpu/simd_avx512.h"

#pragma GCC target( \
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#define WITAN_BF16_DOT
#define WITAN_32_REGISTERS

namespace witan::avx512 {
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
}  // namespace witan::avx512

namespace witan {

const CpuKernels& Avx512Kernels() { return avx512::kKernels; }

}  // namespace witan
