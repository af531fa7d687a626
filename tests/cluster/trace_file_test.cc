#include "coordinator/cluster/trace_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/file.h"
#include "base/status.h"
#include "tests/testing/temp_directory.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMaxBytes = 1 << 20;

TEST(TraceFileTest, ATraceReplacesAnEarlierTraceAndWhatIsEmpty) {
  const TempDirectory directory;
  const std::string path = directory.Write("trace.json", "");
  ASSERT_TRUE(TraceFile::Create(path, 3).ok());
  const std::string three = ReadFile(path, kMaxBytes).value();
  ASSERT_TRUE(TraceFile::Create(path, 1).ok());
  const std::string one = ReadFile(path, kMaxBytes).value();
  EXPECT_LT(one.size(), three.size());
  EXPECT_TRUE(nlohmann::json::accept(one));
  // A process that was killed leaves no end.
  directory.Write("trace.json", three.substr(0, three.size() / 2));
  EXPECT_TRUE(TraceFile::Create(path, 1).ok());
}

TEST(TraceFileTest, WhatIsNoTraceOfOursIsNotOverwritten) {
  const TempDirectory directory;
  for (const std::string text :
       {"{\"timestamp\": 0, \"input_length\": 8, \"output_length\": 2}\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n", "[", "[\n{\"ph\":1}]\n"}) {
    const std::string path = directory.Write("trace.jsonl", text);
    const auto trace = TraceFile::Create(path, 1);
    EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(MessageOf(trace.status())),
                AllOf(HasSubstr("--trace " + path + ":"),
                      HasSubstr("name another file, or remove this one")));
    EXPECT_EQ(ReadFile(path, kMaxBytes).value(), text);
  }
}

TEST(TraceFileTest, ADeviceIsNotRead) {
  EXPECT_TRUE(TraceFile::Create("/dev/null", 1).ok());
}

}  // namespace
}  // namespace witan
