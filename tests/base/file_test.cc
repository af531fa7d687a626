#include "base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "tests/testing/temp_directory.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

TEST(FileTest, ReadsTheWholeFileWithItsZeroBytes) {
  const TempDirectory directory;
  const std::string content("a\0b\n", 4);
  EXPECT_EQ(ReadFile(directory.Write("file", content), 4).value(), content);
  EXPECT_EQ(ReadFile(directory.Write("empty", ""), 0).value(), "");
}

TEST(FileTest, RefusesAFileAboveTheLimitAndNamesBoth) {
  const TempDirectory directory;
  const std::string path = directory.Write("file", "12345");
  for (const auto read : {ReadFile, ReadFileOrEmpty}) {
    const absl::Status status = read(path, 4).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(MessageOf(status)),
                HasSubstr("has 5 bytes; at most 4"));
  }
}

TEST(FileTest, NamesAMissingFileAndRefusesADirectory) {
  const absl::Status missing = ReadFile("/nonexistent/file", 10).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(MessageOf(missing)), HasSubstr("/nonexistent/file"));
  const TempDirectory directory;
  EXPECT_EQ(ReadFile(directory.path(), 10).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(FileTest, AMissingFileMayCountAsEmpty) {
  const TempDirectory directory;
  EXPECT_EQ(ReadFileOrEmpty(directory.path() + "/none", 10).value(), "");
  EXPECT_EQ(ReadFileOrEmpty(directory.Write("file", "ab"), 10).value(), "ab");
  EXPECT_FALSE(ReadFileOrEmpty(directory.path(), 10).ok());
}

}  // namespace
}  // namespace witan
