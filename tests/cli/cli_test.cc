// The parts of the command line that need no server.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <bit>
#include <cstdlib>
#include <limits>
#include <sstream>

#include "base/config.h"
#include "base/limits.h"
#include "cli/client.h"
#include "cli/generation.h"
#include "cli/generation_options.h"
#include "cli/output.h"
#include "cli/process.h"
#include "cli/progress.h"
#include "cli/restart_policy.h"
#include "cli/serve.h"
#include "cli/status.h"
#include "cli/tokenize.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// --- Progress ---------------------------------------------------------------

TEST(ProgressLineTest, WritesOneLinePerFivePercentWhereNobodyWatches) {
  ProgressLine progress("m", /*is_terminal=*/false);
  EXPECT_EQ(progress.Show({.num_workers = 1, .num_ranks = 2}), "");
  std::string all;
  for (int64_t done = 0; done <= 1000; ++done) {
    all += progress.Show({done * 1000, 1000000, 2, 2});
  }
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 21);
  EXPECT_THAT(all, HasSubstr("loading m:  45 %  0.5 / 1.0 MB, 2 workers\n"));
  EXPECT_EQ(progress.Show({0, 1000000, 2, 2}), "");  // a reload starts low
}

TEST(ProgressLineTest, DrawsOneLineOverItselfOnATerminal) {
  ProgressLine progress("m", /*is_terminal=*/true);
  EXPECT_EQ(progress.Erase(), "");
  EXPECT_EQ(progress.Show({.num_workers = 1, .num_ranks = 2}),
            "\r\x1b[Kloading m: 1 of 2 workers");
  const LoadState half = {500000, 1000000, 2, 2};
  const std::string drawn = progress.Show(half);
  EXPECT_THAT(drawn, HasSubstr("[###############---------------]  50 %"));
  EXPECT_EQ(progress.Show(half), "");
  EXPECT_EQ(progress.Erase() + progress.Redraw(), drawn);
  EXPECT_EQ(progress.Finish(), "\r\x1b[K");
  EXPECT_EQ(progress.Redraw(), "");
}

TEST(ProgressLineTest, AbsurdTotalsDoNotLeaveTheBar) {
  ProgressLine progress("m", /*is_terminal=*/true);
  EXPECT_THAT(progress.Show({2000000, 1000000, 1, 1}), HasSubstr("100 %"));
  EXPECT_THAT(progress.Show({-5, 1000000, 1, 1}), HasSubstr("  0 %"));
}

// --- Processes --------------------------------------------------------------

TEST(RestartPolicyTest, PausesDoubleToALimitAndAreForgiven) {
  RestartPolicy policy;
  std::vector<Micros> pauses_ms;
  for (int i = 0; i < 10; ++i) {
    pauses_ms.push_back(policy.PauseAfterEnd(1000) / kMicrosPerMilli);
  }
  EXPECT_THAT(pauses_ms, ElementsAre(100, 200, 400, 800, 1600, 3200, 6400,
                                     10000, 10000, 10000));
  EXPECT_EQ(policy.num_ends(), 10);
  EXPECT_EQ(policy.PauseAfterEnd(kRespawnForgivenAfterMs * kMicrosPerMilli),
            100 * kMicrosPerMilli);
  EXPECT_EQ(policy.num_ends(), 1);
}

TEST(LineBufferTest, CutsLinesWhereverTheBytesAreCut) {
  std::vector<std::string> lines;
  const auto sink = [&lines](const std::string& line) {
    lines.push_back(line);
  };
  LineBuffer buffer;
  for (const char* piece : {"a", "b\nc", "\n\nd", "e"}) {
    buffer.Push(piece, sink);
  }
  EXPECT_THAT(lines, ElementsAre("ab", "c", ""));
  buffer.Finish(sink);
  buffer.Finish(sink);
  EXPECT_THAT(lines, ElementsAre("ab", "c", "", "de"));
  buffer.Push(std::string(2 * kMaxChildLineBytes, 'x') + "\n", sink);
  EXPECT_EQ(lines.back().size(), kMaxChildLineBytes);
}

TEST(ProcessTest, ChildrenGetTheirArgumentsButNotOurVariables) {
  setenv("WITAN_PORT", "1", /*overwrite=*/1);
  setenv("OTHER_PORT", "2", /*overwrite=*/1);
  auto process = Process::Start(
      "/bin/sh",
      {"-c", "echo \"$0 [$WITAN_PORT] [$OTHER_PORT]\"; exit 7", "argument"});
  unsetenv("WITAN_PORT");
  ASSERT_TRUE(process.ok()) << process.status();
  int wait_status = 0;
  waitpid(process->pid(), &wait_status, 0);
  process->MarkEnded();
  std::string out;
  const auto ignore = [](const std::string&) {};
  process->ReadLines([&out](const std::string& line) { out += line; }, ignore);
  EXPECT_EQ(out, "argument [] [2]");
  EXPECT_EQ(DescribeWaitStatus(wait_status), "exit code 7");
  EXPECT_EQ(process->stdout_fd(), -1);
}

TEST(ProcessTest, AMissingProgramIsNamed) {
  const auto process = Process::Start("/no/such/witan-worker", {});
  EXPECT_EQ(process.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(process.status().ToString(), HasSubstr("/no/such/witan-worker"));
}

TEST(ProcessTest, ADroppedProcessIsKilled) {
  pid_t pid = 0;
  {
    auto process = Process::Start("/bin/sh", {"-c", "read never"});
    ASSERT_TRUE(process.ok());
    pid = process->pid();
  }
  EXPECT_EQ(kill(pid, 0), -1);
}

TEST(ServePlanTest, EveryOptionReachesItsProgram) {
  ServeOptions options;
  options.model = "models/m/";
  options.tp = 2;
  options.ep = 4;
  for (PassedOption& passed : options.passed) passed.value = "3";
  const auto plan = PlanProcesses(options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->model_name, "m");
  EXPECT_EQ(plan->num_workers, 4);
  EXPECT_THAT(plan->coordinator_arguments, Contains("models/m/"));
  EXPECT_THAT(plan->coordinator_arguments, Contains("--ep=4"));
  EXPECT_THAT(plan->coordinator_arguments, Contains("--chunk=3"));
  EXPECT_THAT(plan->coordinator_arguments, Not(Contains("--memory=3")));
  EXPECT_THAT(plan->worker_arguments,
              ElementsAre("--metrics-port=0", "--metrics-host=3",
                          "--cache-dir=3", "--cpu-path=3", "--memory=3"));
}

TEST(ServePlanTest, WorkersHaveMetricsWhereTheCoordinatorHasThem) {
  ServeOptions options;
  options.model = "m";
  EXPECT_THAT(PlanProcesses(options)->worker_arguments,
              ElementsAre("--metrics-port=0"));
  for (PassedOption& passed : options.passed) {
    if (passed.name == "--metrics-port") passed.value = "-1";
  }
  EXPECT_THAT(PlanProcesses(options)->worker_arguments, ElementsAre());
}

TEST(ServePlanTest, TooFewWorkersSayHowManyWouldDo) {
  ServeOptions options;
  options.model = "m";
  options.tp = 3;
  options.ep = 2;
  options.num_workers = 4;
  EXPECT_THAT(PlanProcesses(options).status().ToString(),
              HasSubstr("--workers 4: tp=3 ep=2 makes 6 ranks; use 6 to 64"));
  options.num_workers = 6;
  EXPECT_EQ(PlanProcesses(options)->num_workers, 6);
}

TEST(ServePlanTest, WorkersAreOneGroupOrAMultipleOfItsPartsAndSparesAreNamed) {
  const auto plan = [](int tp, int ep, std::optional<int> workers,
                       int spares = 0) {
    ServeOptions options;
    options.model = "m";
    options.tp = tp;
    options.ep = ep;
    options.num_workers = workers;
    options.num_spares = spares;
    const auto result = PlanProcesses(options);
    return result.ok() ? std::to_string(result->num_workers)
                       : result.status().ToString();
  };
  EXPECT_EQ(plan(3, 1, std::nullopt), "3");
  EXPECT_EQ(plan(3, 1, 3), "3");
  EXPECT_EQ(plan(3, 1, 6), "6");
  EXPECT_EQ(plan(3, 2, 6), "6");
  EXPECT_EQ(plan(2, 1, 4), "4");
  EXPECT_THAT(plan(3, 1, 4),
              HasSubstr("tp=3 does not divide the 4 workers of this cluster; "
                        "use 1, 2 or 4, or start 3 workers"));
  EXPECT_THAT(plan(2, 3, 8),
              HasSubstr("ep=3 does not divide the 8 workers of this cluster; "
                        "use 1, 2, 4 or 8, or start 6 workers"));
  EXPECT_THAT(plan(2, 1, 17), HasSubstr("use 1, or start 2 workers"));
  EXPECT_EQ(plan(3, 1, std::nullopt, 1), "4");
  EXPECT_EQ(plan(2, 1, 2, 5), "7");
  EXPECT_THAT(plan(2, 1, 2, -1), HasSubstr("--spares is -1; allowed is 0 to"));
  EXPECT_THAT(plan(2, 1, 2, 63),
              HasSubstr("--spares is 63; allowed is 0 to 62"));
}

// --- Options of a request ---------------------------------------------------

TEST(GenerationOptionsTest, OnlyWhatWasGivenIsSent) {
  EXPECT_EQ(MakeParameters({})->ByteSizeLong(), 0u);
  GenerationOptions options;
  options.temperature = 0;
  options.num_logprobs = 0;
  options.seed = std::numeric_limits<uint64_t>::max();
  options.logit_bias = {"17=-2.5", "3=1e1"};
  options.stop = {"\n"};
  const auto parameters = MakeParameters(options);
  ASSERT_TRUE(parameters.ok()) << parameters.status();
  EXPECT_TRUE(parameters->has_temperature());
  EXPECT_TRUE(parameters->has_top_logprobs());
  EXPECT_FALSE(parameters->has_top_p());
  EXPECT_EQ(parameters->seed(), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(parameters->logit_bias().at(17), -2.5f);
  EXPECT_EQ(parameters->logit_bias().at(3), 10.0f);
}

TEST(GenerationOptionsTest, BiasesThatCannotBeReadAreQuoted) {
  for (const char* text : {"17", "=1", "x=1", "1=", "1=x", "1=2x", "1 =2"}) {
    GenerationOptions options;
    options.logit_bias = {text};
    const auto parameters = MakeParameters(options);
    EXPECT_EQ(parameters.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(parameters.status().ToString(), HasSubstr(text));
  }
  GenerationOptions twice;
  twice.logit_bias = {"5=1", "5=2"};
  EXPECT_THAT(MakeParameters(twice).status().ToString(), HasSubstr("twice"));
}

// --- The stream -------------------------------------------------------------

v1::GenerateResponse Chunk(int choice, int64_t index, const std::string& text,
                           const std::vector<int32_t>& ids) {
  v1::GenerateResponse chunk;
  chunk.set_request_id("r");
  chunk.set_choice(choice);
  chunk.set_token_index(index);
  chunk.set_text(text);
  for (const int32_t id : ids) chunk.add_token_ids(id);
  return chunk;
}

TEST(GenerationTest, ChunksOfSeveralChoicesArePutTogether) {
  GenerationResult result;
  ASSERT_TRUE(Append(Chunk(1, 0, "x", {7}), 2, &result).ok());
  ASSERT_TRUE(Append(Chunk(0, 0, "a", {1, 2}), 2, &result).ok());
  ASSERT_TRUE(Append(Chunk(0, 2, "", {3}), 2, &result).ok());
  auto last = Chunk(0, 3, "b", {});
  last.set_finish_reason(v1::FINISH_REASON_STOP);
  last.set_seed(9);
  ASSERT_TRUE(Append(last, 2, &result).ok());
  EXPECT_EQ(result.choices[0].text, "ab");
  EXPECT_THAT(result.choices[0].token_ids, ElementsAre(1, 2, 3));
  EXPECT_EQ(result.seed, 9u);
  const auto json = ToJson(result);
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json["choices"][1]["text"], "x");
  EXPECT_EQ(json["request_id"], "r");
}

TEST(GenerationTest, MissingRepeatedAndForeignTokensAreNotAccepted) {
  GenerationResult result;
  ASSERT_TRUE(Append(Chunk(0, 0, "a", {1}), 1, &result).ok());
  for (const auto& chunk : {Chunk(0, 0, "a", {1}), Chunk(0, 2, "c", {3}),
                            Chunk(1, 0, "x", {1}), Chunk(-1, 0, "x", {1})}) {
    EXPECT_EQ(Append(chunk, 1, &result).error_code(),
              grpc::StatusCode::DATA_LOSS);
  }
  auto lopsided = Chunk(0, 1, "b", {2});
  lopsided.add_logprobs();
  lopsided.add_logprobs();
  EXPECT_FALSE(Append(lopsided, 1, &result).ok());
}

// A call whose chunks and status are given.
class FakeStream : public grpc::ClientReaderInterface<v1::GenerateResponse> {
 public:
  FakeStream(std::vector<v1::GenerateResponse> chunks, grpc::Status status)
      : chunks_(std::move(chunks)), status_(std::move(status)) {}

  bool Read(v1::GenerateResponse* chunk) override {
    if (next_ == chunks_.size()) return false;
    *chunk = chunks_[next_++];
    return true;
  }
  bool NextMessageSize(uint32_t*) override { return false; }
  void WaitForInitialMetadata() override {}
  grpc::Status Finish() override { return status_; }

 private:
  const std::vector<v1::GenerateResponse> chunks_;
  const grpc::Status status_;
  size_t next_ = 0;
};

grpc::Status ReceiveAll(const std::vector<v1::GenerateResponse>& chunks,
                        int num_choices,
                        const grpc::Status& status = grpc::Status::OK) {
  FakeStream stream(chunks, status);
  grpc::ClientContext context;
  GenerationResult result;
  return Receive(
      context, stream, num_choices,
      [](TextKind, std::string_view) { return true; }, &result);
}

TEST(GenerationTest, WhatCannotBeWrittenEndsTheRequest) {
  FakeStream stream({Chunk(0, 0, "a", {1}), Chunk(0, 1, "b", {2})},
                    grpc::Status(grpc::StatusCode::CANCELLED, "by the client"));
  grpc::ClientContext context;
  GenerationResult result;
  int num_written = 0;
  const grpc::Status status = Receive(
      context, stream, 1,
      [&](TextKind, std::string_view) {
        ++num_written;
        return false;
      },
      &result);
  EXPECT_EQ(num_written, 1);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ExitCodeOf(status), kExitResources);
}

TEST(GenerationTest, AStreamThatEndsBeforeEveryChoiceDidIsNotComplete) {
  const auto part = Chunk(0, 0, "a", {1});
  auto last = Chunk(0, 1, "b", {2});
  last.set_finish_reason(v1::FINISH_REASON_LENGTH);
  EXPECT_TRUE(ReceiveAll({part, last}, 1).ok());
  const std::pair<std::vector<v1::GenerateResponse>, int> incomplete[] = {
      {{}, 1}, {{part}, 1}, {{part, last}, 2}};
  for (const auto& [chunks, num_choices] : incomplete) {
    const grpc::Status status = ReceiveAll(chunks, num_choices);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
    EXPECT_THAT(DescribeError(status, "h:1"), HasSubstr("DATA_LOSS from h:1"));
  }
  // The server's own error says more.
  EXPECT_EQ(ReceiveAll({part}, 1, {grpc::StatusCode::UNAVAILABLE, "worker 1"})
                .error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

TEST(GenerationTest, LogprobsKeepTheirBitsThroughJson) {
  GenerationResult result;
  auto chunk = Chunk(0, 0, "a", {1, 2, 3});
  const std::vector<float> values = {-0.1f, -1.17549435e-38f,
                                     std::bit_cast<float>(0xc1234567u)};
  for (const float value : values) chunk.add_logprobs()->set_logprob(value);
  ASSERT_TRUE(Append(chunk, 1, &result).ok());
  const auto json = nlohmann::json::parse(ToJson(result).dump());
  for (size_t i = 0; i < values.size(); ++i) {
    const float read = json["logprobs"][i]["logprob"].get<float>();
    EXPECT_EQ(std::bit_cast<uint32_t>(read),
              std::bit_cast<uint32_t>(values[i]));
  }
}

// --- Output -----------------------------------------------------------------

TEST(OptionTest, TextIsUtf8OrRefusedWithItsByte) {
  EXPECT_EQ(CheckUtf8("h\xC3\xA9"), "");
  EXPECT_EQ(CheckUtf8(""), "");
  EXPECT_EQ(CheckUtf8("ab\xFF"), "the text is not UTF-8 at byte 2");
}

TEST(ThoughtMarkerTest, MarksTheThoughtHoweverItComes) {
  ThoughtMarker plain(kPlainMarks);
  EXPECT_EQ(plain.Push(TextKind::kPrompt, "1+1"), "1+1");
  EXPECT_EQ(plain.Push(TextKind::kReasoning, "one and"), "<think>\none and");
  EXPECT_EQ(plain.Push(TextKind::kReasoning, " one"), " one");
  EXPECT_EQ(plain.Push(TextKind::kAnswer, "2"), "\n</think>\n2");
  EXPECT_EQ(plain.Push(TextKind::kAnswer, "."), ".");
  EXPECT_EQ(plain.Finish(), "");
  ThoughtMarker dim(kTerminalMarks);
  EXPECT_EQ(dim.Push(TextKind::kReasoning, "never ends"), "\x1b[2mnever ends");
  EXPECT_EQ(dim.Finish(), "\x1b[0m\n");
  EXPECT_EQ(dim.Finish(), "");
  EXPECT_EQ(ThoughtMarker(kPlainMarks).Push(TextKind::kAnswer, "plain"),
            "plain");
}

TEST(ClientTest, ExitCodesTellWhoseFaultItWas) {
  using grpc::StatusCode;
  EXPECT_EQ(ExitCodeOf({StatusCode::INVALID_ARGUMENT, ""}), 2);
  EXPECT_EQ(ExitCodeOf({StatusCode::RESOURCE_EXHAUSTED, ""}), 4);
  EXPECT_EQ(ExitCodeOf({StatusCode::UNAVAILABLE, ""}), 5);
  EXPECT_EQ(ExitCodeOf({StatusCode::DEADLINE_EXCEEDED, ""}), 1);
  EXPECT_EQ(ExitCodeOf({StatusCode::INTERNAL, ""}), 1);
  EXPECT_EQ(DescribeError({StatusCode::INVALID_ARGUMENT, "top_p is 2"}, "h:1"),
            "INVALID_ARGUMENT from h:1: top_p is 2");
}

TEST(StatusTest, PeopleSeeSparesAndReasons) {
  v1::StatusResponse status;
  status.set_model("m");
  status.set_state(v1::GROUP_STATE_WAITING_FOR_WORKERS);
  status.set_state_reason("1 of 2 workers");
  auto* worker = status.add_workers();
  worker->set_state(v1::WORKER_STATE_SPARE);
  worker->set_host_name("host");
  worker->set_metrics_address("127.0.0.1:9091");
  auto* lost = status.add_lost_workers();
  lost->set_worker_id(2);
  lost->set_process_id(7);
  lost->set_host_name("h");
  lost->set_cause("connection closed");
  const std::string text = ToText(status);
  EXPECT_THAT(text, HasSubstr("m: waiting for workers, 1 of 2 workers\n"));
  EXPECT_THAT(text, HasSubstr("-     spare     host"));
  EXPECT_THAT(text, HasSubstr("went away   worker 2 (pid 7 on host h): "
                              "connection closed\n"));
  EXPECT_THAT(text, HasSubstr("  127.0.0.1:9091\n"));
  EXPECT_EQ(ToJson(status)["lost_workers"][0]["cause"], "connection closed");
  EXPECT_TRUE(ToJson(status)["workers"][0]["rank"].is_null());
  EXPECT_EQ(ToJson(status)["workers"][0]["metrics_address"], "127.0.0.1:9091");
}

// --- Tokenize ---------------------------------------------------------------

class TokenizeTest : public ::testing::Test {
 protected:
  std::pair<absl::Status, std::string> Run(const std::string& input) {
    const auto tokenizer = Tokenizer::Load(model_.directory());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    std::istringstream in(input);
    std::ostringstream out;
    return {TokenizeLines(**tokenizer, in, out), out.str()};
  }

  const TinyModel model_;
};

TEST_F(TokenizeTest, EachLineGivesItsIdsWithoutSpecialTokens) {
  const auto [status, out] =
      Run("{\"text\": \"a\"}\n{\"text\": \"\"}\n{\"text\": \"b\\u00e9\"}");
  EXPECT_TRUE(status.ok()) << status;
  // Byte b is token 6 + b; e with an acute accent is two bytes.
  EXPECT_EQ(out,
            "{\"token_ids\":[103]}\n{\"token_ids\":[]}\n"
            "{\"token_ids\":[104,201,175]}\n");
}

TEST_F(TokenizeTest, ABadLineIsNamedAndNothingFollowsIt) {
  for (const char* bad :
       {"{", "[]", "{\"text\": 3}", "{}", "{\"text\": \"\xff\"}"}) {
    const auto [status, out] =
        Run(std::string("{\"text\": \"a\"}\n") + bad + "\n{\"text\": \"a\"}\n");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(status.ToString(), HasSubstr("line 2")) << bad;
    EXPECT_EQ(out, "{\"token_ids\":[103]}\n");
  }
}

}  // namespace
}  // namespace witan
