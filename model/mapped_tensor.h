#ifndef WITAN_MODEL_MAPPED_TENSOR_H_
#define WITAN_MODEL_MAPPED_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "base/leaves.h"
#include "model/gguf_quants.h"

namespace witan {

// How a GGUF file has a tensor, where that is not how it is computed with.
struct Conversion {
  GgmlType stored = GgmlType::kF32;
  // D where the rows of each head of so many were put into the order that
  // rotates neighbours: row 2j + s there is row s D/2 + j here. 0: they were
  // not.
  int64_t interleaved_head_dim = 0;
  bool operator==(const Conversion&) const = default;
};

// A tensor of the checkpoint. `data` points into the mapping and may lie at any
// byte, aligned to nothing.
struct MappedTensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // row-major
  std::span<const std::byte> data;
  int file_index = 0;       // into Checkpoint::files()
  int64_t file_offset = 0;  // of `data`, in bytes
  // Absent: `data` are the elements.
  std::optional<Conversion> conversion = std::nullopt;

  // Of a vector, all of it.
  int64_t row_elements() const { return shape.back(); }
};

// Writes the elements of a rectangle, row after row, as the tensor's dtype has
// them: converted ones are rounded to the nearest number, ties to even. A
// vector is one row. `out` is aligned to nothing.
// REQUIRES: the rectangle lies in the tensor.
void ReadElements(const MappedTensor& tensor, IndexRange rows,
                  IndexRange columns, std::byte* out);

}  // namespace witan

#endif  // WITAN_MODEL_MAPPED_TENSOR_H_
