#ifndef WITAN_KERNELS_TENSOR_H_
#define WITAN_KERNELS_TENSOR_H_

// Memory of one device: views that never own, and the buffer that does.
//
// Shape letters, used everywhere: T rows (tokens) of a step, S sequences of a
// step, H hidden size, N query heads, K KV heads, D head dim, F FFN size, E
// experts, V vocabulary (all of a rank unless said otherwise).

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "base/check.h"
#include "base/dtype.h"

namespace witan {

// A row-major matrix [rows, columns] in device memory. Does not own it. Rows
// are row_stride elements apart. The data need only be aligned to its element
// type: weights are read in place from a mapped file.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t row_stride = 0;

  TensorView() = default;
  TensorView(void* data_in, DType dtype_in, int64_t rows_in, int64_t columns_in)
      : TensorView(data_in, dtype_in, rows_in, columns_in, columns_in) {}
  TensorView(void* data_in, DType dtype_in, int64_t rows_in, int64_t columns_in,
             int64_t row_stride_in)
      : data(data_in),
        dtype(dtype_in),
        rows(rows_in),
        columns(columns_in),
        row_stride(row_stride_in) {}

  // REQUIRES: sizeof(T) == SizeOf(dtype). Row r as elements of type T.
  template <typename T>
  T* Row(int64_t r) const {
    return static_cast<T*>(data) + r * row_stride;
  }
  bool empty() const { return rows == 0 || columns == 0; }
  // Rows [begin, end).
  TensorView Rows(int64_t begin, int64_t end) const {
    return TensorView(
        static_cast<char*>(data) +
            begin * row_stride * static_cast<int64_t>(SizeOf(dtype)),
        dtype, end - begin, columns, row_stride);
  }
};

// A view whose elements are not written through it.
struct ConstTensorView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t row_stride = 0;

  ConstTensorView() = default;
  ConstTensorView(const void* data_in, DType dtype_in, int64_t rows_in,
                  int64_t columns_in)
      : ConstTensorView(data_in, dtype_in, rows_in, columns_in, columns_in) {}
  ConstTensorView(const void* data_in, DType dtype_in, int64_t rows_in,
                  int64_t columns_in, int64_t row_stride_in)
      : data(data_in),
        dtype(dtype_in),
        rows(rows_in),
        columns(columns_in),
        row_stride(row_stride_in) {}
  // Implicit: a mutable view may always be read.
  ConstTensorView(const TensorView& view)
      : ConstTensorView(view.data, view.dtype, view.rows, view.columns,
                        view.row_stride) {}

  template <typename T>
  const T* Row(int64_t r) const {
    return static_cast<const T*>(data) + r * row_stride;
  }
  bool empty() const { return rows == 0 || columns == 0; }
  ConstTensorView Rows(int64_t begin, int64_t end) const {
    return ConstTensorView(
        static_cast<const char*>(data) +
            begin * row_stride * static_cast<int64_t>(SizeOf(dtype)),
        dtype, end - begin, columns, row_stride);
  }
};

// Owns device memory; move-only; frees through the deleter it was made with.
class Buffer {
 public:
  using Deleter = std::function<void(void*)>;

  Buffer() = default;
  Buffer(void* data, size_t size_bytes, Deleter deleter)
      : data_(data), size_bytes_(size_bytes), deleter_(std::move(deleter)) {}
  ~Buffer() { Free(); }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      Free();
      data_ = std::exchange(other.data_, nullptr);
      size_bytes_ = std::exchange(other.size_bytes_, 0);
      deleter_ = std::move(other.deleter_);
    }
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }

  // A contiguous [rows, columns] view of the start of the buffer.
  // REQUIRES: it fits.
  TensorView View(DType dtype, int64_t rows, int64_t columns) const {
    WITAN_CHECK(static_cast<size_t>(rows) * static_cast<size_t>(columns) *
                        SizeOf(dtype) <=
                    size_bytes_,
                "a [{}, {}] view exceeds a buffer of {} bytes", rows, columns,
                size_bytes_);
    return TensorView(data_, dtype, rows, columns);
  }

 private:
  void Free() {
    if (data_ != nullptr) deleter_(data_);
    data_ = nullptr;
  }

  void* data_ = nullptr;
  size_t size_bytes_ = 0;
  Deleter deleter_;
};

}  // namespace witan

#endif  // WITAN_KERNELS_TENSOR_H_
