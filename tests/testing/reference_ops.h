#ifndef WITAN_TESTS_TESTING_REFERENCE_OPS_H_
#define WITAN_TESTS_TESTING_REFERENCE_OPS_H_

// The oracle of the kernels: every op as plain loops in double precision,
// written from the contract of kernels/backend.h and nothing else, and the
// tensors that tests feed to both.

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "kernels/tensor.h"

namespace witan {

// Unit roundoff: the largest relative error of rounding to `dtype`.
double UnitRoundoff(DType dtype);

// A matrix of doubles.
struct Matrix {
  Matrix(int64_t rows_in, int64_t columns_in)
      : rows(rows_in),
        columns(columns_in),
        values(static_cast<size_t>(rows_in * columns_in)) {}
  double& At(int64_t r, int64_t c) {
    return values[static_cast<size_t>(r * columns + c)];
  }
  double At(int64_t r, int64_t c) const {
    return values[static_cast<size_t>(r * columns + c)];
  }
  int64_t rows, columns;
  std::vector<double> values;
};

// A tensor with memory of its own. Rows are row_stride apart, the gaps hold
// NaN, and the data begins one element past an aligned address, as a view into
// a mapped file may.
class TestTensor {
 public:
  TestTensor(DType dtype, int64_t rows, int64_t columns, int64_t row_gap = 0);

  // Normal random numbers of this standard deviation, rounded to the dtype.
  static TestTensor Random(std::mt19937& random, DType dtype, int64_t rows,
                           int64_t columns, double deviation = 1,
                           int64_t row_gap = 0);

  TensorView view() const;
  void Set(int64_t row, int64_t column, double value);
  double Get(int64_t row, int64_t column) const;
  Matrix values() const;
  // The bits of row `row`, without the gap.
  std::string RowBits(int64_t row) const;
  std::string Bits() const;

 private:
  DType dtype_;
  int64_t rows_, columns_, row_stride_;
  mutable std::vector<char> bytes_;
};

// The element of a view, as a double.
double ElementOf(const ConstTensorView& view, int64_t row, int64_t column);

// A result with a bound on how far an implementation may be from it.
struct Expected {
  Expected(int64_t rows, int64_t columns)
      : value(rows, columns), tolerance(rows, columns) {}
  Matrix value, tolerance;
};

// The worst element of `actual` in units of its tolerance; the text names it.
struct Worst {
  double ratio = 0;
  std::string text;
};
Worst Compare(const ConstTensorView& actual, const Expected& expected);

// x w^T over columns [begin, end), to be rounded to `out`. Bound: a lane adds
// K / 16 products, the trees 4 + 3 levels, each rounding at most 2^-24 of the
// sum of magnitudes.
Expected ReferenceMatMul(const Matrix& x, const Matrix& w, int64_t begin,
                         int64_t end, DType out);

// residual is after the addition of delta.
Expected ReferenceRmsNorm(const Matrix& residual, const Matrix& weight,
                          double epsilon, DType out);
Expected ReferenceSiluMul(const Matrix& gate, const Matrix& up, DType out);
// x [T, N * D] rotated by the angles of its rows' positions.
Expected ReferenceRope(const Matrix& x, std::span<const int64_t> positions,
                       int64_t head_dim, double theta, DType out);
// Softmax over all columns.
Matrix ReferenceSoftmax(const Matrix& logits);

// Attention of one query [D] over keys and values [positions, D] in [begin,
// end) of them, with scores rounded in fp32 and P rounded to `dtype`.
struct AttentionOracle {
  int64_t head_dim;
  double scale;
  DType dtype;
  // Adds row `row` of `expected`, at columns [column, column + D).
  void Attend(std::span<const double> q, const Matrix& keys,
              const Matrix& values, int64_t begin, int64_t end, int64_t row,
              int64_t column, Expected& expected) const;
};

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_REFERENCE_OPS_H_
