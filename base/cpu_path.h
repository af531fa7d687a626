#ifndef WITAN_BASE_CPU_PATH_H_
#define WITAN_BASE_CPU_PATH_H_

// The code paths of the CPU backend by name, as --cpu-path takes them and
// workers register them, and which of them compute equal bits.

#include <string_view>

#include "base/dtype.h"

namespace witan {

constexpr std::string_view kCpuPathAvx512Bf16 = "avx512bf16";
constexpr std::string_view kCpuPathAvx2 = "avx2";
constexpr std::string_view kCpuPathPortable = "portable";

// Best first: what "auto" takes is the first that the CPU can run.
constexpr std::string_view kCpuPaths[] = {kCpuPathAvx512Bf16, kCpuPathAvx2,
                                          kCpuPathPortable};

// The order of the numerics contract (docs/architecture.md, 1) in which `path`
// sums for a model with such weights. Paths of one order compute equal bits. A
// path that is not known here has an order of its own, named like it.
constexpr std::string_view OrderOfCpuPath(std::string_view path,
                                          DType weights) {
  if (path == kCpuPathAvx512Bf16 && weights == DType::kBF16) return "one";
  for (const std::string_view known : kCpuPaths) {
    if (path == known) return "two";
  }
  return path;
}

}  // namespace witan

#endif  // WITAN_BASE_CPU_PATH_H_
