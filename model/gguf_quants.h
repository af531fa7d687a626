#ifndef WITAN_MODEL_GGUF_QUANTS_H_
#define WITAN_MODEL_GGUF_QUANTS_H_

// The element types of GGUF tensors (enum ggml_type of ggml.h) and how those
// that are not numbers become numbers: a row is cut into blocks, each with
// scales of its own. Layouts are those of ggml-common.h, arithmetic that of
// dequantize_row_* in ggml-quants.c, in float32 and in its order.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/dtype.h"

namespace witan {

// The values are those of the file.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

struct GgmlTypeTraits {
  GgmlType type = GgmlType::kF32;
  std::string_view name;       // "Q4_K"
  int64_t block_elements = 1;  // a row has whole blocks
  int64_t block_bytes = 0;
  // Of types whose elements are numbers.
  std::optional<DType> dtype;
};

// Null for a type that is not read.
const GgmlTypeTraits* FindGgmlType(uint32_t type);
const GgmlTypeTraits& TraitsOf(GgmlType type);
// "F32, F16, ...": all that are read.
std::string KnownGgmlTypes();

// The numbers of `num_blocks` adjacent blocks, num_blocks * block_elements of
// them, into `out`. `blocks` is aligned to nothing.
void DequantizeBlocks(GgmlType type, const std::byte* blocks,
                      int64_t num_blocks, float* out);

// Writes `count` numbers as elements of `dtype` (a float), each rounded to the
// nearest one, ties to even. `out` is aligned to nothing.
void RoundTo(DType dtype, const float* numbers, int64_t count, std::byte* out);

}  // namespace witan

#endif  // WITAN_MODEL_GGUF_QUANTS_H_
