#include "base/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "tests/testing/temp_directory.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// A program with options of every kind.
class ConfigTest : public testing::Test {
 protected:
  absl::StatusOr<std::string> Parse(std::vector<std::string> arguments) {
    CLI::App app("test", "witan-test");
    app.set_version_flag("--version", "witan-test 1");
    app.add_option("MODEL", model_)->required();
    app.add_option("--metrics-port", port_)->check(CLI::Range(0, 65535));
    app.add_option("--names", names_);
    app.add_option("--text", text_);
    app.add_option("--seed", seed_);
    app.add_option("--count", count_);
    app.add_option("--scale", scale_);
    app.add_flag("--verbose,!--no-verbose", verbose_);
    app.add_option("--out", out_, "Where to")->configurable(false);
    return ParseOptions(
        app, std::move(arguments), [this](const std::string& name) {
          const auto found = environment_.find(name);
          return found == environment_.end() ? std::nullopt
                                             : std::optional(found->second);
        });
  }

  std::string ErrorOf(std::vector<std::string> arguments) {
    const auto result = Parse(std::move(arguments));
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(MessageOf(result.status()));
  }

  std::string WriteToml(const std::string& text) {
    return directory_.Write("witan.toml", text);
  }

  TempDirectory directory_;
  std::map<std::string, std::string> environment_;
  std::string model_;
  int port_ = 1;
  std::vector<std::string> names_;
  std::optional<std::string> text_;
  std::optional<uint64_t> seed_;
  int64_t count_ = 0;
  std::optional<float> scale_;
  bool verbose_ = false;
  std::string out_;
};

TEST_F(ConfigTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  ASSERT_TRUE(Parse({"m"}).ok());
  EXPECT_EQ(port_, 1);
  const std::string file = WriteToml("metrics-port = 2\n");
  ASSERT_TRUE(Parse({"m", "--config", file}).ok());
  EXPECT_EQ(port_, 2);
  environment_["WITAN_METRICS_PORT"] = "3";
  ASSERT_TRUE(Parse({"m", "--config", file}).ok());
  EXPECT_EQ(port_, 3);
  ASSERT_TRUE(Parse({"m", "--config", file, "--metrics-port", "4"}).ok());
  EXPECT_EQ(port_, 4);
}

TEST_F(ConfigTest, AFileMayHoldEveryOptionAndSpellItWithUnderscores) {
  const std::string file = WriteToml(
      "model = \"from-file\"\n"
      "metrics_port = 9\n"
      "names = [\"a\", \"b\"]\n"
      "verbose = true\n");
  const auto result = Parse({"--config", file});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(model_, "from-file");
  EXPECT_EQ(port_, 9);
  EXPECT_THAT(names_, ElementsAre("a", "b"));
  EXPECT_TRUE(verbose_);
}

TEST_F(ConfigTest, WhatIsAFlagOnlyComesFromNowhereElse) {
  environment_["WITAN_OUT"] = "a";
  ASSERT_TRUE(Parse({"m"}).ok());
  EXPECT_EQ(out_, "");
  ASSERT_TRUE(Parse({"m", "--out", "b"}).ok());
  EXPECT_EQ(out_, "b");
  EXPECT_THAT(ErrorOf({"m", "--config", WriteToml("out = \"c\"\n")}),
              HasSubstr("witan.toml:1: \"out\" is only a flag; give --out on "
                        "the command line"));
  EXPECT_THAT(*Parse({"--help"}), AllOf(HasSubstr("Where to [flag only]"),
                                        Not(HasSubstr("WITAN_OUT"))));
  EXPECT_THAT(ErrorOf({"m", "--ou=x"}), HasSubstr("unknown option --ou"));
}

TEST_F(ConfigTest, TheFileMayBeNamedByTheEnvironment) {
  environment_["WITAN_CONFIG"] = WriteToml("metrics-port = 5\n");
  ASSERT_TRUE(Parse({"m"}).ok());
  EXPECT_EQ(port_, 5);
}

TEST_F(ConfigTest, WhatDoesNotExistIsAnErrorThatSuggests) {
  EXPECT_THAT(ErrorOf({"m", "--metric-port", "1"}),
              AllOf(HasSubstr("--metric-port"),
                    HasSubstr("did you mean --metrics-port?")));
  EXPECT_THAT(ErrorOf({"m", "--metric-port=1"}),
              HasSubstr("did you mean --metrics-port?"));
  EXPECT_THAT(ErrorOf({"m", "--zzzzzz"}), Not(HasSubstr("did you mean")));
  EXPECT_THAT(ErrorOf({"m", "another"}), HasSubstr("another"));
  const std::string file = WriteToml("\nmetricsport = 1\n");
  EXPECT_THAT(ErrorOf({"m", "--config", file}),
              AllOf(HasSubstr("witan.toml:2"), HasSubstr("\"metricsport\""),
                    HasSubstr("did you mean metrics-port?")));
  const std::string table = WriteToml("[serve]\n");
  EXPECT_THAT(ErrorOf({"m", "--config", table}), HasSubstr("[serve]"));
}

TEST_F(ConfigTest, BadValuesNameTheirOrigin) {
  EXPECT_THAT(ErrorOf({"m", "--metrics-port", "x"}), HasSubstr("metrics-port"));
  EXPECT_THAT(ErrorOf({"m", "--metrics-port", "70000"}),
              HasSubstr("metrics-port"));
  const std::string file = WriteToml("metrics-port = \"x\"\n");
  EXPECT_THAT(ErrorOf({"m", "--config", file}), HasSubstr("witan.toml:1"));
  const std::string date = WriteToml("metrics-port = 1979-05-27\n");
  EXPECT_THAT(ErrorOf({"m", "--config", date}), HasSubstr("must be a string"));
  environment_["WITAN_METRICS_PORT"] = "-1";
  EXPECT_THAT(ErrorOf({"m"}), HasSubstr("WITAN_METRICS_PORT=-1"));
}

TEST_F(ConfigTest, AnEmptyValueIsAValueAndLeavesTheNextArgumentAlone) {
  ASSERT_TRUE(Parse({"--text=", "m", "--metrics-port", "4"}).ok());
  EXPECT_EQ(text_, "");
  EXPECT_EQ(model_, "m");
  EXPECT_EQ(port_, 4);
  ASSERT_TRUE(Parse({"m", "--text="}).ok());
  ASSERT_TRUE(Parse({"m", "--text", ""}).ok());
  EXPECT_EQ(text_, "");
  ASSERT_TRUE(Parse({"--", "--text="}).ok());
  EXPECT_EQ(model_, "--text=");
  EXPECT_THAT(ErrorOf({"m", "--verbose="}), HasSubstr("--verbose="));
  EXPECT_THAT(ErrorOf({"m", "--test="}), HasSubstr("did you mean --text?"));
  for (const char* number : {"--seed=", "--count=", "--scale="}) {
    EXPECT_THAT(ErrorOf({"m", number}), HasSubstr("\"\" is not a"));
    EXPECT_THAT(ErrorOf({number, "7"}), HasSubstr("\"\" is not a"));
  }
}

TEST_F(ConfigTest, FractionsAreFiniteOrRefused) {
  ASSERT_TRUE(Parse({"m", "--scale", "-1.5e2"}).ok());
  EXPECT_EQ(scale_, -150);
  for (const char* text : {"nan", "NaN", "inf", "-inf", "1e999", "x", "1x"}) {
    EXPECT_THAT(ErrorOf({"m", "--scale", text}), HasSubstr("--scale")) << text;
  }
  EXPECT_THAT(ErrorOf({"m", "--scale", "nan"}),
              HasSubstr("\"nan\" is not a finite number"));
}

TEST_F(ConfigTest, WholeNumbersAreTakenWholeOrRefused) {
  const std::string max_seed = "18446744073709551615";
  ASSERT_TRUE(Parse({"m", "--seed", max_seed}).ok());
  EXPECT_EQ(seed_, std::numeric_limits<uint64_t>::max());
  ASSERT_TRUE(Parse({"m", "--count", "-9223372036854775808"}).ok());
  EXPECT_EQ(count_, std::numeric_limits<int64_t>::min());
  for (const char* text : {"x", "1x", " 1", "1 ", "+1", "1.5", "1e3", "0x10",
                           "010", "-0", "--1", "99999999999999999999999"}) {
    for (const char* option : {"--seed", "--count", "--metrics-port"}) {
      EXPECT_THAT(ErrorOf({"m", option, text}), HasSubstr(option + 2)) << text;
    }
  }
  EXPECT_THAT(
      ErrorOf({"m", "--seed", "-1"}),
      HasSubstr("--seed: \"-1\" is not a whole number from 0 to " + max_seed));
  EXPECT_THAT(ErrorOf({"m", "--seed", "18446744073709551616"}),
              HasSubstr("\"18446744073709551616\" is not a whole number"));
  EXPECT_THAT(ErrorOf({"m", "--count", "9223372036854775808"}),
              HasSubstr("from -9223372036854775808 to 9223372036854775807"));
  const std::string file = WriteToml("seed = -1\n");
  EXPECT_THAT(ErrorOf({"m", "--config", file}), HasSubstr("witan.toml:1"));
  environment_["WITAN_SEED"] = "1x";
  EXPECT_THAT(ErrorOf({"m"}), HasSubstr("WITAN_SEED=1x"));
}

TEST_F(ConfigTest, FilesThatCannotBeReadAreErrors) {
  EXPECT_THAT(ErrorOf({"m", "--config", "/no/such/file"}),
              HasSubstr("/no/such/file"));
  EXPECT_THAT(ErrorOf({"m", "--config", WriteToml("a = = 1\n")}),
              HasSubstr("witan.toml:1"));
}

TEST_F(ConfigTest, ARequiredOptionMayComeFromAnywhereButMustCome) {
  EXPECT_THAT(ErrorOf({}), HasSubstr("MODEL is missing"));
}

TEST_F(ConfigTest, HelpAndVersionAreTextsNotErrors) {
  const auto help = Parse({"--help"});
  ASSERT_TRUE(help.ok());
  EXPECT_THAT(*help, HasSubstr("WITAN_METRICS_PORT"));
  EXPECT_THAT(*Parse({"--version"}), HasSubstr("witan-test 1"));
  EXPECT_THAT(*Parse({"m"}), IsEmpty());
}

// A program with subcommands that share an option's name.
class SubcommandTest : public testing::Test {
 protected:
  absl::Status Parse(std::vector<std::string> arguments) {
    CLI::App app("test", "witan-test");
    app.require_subcommand(1);
    CLI::App* serve = app.add_subcommand("serve");
    serve->add_option("--port", serve_port_);
    serve->add_option("--tp", tp_)->required();
    serve->add_option("--log", serve_log_);
    CLI::App* chat = app.add_subcommand("chat");
    chat->add_option("--port", chat_port_);
    chat->add_option("--log", chat_log_)->configurable(false);
    return ParseOptions(
               app, std::move(arguments),
               [](const std::string&) { return std::optional<std::string>(); })
        .status();
  }

  TempDirectory directory_;
  int serve_port_ = 1;
  int chat_port_ = 1;
  int tp_ = 0;
  std::string serve_log_;
  std::string chat_log_;
};

TEST_F(SubcommandTest, OnlyTheSelectedOneIsSet) {
  const std::string file = directory_.Write(
      "c.toml", "port = 2\ntp = 4\n[serve]\nport = 3\n[chat]\nport = 5\n");
  ASSERT_TRUE(Parse({"serve", "--config", file}).ok());
  EXPECT_EQ(serve_port_, 3) << "its own table wins";
  EXPECT_EQ(tp_, 4);
  EXPECT_EQ(chat_port_, 1);
  ASSERT_TRUE(Parse({"chat", "--config", file}).ok()) << "tp is serve's";
  EXPECT_EQ(chat_port_, 5);
}

TEST_F(SubcommandTest, AKeyOfOneIsNotTheFlagOfAnother) {
  const std::string file = directory_.Write("c.toml", "tp = 4\nlog = \"x\"\n");
  ASSERT_TRUE(Parse({"chat", "--config", file}).ok());
  EXPECT_EQ(chat_log_, "");
  ASSERT_TRUE(Parse({"serve", "--config", file}).ok());
  EXPECT_EQ(serve_log_, "x");
}

TEST_F(SubcommandTest, RequiredOptionsOfOthersAreNotAskedFor) {
  EXPECT_TRUE(Parse({"chat"}).ok());
  EXPECT_THAT(std::string(MessageOf(Parse({"serve"}))),
              HasSubstr("--tp is missing"));
  EXPECT_THAT(std::string(MessageOf(Parse({"serv"}))), HasSubstr("serve"));
}

TEST(ClosestNameTest, IsNearOrNothing) {
  EXPECT_EQ(ClosestName("prot", {"port", "host"}), "port");
  EXPECT_EQ(ClosestName("port", {"port"}), "port");
  EXPECT_EQ(ClosestName("max_tokens", {"max-tokens", "min-tokens"}),
            "max-tokens");
  EXPECT_EQ(ClosestName("x", {"port"}), "");
  EXPECT_EQ(ClosestName("", {"tp"}), "") << "everything is near the empty name";
  EXPECT_EQ(ClosestName("abc", {}), "");
}

}  // namespace
}  // namespace witan
