#include "base/file.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "base/status.h"

namespace witan {
namespace {

std::string TempFile(const std::string& content) {
  const std::string path = ::testing::TempDir() + "file_test.bin";
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

TEST(FileTest, ReadsTheWholeFileWithItsZeroBytes) {
  const std::string content("a\0b\n", 4);
  EXPECT_EQ(ReadFile(TempFile(content), 4).value(), content);
  EXPECT_EQ(ReadFile(TempFile(""), 0).value(), "");
}

TEST(FileTest, RefusesAFileAboveTheLimitAndNamesBoth) {
  const absl::Status status = ReadFile(TempFile("12345"), 4).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(MessageOf(status).find("has 5 bytes; at most 4"),
            std::string_view::npos)
      << status;
}

TEST(FileTest, NamesAMissingFileAndRefusesADirectory) {
  const absl::Status missing = ReadFile("/nonexistent/file", 10).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(MessageOf(missing).find("/nonexistent/file"),
            std::string_view::npos);
  EXPECT_EQ(ReadFile(::testing::TempDir(), 10).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace witan
