#include "tests/testing/reference_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace witan {
namespace {

constexpr double kF32Roundoff = 0x1p-24;
// What is flushed to zero on the way: subnormal products and exponentials.
constexpr double kFlushed = 1e-36;

// Written apart from the kernels' conversions: through arithmetic, not bits.
double FromBits16(uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) {
    return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  }
  return sign * std::ldexp(mantissa + (1 << mantissa_bits),
                           exponent - bias - mantissa_bits);
}

uint16_t ToBits16(double value, int exponent_bits, int mantissa_bits) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const int top = ((1 << exponent_bits) - 1) << mantissa_bits;
  if (std::isnan(value))
    return static_cast<uint16_t>(top | 1 << (mantissa_bits - 1));
  const double magnitude = std::abs(value);
  if (magnitude == 0) return sign;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  int exponent = std::max(std::ilogb(magnitude), 1 - bias);
  // Rounds to nearest, ties to even; a carry moves into the exponent by itself.
  const auto scaled = static_cast<int64_t>(
      std::nearbyint(std::ldexp(magnitude, mantissa_bits - exponent)));
  const int64_t bits =
      scaled + (static_cast<int64_t>(exponent + bias - 1) << mantissa_bits);
  return static_cast<uint16_t>(sign | std::min<int64_t>(bits, top));
}

}  // namespace

double UnitRoundoff(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return 0x1p-8;  // to nearest: half of 2^-7
    case DType::kF16:
      return 0x1p-11;
    default:
      return kF32Roundoff;
  }
}

TestTensor::TestTensor(DType dtype, int64_t rows, int64_t columns,
                       int64_t row_gap)
    : dtype_(dtype),
      rows_(rows),
      columns_(columns),
      row_stride_(columns + row_gap),
      bytes_(static_cast<size_t>(rows * row_stride_ + 1) * SizeOf(dtype)) {
  if (row_gap == 0 || dtype == DType::kI32) return;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = columns; c < row_stride_; ++c) {
      Set(r, c, std::numeric_limits<double>::quiet_NaN());
    }
  }
}

TestTensor TestTensor::Random(std::mt19937& random, DType dtype, int64_t rows,
                              int64_t columns, double deviation,
                              int64_t row_gap) {
  TestTensor tensor(dtype, rows, columns, row_gap);
  std::normal_distribution<double> normal(0, deviation);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) tensor.Set(r, c, normal(random));
  }
  return tensor;
}

TensorView TestTensor::view() const {
  return TensorView(bytes_.data() + SizeOf(dtype_), dtype_, rows_, columns_,
                    row_stride_);
}

void TestTensor::Set(int64_t row, int64_t column, double value) {
  char* to =
      bytes_.data() +
      static_cast<size_t>(row * row_stride_ + column + 1) * SizeOf(dtype_);
  if (dtype_ == DType::kF32) {
    const float rounded = static_cast<float>(value);
    std::memcpy(to, &rounded, sizeof(rounded));
  } else if (dtype_ == DType::kI32) {
    const int32_t integer = static_cast<int32_t>(value);
    std::memcpy(to, &integer, sizeof(integer));
  } else {
    const uint16_t bits =
        dtype_ == DType::kBF16 ? ToBits16(value, 8, 7) : ToBits16(value, 5, 10);
    std::memcpy(to, &bits, sizeof(bits));
  }
}

double TestTensor::Get(int64_t row, int64_t column) const {
  return ElementOf(view(), row, column);
}

Matrix TestTensor::values() const {
  Matrix matrix(rows_, columns_);
  for (int64_t r = 0; r < rows_; ++r) {
    for (int64_t c = 0; c < columns_; ++c) matrix.At(r, c) = Get(r, c);
  }
  return matrix;
}

std::string TestTensor::RowBits(int64_t row) const {
  return std::string(static_cast<const char*>(view().Rows(row, row + 1).data),
                     static_cast<size_t>(columns_) * SizeOf(dtype_));
}

std::string TestTensor::Bits() const {
  std::string bits;
  for (int64_t r = 0; r < rows_; ++r) bits += RowBits(r);
  return bits;
}

double ElementOf(const ConstTensorView& view, int64_t row, int64_t column) {
  const char* from =
      static_cast<const char*>(view.data) +
      static_cast<size_t>(row * view.row_stride + column) * SizeOf(view.dtype);
  if (view.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  if (view.dtype == DType::kI32) {
    int32_t value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return view.dtype == DType::kBF16 ? FromBits16(bits, 8, 7)
                                    : FromBits16(bits, 5, 10);
}

Worst Compare(const ConstTensorView& actual, const Expected& expected) {
  Worst worst;
  worst.text = "no elements";
  for (int64_t r = 0; r < expected.value.rows; ++r) {
    for (int64_t c = 0; c < expected.value.columns; ++c) {
      const double value = ElementOf(actual, r, c);
      const double error = std::abs(value - expected.value.At(r, c));
      double ratio = error / expected.tolerance.At(r, c);
      if (std::isnan(ratio)) ratio = std::numeric_limits<double>::infinity();
      if (ratio >= worst.ratio) {
        worst = {ratio,
                 fmt::format("[{}, {}] is {}, not {} within {} (ratio {:.3f})",
                             r, c, value, expected.value.At(r, c),
                             expected.tolerance.At(r, c), ratio)};
      }
    }
  }
  return worst;
}

Expected ReferenceMatMul(const Matrix& x, const Matrix& w, int64_t begin,
                         int64_t end, DType out) {
  Expected expected(x.rows, w.rows);
  const double num_roundings = static_cast<double>(end - begin) / 16 + 9;
  for (int64_t m = 0; m < x.rows; ++m) {
    for (int64_t n = 0; n < w.rows; ++n) {
      double sum = 0, magnitude = 0;
      for (int64_t k = begin; k < end; ++k) {
        sum += x.At(m, k) * w.At(n, k);
        magnitude += std::abs(x.At(m, k) * w.At(n, k));
      }
      expected.value.At(m, n) = sum;
      const double error = num_roundings * kF32Roundoff * magnitude;
      expected.tolerance.At(m, n) =
          error + UnitRoundoff(out) * (std::abs(sum) + error) + kFlushed;
    }
  }
  return expected;
}

Expected ReferenceRmsNorm(const Matrix& residual, const Matrix& weight,
                          double epsilon, DType out) {
  Expected expected(residual.rows, residual.columns);
  // The sum's relative error is halved by the root; then a division, a root
  // and three more roundings.
  const double relative =
      (static_cast<double>(residual.columns) / 16 + 16) * kF32Roundoff;
  for (int64_t r = 0; r < residual.rows; ++r) {
    double squares = 0;
    for (int64_t c = 0; c < residual.columns; ++c) {
      squares += residual.At(r, c) * residual.At(r, c);
    }
    const double scale =
        1 /
        std::sqrt(squares / static_cast<double>(residual.columns) + epsilon);
    for (int64_t c = 0; c < residual.columns; ++c) {
      const double value = residual.At(r, c) * scale * weight.At(0, c);
      expected.value.At(r, c) = value;
      expected.tolerance.At(r, c) =
          std::abs(value) * (relative + 1.01 * UnitRoundoff(out)) + kFlushed;
    }
  }
  return expected;
}

Expected ReferenceSiluMul(const Matrix& gate, const Matrix& up, DType out) {
  Expected expected(gate.rows, gate.columns);
  for (int64_t r = 0; r < gate.rows; ++r) {
    for (int64_t c = 0; c < gate.columns; ++c) {
      const double g = gate.At(r, c);
      const double value = g / (1 + std::exp(-g)) * up.At(r, c);
      expected.value.At(r, c) = value;
      // exp to 2 ulp (4 roundoffs), an addition, a division, a product.
      expected.tolerance.At(r, c) =
          std::abs(value) * (7 * kF32Roundoff + 1.01 * UnitRoundoff(out)) +
          kFlushed * (1 + std::abs(up.At(r, c)));
    }
  }
  return expected;
}

Expected ReferenceRope(const Matrix& x, std::span<const int64_t> positions,
                       int64_t head_dim, double theta, DType out) {
  Expected expected(x.rows, x.columns);
  const int64_t half = head_dim / 2;
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.columns; ++c) {
      const int64_t d = c % head_dim, i = d % half;
      const double angle =
          static_cast<double>(positions[static_cast<size_t>(r)]) *
          std::pow(theta, -2.0 * static_cast<double>(i) /
                              static_cast<double>(head_dim));
      const double a = x.At(r, c - d + i), b = x.At(r, c - d + half + i);
      const double value = d < half ? a * std::cos(angle) - b * std::sin(angle)
                                    : b * std::cos(angle) + a * std::sin(angle);
      expected.value.At(r, c) = value;
      expected.tolerance.At(r, c) =
          (std::abs(a) + std::abs(b)) * 3 * kF32Roundoff +
          std::abs(value) * 1.01 * UnitRoundoff(out) + kFlushed;
    }
  }
  return expected;
}

Matrix ReferenceSoftmax(const Matrix& logits) {
  Matrix p(logits.rows, logits.columns);
  for (int64_t r = 0; r < logits.rows; ++r) {
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t c = 0; c < logits.columns; ++c) {
      max = std::max(max, logits.At(r, c));
    }
    for (int64_t c = 0; c < logits.columns; ++c) {
      sum += p.At(r, c) = std::exp(logits.At(r, c) - max);
    }
    for (int64_t c = 0; c < logits.columns; ++c) p.At(r, c) /= sum;
  }
  return p;
}

void AttentionOracle::Attend(std::span<const double> q, const Matrix& keys,
                             const Matrix& values, int64_t begin, int64_t end,
                             int64_t row, int64_t column,
                             Expected& expected) const {
  std::vector<double> scores;
  double max = -std::numeric_limits<double>::infinity();
  double score_error = 0;
  for (int64_t p = begin; p < end; ++p) {
    double sum = 0, magnitude = 0;
    for (int64_t d = 0; d < head_dim; ++d) {
      sum += q[static_cast<size_t>(d)] * keys.At(p, d);
      magnitude += std::abs(q[static_cast<size_t>(d)] * keys.At(p, d));
    }
    scores.push_back(sum * scale);
    max = std::max(max, scores.back());
    score_error =
        std::max(score_error, scale * magnitude * kF32Roundoff *
                                  (static_cast<double>(head_dim) / 16 + 8));
  }
  double total = 0;
  for (double& s : scores) total += s = std::exp(s - max);
  // Every weight p / total is off by its own and the total's score error, the
  // exponentials, the sums over a split and the joins of splits, and by the
  // rounding of P.
  const double num_splits = static_cast<double>((end - begin) / 256 + 2);
  const double relative = std::expm1(2 * score_error) +
                          (64 + 8 * num_splits) * kF32Roundoff +
                          1.01 * UnitRoundoff(dtype);
  for (int64_t d = 0; d < head_dim; ++d) {
    double sum = 0, magnitude = 0;
    for (int64_t p = begin; p < end; ++p) {
      const double weight = scores[static_cast<size_t>(p - begin)] / total;
      sum += weight * values.At(p, d);
      magnitude += std::abs(weight * values.At(p, d));
    }
    expected.value.At(row, column + d) = sum;
    expected.tolerance.At(row, column + d) =
        magnitude * relative + std::abs(sum) * 1.01 * UnitRoundoff(dtype) +
        1e-30;
  }
}

}  // namespace witan
