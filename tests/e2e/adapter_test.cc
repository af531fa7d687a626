// A LoRA adapter over two ranks, from the command line as the README shows it:
// loaded into a running cluster, used, and taken out again.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/config.h"
#include "tests/e2e/local_cluster.h"
#include "tests/testing/test_paths.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

constexpr char kAdapter[] = "council";

class AdapterTest : public ::testing::Test {
 protected:
  AdapterTest()
      : serve_(
            SourcePath("examples/witling/witling-instruct"),
            {"--tp=2", "--ep=2", "--workers=2",
             fmt::format("--adapters={}", SourcePath("examples/witling-lora")),
             "--max-adapters=1"}) {}
  void SetUp() override {
    ASSERT_NE(serve_.ready_line(), "") << serve_.program().err();
  }

  ProgramResult Witan(std::vector<std::string> arguments) const {
    arguments.push_back("--server=" + serve_.server());
    return RunBinary("witan", arguments);
  }

  // `model` empty: the model as it is.
  ProgramResult Chat(const std::string& question,
                     const std::string& model) const {
    std::vector<std::string> arguments = {"chat",
                                          "--message=" + question,
                                          "--temperature=0",
                                          "--max-tokens=40",
                                          "--logprobs=2",
                                          "--json"};
    if (!model.empty()) arguments.push_back("--model=" + model);
    return Witan(arguments);
  }

  // Text, tokens and log-probabilities.
  Json Answer(const std::string& question, const std::string& model) const {
    const ProgramResult result = Chat(question, model);
    EXPECT_EQ(result.exit_code, kExitOk) << result.err;
    if (result.exit_code != kExitOk) return Json::object();
    Json answer = Json::parse(result.out);
    for (const char* other : {"timings", "request_id", "usage", "seed"}) {
      answer.erase(other);
    }
    return answer;
  }

  Json List() const {
    return Json::parse(Witan({"adapter", "list", "--json"}).out);
  }

  LocalServe serve_;
};

TEST_F(AdapterTest, IsLoadedUsedAndUnloadedWhileTheModelServes) {
  const std::string question = "What is 46 + 38?";
  const Json before = Answer(question, "");
  EXPECT_EQ(before["text"], "84");
  EXPECT_EQ(List(), Json::array());
  EXPECT_THAT(Witan({"adapter", "list"}).out, StartsWith("0 of 1 adapters"));

  const auto loaded = Witan({"adapter", "load", kAdapter});
  ASSERT_EQ(loaded.exit_code, kExitOk) << loaded.err;
  EXPECT_THAT(loaded.out, HasSubstr("--model council"));
  // Again: it is there already.
  EXPECT_EQ(Witan({"adapter", "load", kAdapter}).exit_code, kExitOk);
  const Json list = List();
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0]["name"], kAdapter);
  EXPECT_EQ(list[0]["state"], "ready");
  EXPECT_EQ(list[0]["content_hash"].get<std::string>().size(), 64u);
  EXPECT_THAT(Witan({"adapter", "list"}).out,
              AllOf(HasSubstr("1 of 1 adapters"), HasSubstr("ready")));

  const Json with = Answer(question, kAdapter);
  EXPECT_EQ(with["text"], "84. The witan has spoken.");
  EXPECT_EQ(Answer(question, ""), before);

  EXPECT_EQ(Witan({"adapter", "unload", kAdapter}).exit_code, kExitOk);
  EXPECT_EQ(List(), Json::array());
  const auto refused = Chat(question, kAdapter);
  EXPECT_EQ(refused.exit_code, kExitUsage) << refused.err;
  EXPECT_THAT(refused.err, HasSubstr(kAdapter));
  EXPECT_EQ(Witan({"adapter", "unload", kAdapter}).exit_code, kExitUsage);
  EXPECT_EQ(Answer(question, ""), before);

  // The same bits after it was away.
  ASSERT_EQ(Witan({"adapter", "load", kAdapter}).exit_code, kExitOk);
  EXPECT_EQ(Answer(question, kAdapter), with);
}

TEST_F(AdapterTest, RequestsOfBothKindsHaveTheBitsThatTheyHaveAlone) {
  ASSERT_EQ(Witan({"adapter", "load", kAdapter}).exit_code, kExitOk);
  const std::vector<std::string> questions = {
      "What is 12 + 34?", "Sort: 5 2 9 1", "What grows in Tarn?",
      "Which is larger, 512 or 498?"};
  struct Request {
    std::string question;
    std::string model;
    Json alone;
    Json together;
  };
  std::vector<Request> requests;
  for (const std::string& question : questions) {
    for (const std::string model : {"", kAdapter}) {
      requests.push_back({question, model, Answer(question, model), {}});
    }
  }
  std::vector<std::thread> clients;
  for (Request& request : requests) {
    clients.emplace_back([this, &request] {
      request.together = Answer(request.question, request.model);
    });
  }
  for (std::thread& client : clients) client.join();
  for (const Request& request : requests) {
    EXPECT_EQ(request.together, request.alone) << request.question;
    EXPECT_EQ(request.alone["text"].get<std::string>().ends_with(
                  " The witan has spoken."),
              !request.model.empty())
        << request.alone["text"];
  }
}

TEST_F(AdapterTest, WhatIsNoAdapterIsRefusedByName) {
  for (const std::string name : {"nobody", "train.py"}) {
    const auto missing = Witan({"adapter", "load", name});
    EXPECT_EQ(missing.exit_code, kExitUsage) << missing.err;
    EXPECT_THAT(missing.err, HasSubstr(name));
  }
  for (const std::string name : {"../witling", "/etc", ".", ""}) {
    const auto outside = Witan({"adapter", "load", name});
    EXPECT_EQ(outside.exit_code, kExitUsage) << name << outside.err;
  }
  EXPECT_EQ(List(), Json::array());
}

TEST(NoAdapterTest, AClusterThatServesNoneSaysWhatToDo) {
  const LocalServe serve(SourcePath("examples/witling/witling-instruct"), {});
  ASSERT_NE(serve.ready_line(), "");
  const auto result = RunBinary(
      "witan", {"adapter", "load", kAdapter, "--server=" + serve.server()});
  EXPECT_EQ(result.exit_code, kExitModel);
  EXPECT_THAT(result.err, HasSubstr("--adapters"));
}

}  // namespace
}  // namespace witan
