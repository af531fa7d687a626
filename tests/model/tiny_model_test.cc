#include "tests/testing/tiny_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "model/checkpoint.h"
#include "model/families.h"
#include "tests/testing/half.h"

namespace witan {
namespace {

float ElementOf(const MappedTensor& tensor, size_t i) {
  const std::byte* at = tensor.data.data() + i * SizeOf(tensor.dtype);
  if (tensor.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, at, 4);
    return value;
  }
  if (tensor.dtype == DType::kF16) {
    uint16_t half;
    std::memcpy(&half, at, 2);
    return FloatOfHalf(half);
  }
  uint16_t high;
  std::memcpy(&high, at, 2);
  const uint32_t bits = uint32_t{high} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

TEST(TinyModelTest, IsACompleteModelInEveryDTypeAndNumberOfFiles) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const bool tied : {false, true}) {
      for (const int num_shards : {1, 3}) {
        TinyModelOptions options;
        options.config.weights = dtype;
        options.config.tie_word_embeddings = tied;
        options.num_shards = num_shards;
        const TinyModel model(options);
        const auto config = ReadModelConfig(model.directory());
        ASSERT_TRUE(config.ok()) << config.status();
        EXPECT_EQ(*config, options.config);
        const auto checkpoint = Checkpoint::Open(model.directory());
        ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
        EXPECT_EQ((*checkpoint)->files().size(),
                  static_cast<size_t>(num_shards));
        EXPECT_TRUE(CheckCheckpoint(*config, **checkpoint).ok())
            << CheckCheckpoint(*config, **checkpoint);
      }
    }
  }
}

TEST(TinyModelTest, WeightsHaveTheScaleOfLivelyLogits) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    TinyModelOptions options;
    options.config.weights = dtype;
    const TinyModel model(options);
    const auto checkpoint = Checkpoint::Open(model.directory());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const MappedTensor* head = (*checkpoint)->Find("lm_head.weight");
    ASSERT_NE(head, nullptr);
    double sum_of_squares = 0;
    const size_t num_elements = head->data.size() / SizeOf(dtype);
    for (size_t i = 0; i < num_elements; ++i) {
      sum_of_squares += std::pow(ElementOf(*head, i), 2);
    }
    // Rows of 64 columns times a normed row: a deviation of 2 per logit. With
    // 20480 elements the estimate is within 3 % (6 sigma).
    const double mean_square =
        sum_of_squares / static_cast<double>(num_elements);
    EXPECT_NEAR(std::sqrt(mean_square * 64), 2.0, 0.06);
  }
}

TEST(TinyModelTest, EqualSeedsGiveEqualFilesAndOthersDoNot) {
  const auto head_of = [](uint64_t seed) {
    TinyModelOptions options;
    options.seed = seed;
    const TinyModel model(options);
    const auto checkpoint = Checkpoint::Open(model.directory());
    const auto data = (*checkpoint)->Find("lm_head.weight")->data;
    return std::string(reinterpret_cast<const char*>(data.data()), data.size());
  };
  EXPECT_EQ(head_of(7), head_of(7));
  EXPECT_NE(head_of(7), head_of(8));
}

}  // namespace
}  // namespace witan
