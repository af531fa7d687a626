#include "model/gguf_quants.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "tests/testing/half.h"
#include "tests/testing/test_paths.h"

namespace witan {
namespace {

class QuantsTest : public testing::TestWithParam<GgmlType> {};

// The golden's blocks have ordinary, negative, subnormal and zero scales.
TEST_P(QuantsTest, NumbersAreThoseOfGgufPy) {
  const GgmlTypeTraits& traits = TraitsOf(GetParam());
  const auto goldens =
      Checkpoint::OpenFile(SourcePath("tests/goldens/gguf/quants.safetensors"));
  ASSERT_TRUE(goldens.ok()) << goldens.status();
  const std::string name(traits.name);
  const MappedTensor* blocks = (*goldens)->Find(name + ".blocks");
  const MappedTensor* numbers = (*goldens)->Find(name + ".numbers");
  ASSERT_TRUE(blocks != nullptr && numbers != nullptr) << name;
  const auto num_blocks =
      static_cast<int64_t>(blocks->data.size()) / traits.block_bytes;
  ASSERT_EQ(num_blocks, 4);
  std::vector<float> expected(numbers->data.size() / sizeof(float));
  std::memcpy(expected.data(), numbers->data.data(), numbers->data.size());
  ASSERT_EQ(static_cast<int64_t>(expected.size()),
            num_blocks * traits.block_elements);
  // One element more, and the blocks at an odd address.
  std::vector<float> out(expected.size() + 1, 17);
  std::vector<std::byte> odd(blocks->data.size() + 1);
  std::memcpy(odd.data() + 1, blocks->data.data(), blocks->data.size());
  DequantizeBlocks(GetParam(), odd.data() + 1, num_blocks, out.data());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(out[i], expected[i]) << i;
  }
  EXPECT_EQ(out.back(), 17);
}

INSTANTIATE_TEST_SUITE_P(All, QuantsTest,
                         testing::Values(GgmlType::kQ4_0, GgmlType::kQ4_1,
                                         GgmlType::kQ5_0, GgmlType::kQ5_1,
                                         GgmlType::kQ8_0, GgmlType::kQ2_K,
                                         GgmlType::kQ3_K, GgmlType::kQ4_K,
                                         GgmlType::kQ5_K, GgmlType::kQ6_K),
                         [](const auto& info) {
                           return std::string(TraitsOf(info.param).name);
                         });

uint16_t Rounded(DType dtype, float value) {
  std::byte out[2];
  RoundTo(dtype, &value, 1, out);
  uint16_t bits = 0;
  std::memcpy(&bits, out, sizeof(bits));
  return bits;
}

float Widened(GgmlType type, uint16_t bits) {
  float out = 0;
  DequantizeBlocks(type, reinterpret_cast<const std::byte*>(&bits), 1, &out);
  return out;
}

// The error is the least that a neighbour could have.
void ExpectNearestBFloat16(float value) {
  const uint16_t bits = Rounded(DType::kBF16, value);
  const double error = std::abs(double{Widened(GgmlType::kBF16, bits)} - value);
  for (const int step : {1, -1}) {
    const float neighbour =
        Widened(GgmlType::kBF16, static_cast<uint16_t>(bits + step));
    if (!std::isfinite(neighbour) ||
        std::signbit(neighbour) != std::signbit(value)) {
      continue;
    }
    const double other_error = std::abs(double{neighbour} - value);
    EXPECT_TRUE(error < other_error || (error == other_error && bits % 2 == 0))
        << value << " became " << bits;
  }
}

TEST(RoundToTest, IsToTheNearestTiesToEven) {
  std::mt19937 random(3);
  for (int i = 0; i < 200000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isfinite(value) || value == 0) continue;
    if (std::abs(value) < 3.3e38F) ExpectNearestBFloat16(value);
    // Of the size of halves, subnormal ones too, and often half-way.
    float half = std::ldexp(
        value, static_cast<int>(random() % 44) - 27 - std::ilogb(value));
    if (i % 2 == 0) {
      half = std::bit_cast<float>(std::bit_cast<uint32_t>(half) & ~0xfffU);
    }
    EXPECT_EQ(Rounded(DType::kF16, half), HalfOf(half)) << half;
  }
}

TEST(RoundToTest, EveryHalfAndBFloat16StaysItself) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float as_half = Widened(GgmlType::kF16, half);
    const float as_bfloat16 = Widened(GgmlType::kBF16, half);
    if (std::isnan(as_half)) {
      EXPECT_TRUE(
          std::isnan(Widened(GgmlType::kF16, Rounded(DType::kF16, as_half))));
    } else {
      EXPECT_EQ(as_half, FloatOfHalf(half));
      EXPECT_EQ(Rounded(DType::kF16, as_half), half);
    }
    if (std::isnan(as_bfloat16)) {
      EXPECT_TRUE(std::isnan(
          Widened(GgmlType::kBF16, Rounded(DType::kBF16, as_bfloat16))));
    } else {
      EXPECT_EQ(Rounded(DType::kBF16, as_bfloat16), half);
    }
  }
}

TEST(RoundToTest, WhatIsTooLargeIsInfinite) {
  EXPECT_EQ(Rounded(DType::kF16, 65519.0F), 0x7bff);
  EXPECT_EQ(Rounded(DType::kF16, 65520.0F), 0x7c00);
  EXPECT_EQ(Rounded(DType::kF16, -1e30F), 0xfc00);
  EXPECT_EQ(Rounded(DType::kBF16, std::numeric_limits<float>::max()), 0x7f80);
}

}  // namespace
}  // namespace witan
