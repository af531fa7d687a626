#include "base/bounds.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "base/status.h"

namespace witan {
namespace {

std::string Message(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(MessageOf(status));
}

TEST(BoundsTest, TheEndsOfARangeAreInIt) {
  EXPECT_TRUE(CheckRange("x", 1, 1, 3).ok());
  EXPECT_TRUE(CheckRange("x", 3, 1, 3).ok());
  EXPECT_EQ(Message(CheckRange("x", 0, 1, 3)), "x is 0; allowed is 1 to 3");
  EXPECT_EQ(Message(CheckRange("x", 4, 1, 3)), "x is 4; allowed is 1 to 3");
  EXPECT_TRUE(CheckReal("x", 0.5f, 0.5, 100).ok());
  EXPECT_TRUE(CheckReal("x", 100, 0.5, 100).ok());
  EXPECT_EQ(Message(CheckReal("x", 0.25f, 1e-6f, 0.125)),
            "x is 0.25; allowed is 1e-06 to 0.125");
}

TEST(BoundsTest, NotANumberIsInNoRange) {
  EXPECT_EQ(
      Message(CheckReal("x", std::numeric_limits<float>::quiet_NaN(), -1, 1)),
      "x is nan; allowed is -1 to 1");
}

TEST(BoundsTest, CountsAndSizesHaveAMostOnly) {
  EXPECT_TRUE(CheckCount("x", 0, 2).ok());
  EXPECT_TRUE(CheckCount("x", 2, 2).ok());
  EXPECT_EQ(Message(CheckCount("x", 3, 2)),
            "x has 3 entries; at most 2 are allowed");
  EXPECT_TRUE(CheckSize("x", 2, 2).ok());
  EXPECT_EQ(Message(CheckSize("x", 3, 2)),
            "x has 3 bytes; at most 2 are allowed");
}

}  // namespace
}  // namespace witan
