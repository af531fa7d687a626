// `witan plan`: what is read, refused and printed. The numbers themselves are
// tested in tests/model/layout_plan_test.cc.

#include "cli/plan.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "tests/testing/published_configs.h"
#include "tests/testing/temp_directory.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kMixtral[] = "Mixtral-8x7B-v0.1";

PlanOptions Options(int64_t num_gpus, const std::string& gpu_memory) {
  PlanOptions options;
  options.model = "mixtral";
  options.num_gpus = num_gpus;
  options.gpu_memory = gpu_memory;
  return options;
}

absl::StatusOr<PlanReport> ReportOf(const PlanOptions& options,
                                    const char* model = kMixtral) {
  return MakePlanReport(options, PublishedConfig(model));
}

std::string Refusal(const PlanOptions& options) {
  const auto report = ReportOf(options);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(MessageOf(report.status()));
}

// --- Options ----------------------------------------------------------------

TEST(PlanMemoryTest, SizesHaveAUnitAndAreGibWithoutOne) {
  const int64_t gib = int64_t{1} << 30;
  for (const auto& [text, bytes] :
       {std::pair("80GiB", 80 * gib), std::pair("80 GiB", 80 * gib),
        std::pair("80", 80 * gib), std::pair("1.5", gib * 3 / 2),
        std::pair("81920MiB", 80 * gib), std::pair("1TiB", 1024 * gib),
        std::pair("80GB", int64_t{80'000'000'000}),
        std::pair("500 MB", int64_t{500'000'000}),
        std::pair("2TB", int64_t{2'000'000'000'000}),
        std::pair("1048576GiB", kMaxMemoryBytes)}) {
    const auto size = ParseMemorySize(text);
    ASSERT_TRUE(size.ok()) << size.status();
    EXPECT_EQ(*size, bytes) << text;
  }
}

TEST(PlanMemoryTest, WhatIsNoSizeIsQuotedWithTheUnits) {
  for (const char* text : {"", "GiB", "eighty", "80gib", "80GiBs", "80  GiB",
                           "80G", "0x50", "80,5", " 80", "1e999"}) {
    const auto size = ParseMemorySize(text);
    EXPECT_EQ(size.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(size.status().ToString(),
                AllOf(HasSubstr(fmt::format("\"{}\"", text)),
                      HasSubstr("as in 80GiB")));
  }
  for (const char* text :
       {"0", "-80GiB", "1e-12", "1048577GiB", "1e300TB", "nan", "inf"}) {
    EXPECT_THAT(ParseMemorySize(text).status().ToString(),
                AllOf(HasSubstr(fmt::format("\"{}\"", text)),
                      HasSubstr("more than 0 and at most 1048576 GiB")));
  }
}

TEST(PlanOptionsTest, NumbersOutOfRangeAreNamedWithTheirOption) {
  const int64_t most = std::numeric_limits<int64_t>::max();
  for (const int64_t num_gpus : {int64_t{0}, int64_t{-1}, int64_t{257}, most}) {
    EXPECT_EQ(Refusal(Options(num_gpus, "80GiB")),
              fmt::format("--gpus is {}; allowed is 1 to 256", num_gpus));
  }
  for (const int64_t context :
       {int64_t{0}, int64_t{-5}, int64_t{32769}, most}) {
    PlanOptions options = Options(2, "80GiB");
    options.context_tokens = context;
    EXPECT_EQ(Refusal(options),
              fmt::format("--context is {}; allowed is 1 to 32768", context));
  }
  PlanOptions options = Options(2, "80GiB");
  options.max_step_tokens = kMaxStepTokens + 1;
  EXPECT_THAT(Refusal(options), HasSubstr("--max-step-tokens is 16385"));
  EXPECT_THAT(Refusal(Options(2, "lots")), HasSubstr("--gpu-memory: \"lots\""));
}

TEST(PlanOptionsTest, LayoutsThatDoNotFitTheGpusSayWhatWould) {
  PlanOptions options = Options(4, "80GiB");
  options.tp = 8;
  EXPECT_THAT(Refusal(options), HasSubstr("use at least 8 GPUs"));
  options.tp = 16;
  EXPECT_THAT(Refusal(options), HasSubstr("tp=16 is out of range; use 1 to 8"));
  options.tp = std::nullopt;
  options.ep = 2;
  const auto dense = ReportOf(options, "Meta-Llama-3-8B");
  EXPECT_THAT(dense.status().ToString(), HasSubstr("use ep=1"));
}

TEST(PlanOptionsTest, ACostNeedsAPriceAndARate) {
  PlanOptions options = Options(2, "80GiB");
  options.gpu_hour_price = 2.5;
  EXPECT_THAT(Refusal(options), HasSubstr("needs --tokens-per-second"));
  options.gpu_hour_price = std::nullopt;
  options.tokens_per_second = 1000;
  EXPECT_THAT(Refusal(options), HasSubstr("needs --gpu-hour-price"));
  for (const double value :
       {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    options.gpu_hour_price = value;
    options.tokens_per_second = 1000;
    EXPECT_THAT(Refusal(options), HasSubstr("--gpu-hour-price is "));
    options.gpu_hour_price = 2.5;
    options.tokens_per_second = value;
    EXPECT_THAT(Refusal(options), HasSubstr("--tokens-per-second is "));
  }
}

// --- The model --------------------------------------------------------------

TEST(PlannedModelTest, IsADirectoryOrItsConfigAndNothingElseIsRead) {
  const TempDirectory directory;
  const std::string file =
      directory.Write("config.json", FindPublishedModel(kMixtral).config_json);
  for (const std::string& model : {directory.path(), file}) {
    const auto config = ReadPlannedModel(model);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(*config, PublishedConfig(kMixtral));
  }
}

TEST(PlannedModelTest, WhatIsNoModelIsNamedWithWhatOneIs) {
  const TempDirectory directory;
  const std::string gguf = directory.Write(
      "model.gguf", std::string("GGUF\3\0\0\0", 8) + std::string(1000, '\0'));
  const std::string large = directory.Write(
      "large.gguf", "GGUF" + std::string(kMaxConfigFileBytes, '\0'));
  const std::string missing = directory.path() + "/missing";
  for (const std::string& model : {directory.path(), gguf, large, missing,
                                   std::string(), std::string("/dev/null")}) {
    const auto config = ReadPlannedModel(model);
    ASSERT_FALSE(config.ok()) << model;
    EXPECT_THAT(config.status().ToString(),
                AllOf(HasSubstr(model), HasSubstr("a config.json")));
  }
}

// --- What is printed --------------------------------------------------------

TEST(PlanReportTest, JsonHasARowPerLayoutWithIntegersOnly) {
  const auto report = ReportOf(Options(2, "80GiB"));
  ASSERT_TRUE(report.ok()) << report.status();
  const auto json = nlohmann::json::parse(ToJson(*report).dump());
  EXPECT_EQ(json["num_parameters"], 46'702'792'704);
  EXPECT_EQ(json["num_active_parameters"], 12'879'925'248);
  EXPECT_EQ(json["gpu_memory_bytes"], int64_t{80} << 30);
  EXPECT_EQ(json["usable_bytes"], int64_t{72} << 30);
  EXPECT_EQ(json["context_tokens"], 32768);
  ASSERT_EQ(json["layouts"].size(), 4u);  // tp, ep of 1 and 2
  for (const auto& layout : json["layouts"]) {
    for (const auto& [name, value] : layout.items()) {
      EXPECT_TRUE(value.is_number_integer() || value.is_boolean()) << name;
    }
    EXPECT_EQ(layout["bytes_per_rank"].get<int64_t>(),
              layout["weights_bytes"].get<int64_t>() +
                  layout["kv_bytes"].get<int64_t>() +
                  layout["workspace_bytes"].get<int64_t>() +
                  layout["communication_bytes"].get<int64_t>());
  }
  const auto& best = json["layouts"][3];
  EXPECT_EQ(best["tp"], 2);
  EXPECT_EQ(best["ep"], 2);
  EXPECT_EQ(best["num_ranks"], 2);
  EXPECT_EQ(best["num_replicas"], 1);
  EXPECT_EQ(best["weights_bytes"], 46'835'179'520);
  EXPECT_EQ(best["kv_bytes_per_token"], 65536);
  EXPECT_EQ(best["num_kv_blocks"], 14403);
  EXPECT_EQ(best["num_requests"], 14);
  EXPECT_EQ(best["total_requests"], 14);
  EXPECT_EQ(best["best"], true);
  EXPECT_EQ(json["layouts"][1]["best"], false);
  EXPECT_EQ(json["layouts"][0]["fits"], false);
  EXPECT_FALSE(json.contains("cost_per_million_tokens"));
}

TEST(PlanReportTest, TextMarksTheBestLayoutAndSaysWhy) {
  const auto report = ReportOf(Options(2, "80GiB"));
  ASSERT_TRUE(report.ok()) << report.status();
  const std::string text = ToText(*report);
  EXPECT_THAT(text, AllOf(HasSubstr("num_parameters         46702792704\n"),
                          HasSubstr("num_active_parameters  12879925248\n"),
                          HasSubstr("2 GPUs of 80.00 GiB, of which 72.00"),
                          HasSubstr("of 32768 tokens, KV cache in bfloat16"),
                          HasSubstr("\n*  2  2 "), Not(HasSubstr("\n*  1")),
                          HasSubstr("* tp=2 ep=2 replicas=1: 14 requests"),
                          Not(HasSubstr("per million tokens"))));
  EXPECT_TRUE(CheckFits(*report).ok());
}

TEST(PlanReportTest, CostIsShownWhenAskedFor) {
  PlanOptions options = Options(2, "80GiB");
  options.gpu_hour_price = 1.8;
  options.tokens_per_second = 500;
  const auto report = ReportOf(options);
  ASSERT_TRUE(report.ok()) << report.status();
  // 2000 s of two GPUs are 4000 s at 0.0005 each.
  EXPECT_DOUBLE_EQ(ToJson(*report)["cost_per_million_tokens"].get<double>(), 2);
  EXPECT_THAT(ToText(*report),
              HasSubstr("2 per million tokens: 2 GPUs at 1.8 an hour, 500 "
                        "tokens per second\n"));
}

TEST(PlanReportTest, NothingThatFitsNamesTheLeastThatWould) {
  const auto message = [](const PlanOptions& options, const char* model) {
    const auto report = ReportOf(options, model);
    EXPECT_TRUE(report.ok()) << report.status();
    EXPECT_THAT(ToText(*report), Not(HasSubstr("*")));
    const absl::Status status = CheckFits(*report);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    return std::string(MessageOf(status));
  };
  EXPECT_THAT(message(Options(1, "80GiB"), kMixtral),
              AllOf(HasSubstr("no layout of mixtral fits on 1 GPU of 80.00 "
                              "GiB with a request of 32768 tokens"),
                    HasSubstr(", or 2 GPUs of this memory"),
                    Not(HasSubstr("--context"))));
  EXPECT_THAT(message(Options(1, "98GiB"), kMixtral),
              HasSubstr("2 GPUs of this memory, --context "));
  // More GPUs do not help where tp ends.
  EXPECT_THAT(message(Options(8, "80GiB"), "Llama-3.1-405B"),
              Not(HasSubstr(", or ")));
}

}  // namespace
}  // namespace witan
