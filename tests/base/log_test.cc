#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/limits.h"

namespace witan {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

class FakeClock : public Clock {
 public:
  Micros Now() const override { return now; }
  Micros now = 0;
};

class LogTest : public testing::Test {
 protected:
  Logger MakeLogger(LogFormat format) {
    return Logger(
        format, LogLevel::kInfo,
        [this](std::string_view line) { lines_.emplace_back(line); },
        [] { return int64_t{1'767'268'800'000'001}; }, clock_);
  }

  FakeClock clock_;
  std::vector<std::string> lines_;
};

TEST_F(LogTest, JsonLinesParseWhateverTheFieldsHold) {
  Logger log = MakeLogger(LogFormat::kJson);
  log.Log(LogLevel::kInfo, "a \"message\"",
          {{"text", std::string("quote\" back\\ line\n bad\xff nul\0x", 26)},
           {"number", -5},
           {"large", std::numeric_limits<uint64_t>::max()},
           {"real", 0.5},
           {"nan", std::numeric_limits<double>::quiet_NaN()},
           {"flag", true}});
  ASSERT_THAT(lines_, SizeIs(1));
  EXPECT_EQ(lines_[0].back(), '\n');
  const auto json = nlohmann::json::parse(lines_[0]);
  EXPECT_EQ(json["time"], "2026-01-01T12:00:00.000001Z");
  EXPECT_EQ(json["level"], "info");
  EXPECT_EQ(json["message"], "a \"message\"");
  EXPECT_EQ(json["text"],
            std::string("quote\" back\\ line\n bad\xEF\xBF\xBD nul\0x", 28));
  EXPECT_EQ(json["number"], -5);
  EXPECT_EQ(json["large"], std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(json["real"], 0.5);
  EXPECT_EQ(json["nan"], "nan");
  EXPECT_EQ(json["flag"], true);
}

TEST_F(LogTest, TextLinesAreOneLineEach) {
  Logger log = MakeLogger(LogFormat::kText);
  log.Log(LogLevel::kWarning, "worker lost",
          {{"rank", 1}, {"reason", "closed\nby peer"}, {"host", "node1"}});
  ASSERT_THAT(lines_, SizeIs(1));
  EXPECT_EQ(lines_[0],
            "12:00:00.000 warning worker lost  rank=1  "
            "reason=\"closed\\u000aby peer\"  host=node1\n");
}

TEST_F(LogTest, LevelsBelowTheMinimumAreSilent) {
  Logger log = MakeLogger(LogFormat::kText);
  log.Log(LogLevel::kDebug, "x", {});
  EXPECT_THAT(lines_, SizeIs(0));
  log.set_min_level(LogLevel::kDebug);
  log.Log(LogLevel::kDebug, "x", {});
  EXPECT_THAT(lines_, SizeIs(1));
}

TEST_F(LogTest, AFloodIsCutAndCountedButErrorsPass) {
  Logger log = MakeLogger(LogFormat::kText);
  for (int i = 0; i < kMaxLogLinesPerSecond + 7; ++i) {
    log.Log(LogLevel::kInfo, "x", {});
  }
  EXPECT_THAT(lines_, SizeIs(kMaxLogLinesPerSecond));
  clock_.now = kMicrosPerSecond;
  log.Log(LogLevel::kInfo, "y", {});
  ASSERT_THAT(lines_, SizeIs(kMaxLogLinesPerSecond + 2));
  EXPECT_THAT(lines_[kMaxLogLinesPerSecond], HasSubstr("dropped_lines=7"));
  for (int i = 0; i < kMaxLogLinesPerSecond; ++i) {
    log.Log(LogLevel::kInfo, "x", {});
  }
  lines_.clear();
  log.Log(LogLevel::kError, "disk full", {});
  EXPECT_THAT(lines_.back(), HasSubstr("disk full"));
}

}  // namespace
}  // namespace witan
