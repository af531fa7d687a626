#include "model/mapped_tensor.h"

#include <cstring>

namespace witan {
namespace {

// Reads columns of one row after the other of a tensor that is converted.
class RowReader {
 public:
  RowReader(const MappedTensor& tensor, IndexRange columns)
      : tensor_(tensor),
        stored_(TraitsOf(tensor.conversion->stored)),
        columns_(columns),
        first_block_(columns.begin / stored_.block_elements),
        num_blocks_((columns.end + stored_.block_elements - 1) /
                        stored_.block_elements -
                    first_block_),
        stored_row_bytes_(tensor.row_elements() / stored_.block_elements *
                          stored_.block_bytes) {
    // Elements of a vector come from anywhere in it.
    if (IsInterleavedVector()) {
      first_block_ = 0;
      num_blocks_ = tensor.row_elements() / stored_.block_elements;
    }
    numbers_.resize(static_cast<size_t>(num_blocks_ * stored_.block_elements));
  }

  void Read(int64_t row, std::byte* out) {
    const bool is_vector = tensor_.shape.size() == 1;
    const std::byte* first =
        tensor_.data.data() +
        (is_vector ? 0 : StoredIndex(row)) * stored_row_bytes_ +
        first_block_ * stored_.block_bytes;
    DequantizeBlocks(stored_.type, first, num_blocks_, numbers_.data());
    if (IsInterleavedVector()) {
      std::vector<float> ordered;
      for (int64_t i = columns_.begin; i < columns_.end; ++i) {
        ordered.push_back(numbers_[static_cast<size_t>(StoredIndex(i))]);
      }
      RoundTo(tensor_.dtype, ordered.data(), columns_.size(), out);
      return;
    }
    RoundTo(tensor_.dtype,
            numbers_.data() + columns_.begin -
                first_block_ * stored_.block_elements,
            columns_.size(), out);
  }

 private:
  bool IsInterleavedVector() const {
    return tensor_.shape.size() == 1 &&
           tensor_.conversion->interleaved_head_dim != 0;
  }
  // Where the file has a row, or an element of a vector.
  int64_t StoredIndex(int64_t index) const {
    const int64_t dim = tensor_.conversion->interleaved_head_dim;
    if (dim == 0) return index;
    const int64_t in_head = index % dim;
    return index - in_head + in_head % (dim / 2) * 2 + in_head / (dim / 2);
  }

  const MappedTensor& tensor_;
  const GgmlTypeTraits& stored_;
  const IndexRange columns_;
  int64_t first_block_;
  int64_t num_blocks_;
  const int64_t stored_row_bytes_;
  std::vector<float> numbers_;
};

}  // namespace

void ReadElements(const MappedTensor& tensor, IndexRange rows,
                  IndexRange columns, std::byte* out) {
  const auto element_bytes = static_cast<int64_t>(SizeOf(tensor.dtype));
  const auto row_bytes = static_cast<size_t>(columns.size() * element_bytes);
  if (tensor.conversion) {
    RowReader reader(tensor, columns);
    for (int64_t row = rows.begin; row < rows.end; ++row, out += row_bytes) {
      reader.Read(row, out);
    }
    return;
  }
  const int64_t stride_bytes = tensor.row_elements() * element_bytes;
  for (int64_t row = rows.begin; row < rows.end; ++row, out += row_bytes) {
    std::memcpy(
        out,
        tensor.data.data() + row * stride_bytes + columns.begin * element_bytes,
        row_bytes);
  }
}

}  // namespace witan
