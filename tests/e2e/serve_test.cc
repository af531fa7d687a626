// The command line against a cluster of real processes, as the README shows it.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "base/metric_names.h"
#include "tests/e2e/local_cluster.h"
#include "tests/testing/temp_directory.h"
#include "tests/testing/test_paths.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// One cluster for all tests that do not break it.
class ServeTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    serve_ = new LocalServe(SourcePath("examples/witling/witling-instruct"),
                            {"--tp=2", "--ep=2", "--workers=2"});
  }
  void SetUp() override {
    ASSERT_NE(serve_->ready_line(), "") << serve_->program().err();
  }
  static void TearDownTestSuite() {
    delete serve_;
    serve_ = nullptr;
  }

  static ProgramResult Witan(std::vector<std::string> arguments) {
    arguments.push_back("--server=" + serve_->server());
    return RunBinary("witan", arguments);
  }

  static inline LocalServe* serve_ = nullptr;
};

TEST_F(ServeTest, ReadyLineSaysWhereAndWhat) {
  EXPECT_THAT(serve_->ready_line(), StartsWith("ready grpc=127.0.0.1:"));
  EXPECT_EQ(serve_->ReadyValue("model"), "witling-instruct");
  EXPECT_EQ(serve_->ReadyValue("tp"), "2");
  EXPECT_EQ(serve_->ReadyValue("ep"), "2");
  EXPECT_EQ(serve_->ReadyValue("ranks"), "2");
  EXPECT_THAT(serve_->program().err(), HasSubstr("loading witling-instruct"));
}

TEST_F(ServeTest, GenerateStreamsPlainTextAndEndsWithANewline) {
  const auto result = Witan({"generate", "--prompt=Mia the fox",
                             "--max-tokens=12", "--temperature=0"});
  EXPECT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_GT(result.out.size(), 1u);
  EXPECT_EQ(result.out.back(), '\n');
}

TEST_F(ServeTest, JsonHoldsTheWholeResultAndRepeatsBitForBit) {
  const std::vector<std::string> arguments = {
      "generate",          "--prompt=Mia the fox",
      "--max-tokens=12",   "--seed=7",
      "--temperature=0.8", "--logprobs=2",
      "--ignore-eos",      "--json",
      "--request-id=first"};
  const auto result = Witan(arguments);
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_TRUE(json["text"].is_string());
  EXPECT_EQ(json["token_ids"].size(), 12u);
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_EQ(json["usage"]["completion_tokens"], 12);
  EXPECT_GT(json["usage"]["prompt_tokens"], 0);
  EXPECT_GE(json["timings"]["time_to_first_token_ms"], 0.0);
  EXPECT_EQ(json["seed"], 7);
  EXPECT_EQ(json["request_id"], "first");
  ASSERT_EQ(json["logprobs"].size(), 12u);
  EXPECT_EQ(json["logprobs"][0]["token_id"], json["token_ids"][0]);
  EXPECT_EQ(json["logprobs"][0]["top"].size(), 2u);

  const auto again = nlohmann::json::parse(Witan(arguments).out);
  EXPECT_EQ(again["token_ids"], json["token_ids"]);
  EXPECT_EQ(again["logprobs"], json["logprobs"]);
}

TEST_F(ServeTest, SeveralChoicesAreAnArrayOfDifferentTexts) {
  const auto result =
      Witan({"generate", "--prompt=Once", "--max-tokens=16", "--seed=1",
             "--temperature=1.5", "--choices=3", "--ignore-eos", "--json"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  const auto json = nlohmann::json::parse(result.out);
  ASSERT_EQ(json["choices"].size(), 3u);
  EXPECT_NE(json["choices"][0]["token_ids"], json["choices"][1]["token_ids"]);
  EXPECT_EQ(json["choices"][2]["index"], 2);
}

TEST_F(ServeTest, ChatAppliesTheTemplateAndItsArguments) {
  const std::vector<std::string> question = {
      "chat", "--message=What is 12 + 34?", "--temperature=0",
      "--max-tokens=60", "--json"};
  const auto plain = Witan(question);
  ASSERT_EQ(plain.exit_code, kExitOk) << plain.err;
  auto with_thinking = question;
  with_thinking.push_back("--template-arg=enable_thinking=true");
  const auto thinking = Witan(with_thinking);
  ASSERT_EQ(thinking.exit_code, kExitOk) << thinking.err;
  // The template writes "<think></think>" or only "<think>" into the prompt.
  EXPECT_EQ(
      nlohmann::json::parse(plain.out)["usage"]["prompt_tokens"],
      nlohmann::json::parse(thinking.out)["usage"]["prompt_tokens"].get<int>() +
          1);
  EXPECT_EQ(nlohmann::json::parse(plain.out)["usage"]["reasoning_tokens"], 0);
  // The thought is closed behind its fifth token, and the answer follows.
  with_thinking.push_back("--thinking-budget=5");
  const auto cut = Witan(with_thinking);
  ASSERT_EQ(cut.exit_code, kExitOk) << cut.err;
  const auto json = nlohmann::json::parse(cut.out);
  EXPECT_EQ(json["usage"]["reasoning_tokens"], 6);
  EXPECT_NE(json["reasoning"], "");
  EXPECT_NE(json["text"], "");
}

TEST_F(ServeTest, StatusTellsTheLayoutForPeopleAndForScripts) {
  // Whatever ran before, also what was planned ahead of its last token.
  serve_->WaitForStatus([](const v1::StatusResponse& status) {
    return status.scheduler().used_blocks() == 0;
  });
  const auto text = Witan({"status"});
  EXPECT_EQ(text.exit_code, kExitOk);
  EXPECT_THAT(text.out, HasSubstr("witling-instruct: serving"));
  const auto json = nlohmann::json::parse(Witan({"status", "--json"}).out);
  EXPECT_EQ(json["state"], "serving");
  EXPECT_EQ(json["num_ranks"], 2);
  EXPECT_EQ(json["workers"].size(), 2u);
  EXPECT_EQ(json["workers"][1]["rank"], 1);
  EXPECT_EQ(json["scheduler"]["used_blocks"], 0);
  EXPECT_GT(json["scheduler"]["total_blocks"], 0);
  EXPECT_EQ(json["weights_id"].get<std::string>().size(), 64u);
}

TEST_F(ServeTest, MetricsAreServedOverHttp) {
  const std::string page = HttpGet(serve_->ReadyValue("metrics"));
  EXPECT_THAT(page, HasSubstr("200 OK"));
  EXPECT_THAT(page, HasSubstr("\nwitan_"));
}

TEST_F(ServeTest, EveryWorkerServesMetricsAtTheAddressThatStatusTells) {
  const auto json = nlohmann::json::parse(Witan({"status", "--json"}).out);
  for (const auto& worker : json["workers"]) {
    const std::string address = worker["metrics_address"];
    const std::string page = HttpGet("http://" + address + "/metrics");
    EXPECT_THAT(page, HasSubstr("200 OK"));
    EXPECT_THAT(page,
                HasSubstr(fmt::format("\n{} 1", metric::kWorkerConnected)));
    EXPECT_THAT(Witan({"status"}).out, HasSubstr("  " + address + "\n"));
  }
}

TEST_F(ServeTest, RefusedRequestsSayWhyAndHurtNobody) {
  const auto too_long = Witan(
      {"generate", "--prompt=x", "--max-tokens=2147483648", "--temperature=0"});
  EXPECT_EQ(too_long.exit_code, kExitUsage);
  EXPECT_THAT(too_long.err, HasSubstr("max_tokens"));
  EXPECT_THAT(too_long.err, HasSubstr("2147483648"));
  const auto nan =
      Witan({"generate", "--prompt=x", "--temperature=nan", "--max-tokens=1"});
  EXPECT_EQ(nan.exit_code, kExitUsage);
  EXPECT_THAT(nan.err, HasSubstr("temperature"));
  const auto model =
      Witan({"generate", "--prompt=x", "--served-model-name=other"});
  EXPECT_EQ(model.exit_code, kExitUsage);
  EXPECT_THAT(model.err, HasSubstr("witling-instruct"));
  EXPECT_EQ(Witan({"generate", "--prompt=x", "--max-tokens=1"}).exit_code,
            kExitOk);
}

TEST_F(ServeTest, AWorkerOfAnotherModelIsRefusedByName) {
  const TinyModel other;
  const auto result = RunBinary("witan-worker", {"--join", serve_->server(),
                                                 "--model", other.directory()});
  EXPECT_EQ(result.exit_code, kExitModel);
  EXPECT_THAT(result.err, HasSubstr(other.directory()));
  EXPECT_THAT(result.err, HasSubstr("witling-instruct"));
}

TEST_F(ServeTest, APortInUseIsNamedWithTheRemedy) {
  const std::string server = serve_->server();
  const std::string port = server.substr(server.find(':') + 1);
  const auto result =
      RunBinary("witan", {"serve", SourcePath("examples/witling/witling-base"),
                          "--port=" + port, "--metrics-port=0"});
  EXPECT_EQ(result.exit_code, kExitResources);
  EXPECT_THAT(result.err, HasSubstr(port));
  EXPECT_THAT(result.err, HasSubstr("in use"));
}

TEST(ServeCacheTest, WorkersKeepHashesOfTheWeightsWhereTheyAreTold) {
  const TempDirectory directory;
  const std::string cache = directory.path() + "/cache";
  LocalServe serve(SourcePath("examples/witling/witling-base"),
                   {"--cache-dir=" + cache});
  ASSERT_NE(serve.ready_line(), "") << serve.program().err();
  int num_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(cache)) {
    num_files += entry.path().filename().string().starts_with("pieces-");
  }
  EXPECT_EQ(num_files, 1);
}

TEST(ServeEndTest, SigtermEndsEveryProcessAndExitsWithZero) {
  const TinyModel model;
  LocalServe serve(model.directory(), {});
  ASSERT_NE(serve.ready_line(), "");
  const auto status = serve.Status();
  ASSERT_EQ(status.workers_size(), 1);
  EXPECT_EQ(serve.Stop(), kExitOk);
  // The supervisor has reaped its children, so the ids are free.
  EXPECT_EQ(kill(static_cast<pid_t>(status.workers(0).process_id()), 0), -1);
}

TEST(ServeEndTest, ADeadCoordinatorEndsTheCluster) {
  const TinyModel model;
  LocalServe serve(model.directory(), {});
  ASSERT_NE(serve.ready_line(), "");
  const pid_t coordinator = ChildOf(serve.program().pid(), "witan-coordinator");
  ASSERT_GT(coordinator, 0);
  kill(coordinator, SIGKILL);
  EXPECT_EQ(serve.program().WaitForEnd(), kExitPeerLost);
  EXPECT_THAT(serve.program().err(),
              HasSubstr("the coordinator ended with signal 9"));
}

struct BrokenModel {
  const char* name;
  const char* file;
  const char* text;     // replaces the file; null: the file is removed
  const char* message;  // part of the error
};

class BrokenModelTest : public ::testing::TestWithParam<BrokenModel> {};

TEST_P(BrokenModelTest, IsRefusedWithTheFileAndTheReason) {
  const TinyModel model;
  const std::string path = model.directory() + "/" + GetParam().file;
  std::filesystem::remove(path);
  if (GetParam().text != nullptr) std::ofstream(path) << GetParam().text;
  const auto result = RunBinary(
      "witan", {"serve", model.directory(), "--port=0", "--metrics-port=0"});
  EXPECT_EQ(result.exit_code, kExitModel) << result.err;
  EXPECT_THAT(result.err, HasSubstr(GetParam().message));
  EXPECT_THAT(result.out, Not(HasSubstr("ready")));
}

INSTANTIATE_TEST_SUITE_P(
    All, BrokenModelTest,
    ::testing::Values(
        BrokenModel{"NoConfig", "config.json", nullptr, "config.json"},
        BrokenModel{"ConfigIsNotJson", "config.json", "{", "config.json"},
        BrokenModel{"UnknownArchitecture", "config.json",
                    "{\"architectures\": [\"OtherForCausalLM\"]}",
                    "OtherForCausalLM"},
        BrokenModel{"NoWeights", "model.safetensors", nullptr,
                    "model.safetensors"},
        BrokenModel{"TruncatedWeights", "model.safetensors", "12345678",
                    "model.safetensors"},
        BrokenModel{"NoTokenizer", "tokenizer.json", nullptr, "tokenizer.json"},
        BrokenModel{"DamagedTokenizer", "tokenizer.json",
                    "{\"model\": {\"type\": \"BPE\"}}", "tokenizer.json"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(ServeUsageTest, LayoutsThatDoNotFitNameWhatWould) {
  const std::string model = SourcePath("examples/witling/witling-base");
  const auto few =
      RunBinary("witan", {"serve", model, "--tp=2", "--ep=4", "--workers=2"});
  EXPECT_EQ(few.exit_code, kExitUsage);
  EXPECT_THAT(few.err, HasSubstr("4 ranks"));
  const auto large = RunBinary("witan", {"serve", model, "--tp=9"});
  EXPECT_EQ(large.exit_code, kExitUsage);
  EXPECT_THAT(large.err, HasSubstr("9"));
}

TEST(ServeUsageTest, WorkersThatTheLayoutDoesNotDivideAreNoSilentSpares) {
  const std::string model = SourcePath("examples/witling/witling-base");
  const auto four =
      RunBinary("witan", {"serve", model, "--tp=3", "--workers=4"});
  EXPECT_EQ(four.exit_code, kExitUsage);
  EXPECT_THAT(four.err,
              HasSubstr("tp=3 does not divide the 4 workers of this cluster; "
                        "use 1, 2 or 4, or start 3 workers"));
}

TEST(ServeUsageTest, ACacheOfNoBlocksIsRefusedAtTheStart) {
  const TinyModel model;
  const auto result =
      RunBinary("witan", {"serve", model.directory(), "--port=0",
                          "--metrics-port=0", "--num-blocks=1"});
  EXPECT_EQ(result.exit_code, kExitUsage) << result.err;
  EXPECT_THAT(result.err, HasSubstr("num_blocks is 1; allowed is 2 to"));
}

TEST(ServeUsageTest, NobodyListeningIsSaidWithTheRemedy) {
  const auto result =
      RunBinary("witan", {"generate", "--server=127.0.0.1:1", "--prompt=x"});
  EXPECT_EQ(result.exit_code, kExitPeerLost);
  EXPECT_THAT(result.err, HasSubstr("127.0.0.1:1"));
  EXPECT_THAT(result.err, HasSubstr("witan serve"));
}

}  // namespace
}  // namespace witan
