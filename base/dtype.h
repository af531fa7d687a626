#ifndef WITAN_BASE_DTYPE_H_
#define WITAN_BASE_DTYPE_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace witan {

// Element types of weights, activations and index arrays.
enum class DType : uint8_t { kF32, kBF16, kF16, kI32 };

constexpr size_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
  }
  return 0;
}

// "float32", "bfloat16", "float16", "int32": the names config.json uses.
constexpr std::string_view NameOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    case DType::kI32:
      return "int32";
  }
  return "unknown";
}

// The dtype A of activations and of the KV cache on CPU for weights of
// `weights` (docs/architecture.md, numerics contract): bf16 for bf16 weights,
// fp32 for float32 and float16 weights.
constexpr DType ActivationDType(DType weights) {
  return weights == DType::kBF16 ? DType::kBF16 : DType::kF32;
}

}  // namespace witan

#endif  // WITAN_BASE_DTYPE_H_
