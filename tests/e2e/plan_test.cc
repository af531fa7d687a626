// `witan plan` as a program: its output, and its exit codes for scripts.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/config.h"
#include "tests/e2e/local_cluster.h"
#include "tests/testing/published_configs.h"
#include "tests/testing/temp_directory.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

class PlanProgramTest : public ::testing::Test {
 protected:
  PlanProgramTest() {
    directory_.Write("config.json",
                     FindPublishedModel("Mixtral-8x7B-v0.1").config_json);
  }

  auto Plan(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"plan", directory_.path()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunBinary("witan", arguments);
  }

  const TempDirectory directory_;
};

TEST_F(PlanProgramTest, PrintsATableOrOneJsonObject) {
  const auto text = Plan({"--gpus=2", "--gpu-memory=80GiB"});
  EXPECT_EQ(text.exit_code, kExitOk) << text.err;
  EXPECT_THAT(text.out, HasSubstr("* tp=2 ep=2 replicas=1: 14 requests"));
  const auto json =
      Plan({"--gpus=2", "--gpu-memory=80GiB", "--tp=2", "--json"});
  EXPECT_EQ(json.exit_code, kExitOk) << json.err;
  const auto object = nlohmann::json::parse(json.out, nullptr, false);
  ASSERT_TRUE(object.is_object()) << json.out;
  ASSERT_EQ(object["layouts"].size(), 2u);
  EXPECT_EQ(object["layouts"][1]["num_requests"], 14);
}

TEST_F(PlanProgramTest, ExitCodesTellUsageModelAndResourcesApart) {
  EXPECT_EQ(Plan({"--gpus=0", "--gpu-memory=80GiB"}).exit_code, kExitUsage);
  EXPECT_EQ(Plan({"--gpus=2", "--gpu-memory=0"}).exit_code, kExitUsage);
  EXPECT_EQ(Plan({"--gpus=2"}).exit_code, kExitUsage);
  EXPECT_EQ(RunBinary("witan", {"plan", directory_.path() + "/none", "--gpus=2",
                                "--gpu-memory=80GiB"})
                .exit_code,
            kExitModel);
  const auto small = Plan({"--gpus=1", "--gpu-memory=80GiB"});
  EXPECT_EQ(small.exit_code, kExitResources);
  EXPECT_THAT(small.out, HasSubstr("num_parameters         46702792704"));
  EXPECT_THAT(small.err, HasSubstr("or 2 GPUs of this memory"));
}

}  // namespace
}  // namespace witan
