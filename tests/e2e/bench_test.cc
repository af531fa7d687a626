// `witan bench` as a person runs it, against a cluster of processes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "tests/e2e/local_cluster.h"
#include "tests/testing/temp_directory.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(BenchTest, CountsWhatTheClusterCountedAndWritesItsReports) {
  const TinyModel model;
  LocalServe serve(model.directory(), {"--tp=2", "--ep=2"});
  ASSERT_NE(serve.ready_line(), "") << serve.program().err();
  const TempDirectory directory;
  const std::string plot = directory.path() + "/run.svg";
  const ProgramResult result = RunBinary(
      "witan", {"bench", "--server=" + serve.server(), "--warmup-requests=3",
                "--class=decoders:clients=4,num-requests=12,prompt-tokens=5,"
                "output-tokens=uniform:10-30",
                "--class=bursts:rate=20,burst=4,num-requests=12,"
                "prompt-tokens=normal:90,20,40-140,output-tokens=2",
                "--shared-prefix-tokens=32", "--num-prefixes=2",
                "--tenant-per-prefix", "--objective=ttft:60000", "--seed=5",
                "--json=-", "--json-requests", "--plot=" + plot});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["total"]["completed"], 24);
  EXPECT_EQ(json["total"]["failed"], 0);
  EXPECT_EQ(json["total"]["good"], 24);
  EXPECT_EQ(json["classes"][0]["completed"], 12);
  EXPECT_EQ(json["warmup"]["completed"], 3);
  EXPECT_EQ(json["requests"].size(), 27u);
  // Two prefixes of two classes; the warm-up and each other's requests leave
  // them in the cache.
  EXPECT_GT(json["total"]["cached_tokens"], 0);
  EXPECT_LE(json["total"]["cached_tokens"], 24 * 32);
  EXPECT_THAT(result.err, Not(HasSubstr("use another --seed")));
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  for (const auto& request : json["requests"]) {
    prompt_tokens += request["prompt_tokens"].get<int64_t>();
    output_tokens += request["output_tokens"].get<int64_t>();
  }
  const v1::StatusResponse status =
      serve.WaitForStatus([&](const v1::StatusResponse& now) {
        return now.scheduler().generated_tokens() >= output_tokens &&
               now.scheduler().running_sequences() == 0;
      });
  EXPECT_EQ(status.scheduler().generated_tokens(), output_tokens);
  EXPECT_EQ(status.scheduler().prompt_tokens(), prompt_tokens);
  EXPECT_EQ(json["server"]["build_id"], status.build_id());
  EXPECT_EQ(json["server"]["weights_id"], status.weights_id());
  // Tables and progress, one line per 5 %, are on stderr.
  EXPECT_THAT(result.err, HasSubstr("requests     24 completed, 0 failed"));
  EXPECT_THAT(result.err, HasSubstr("bench: 100 %  24 / 24 requests"));
  EXPECT_THAT(ReadAll(plot), StartsWith("<svg"));
}

TEST(BenchTest, ARunThatIsRepeatedWithItsSeedIsToldSo) {
  const TinyModel model;
  LocalServe serve(model.directory(), {});
  ASSERT_NE(serve.ready_line(), "") << serve.program().err();
  const auto run = [&](const char* seed) {
    return RunBinary("witan",
                     {"bench", "--server=" + serve.server(), "--num-requests=3",
                      "--prompt-tokens=70", "--output-tokens=2", seed});
  };
  const char* const note = "note: 3 prompts were found in the server's prefix";
  EXPECT_THAT(run("--seed=1").out, Not(HasSubstr(note)));
  EXPECT_THAT(run("--seed=1").out, HasSubstr(note));
  EXPECT_THAT(run("--seed=2").out, Not(HasSubstr(note)));
}

TEST(BenchTest, AServerThatDiesIsInTheReportAndInTheExitCode) {
  const TinyModel model;
  LocalServe serve(model.directory(), {});
  ASSERT_NE(serve.ready_line(), "") << serve.program().err();
  RunningProgram bench(
      BinaryPath("witan"),
      {"bench", "--server=" + serve.server(), "--clients=4",
       "--num-requests=4000", "--prompt-tokens=4", "--output-tokens=20"});
  ASSERT_TRUE(bench.ReadUntil([&] {
    return bench.err().find("5 %") != std::string::npos;
  })) << bench.err();
  const pid_t coordinator = ChildOf(serve.program().pid(), "witan-coordinator");
  ASSERT_GT(coordinator, 0);
  kill(coordinator, SIGKILL);
  EXPECT_EQ(bench.WaitForEnd(), kExitPeerLost);
  EXPECT_THAT(bench.out(), HasSubstr("times UNAVAILABLE, e.g. "));
  EXPECT_THAT(bench.out(), Not(HasSubstr(" 0 failed")));

  // Nobody is there to be measured.
  const ProgramResult alone =
      RunBinary("witan", {"bench", "--server=" + serve.server()});
  EXPECT_EQ(alone.exit_code, kExitPeerLost);
  EXPECT_THAT(alone.err, HasSubstr("cannot reach a coordinator at"));
}

TEST(BenchTest, ATraceIsReplayedAndErrorsMayBeAllowed) {
  const TinyModel model;
  LocalServe serve(model.directory(), {});
  ASSERT_NE(serve.ready_line(), "") << serve.program().err();
  const TempDirectory directory;
  const std::string path = directory.path() + "/trace.jsonl";
  std::ofstream(path)
      << "{\"timestamp\": 0, \"input_length\": 800, \"output_length\": 16, "
         "\"hash_ids\": [1, 2]}\n"
      << "{\"timestamp\": 50, \"input_length\": 900, \"output_length\": 24, "
         "\"hash_ids\": [1, 3]}\n"
      << "{\"timestamp\": 60, \"input_length\": 90000, \"output_length\": "
         "24}\n";
  const std::vector<std::string> arguments = {
      "bench", "--server=" + serve.server(), "--replay=" + path,
      "--replay-length-scale=0.125"};
  const ProgramResult refused = RunBinary("witan", arguments);
  EXPECT_EQ(refused.exit_code, kExitUsage);
  EXPECT_THAT(refused.err, HasSubstr(path + ": line 3: its prompt of 11250"));
  auto lenient = arguments;
  lenient.push_back("--replay-skip-unservable");
  const ProgramResult replayed = RunBinary("witan", lenient);
  EXPECT_EQ(replayed.exit_code, kExitOk) << replayed.err;
  EXPECT_THAT(replayed.out, HasSubstr("requests     2 completed, 0 failed"));
  EXPECT_THAT(replayed.out, HasSubstr("left out     1 entries"));

  // No request can be answered in a millisecond.
  const std::vector<std::string> hasty = {"bench",
                                          "--server=" + serve.server(),
                                          "--num-requests=3",
                                          "--prompt-tokens=8",
                                          "--output-tokens=400",
                                          "--timeout-s=0.001"};
  const ProgramResult failed = RunBinary("witan", hasty);
  EXPECT_EQ(failed.exit_code, kExitInternal);
  EXPECT_THAT(failed.out, HasSubstr("failed: 3 times DEADLINE_EXCEEDED"));
  auto allowed = hasty;
  allowed.push_back("--allow-errors");
  const ProgramResult tolerated = RunBinary("witan", allowed);
  EXPECT_EQ(tolerated.exit_code, kExitOk);
  EXPECT_THAT(tolerated.out, HasSubstr("failed: 3 times DEADLINE_EXCEEDED"));
}

TEST(BenchTest, WhatIsWrongIsSaidBeforeAnythingIsSent) {
  const std::pair<std::vector<std::string>, const char*> wrong[] = {
      {{"--rate=fast"}, "--rate=fast: must be a number above 0"},
      {{"--num-request=5"}, "unknown option --num-request; did you mean"},
      {{"--objective=ttft"}, "--objective ttft: must be"},
      {{"--plot=x.png"}, "--plot x.png: the plot is an SVG file"},
      {{"--plot=/no/such/x.svg"}, "--plot /no/such/x.svg: cannot write it"},
      {{"--json=/no/such/x"}, "--json /no/such/x: cannot write it"},
      {{"--json-requests"}, "--json-requests adds to --json"},
      {{"--replay=/no/such"}, "cannot open /no/such"},
      {{"--connections=0"}, "--connections is 0; allowed is 1 to 64"},
      {{"--duration=-1"}, "--duration is -1; allowed is 0 to"}};
  for (const auto& [arguments, message] : wrong) {
    std::vector<std::string> all = {"bench"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const ProgramResult result = RunBinary("witan", all);
    EXPECT_EQ(result.exit_code, kExitUsage) << result.err;
    EXPECT_THAT(result.err, HasSubstr(message));
  }
}

}  // namespace
}  // namespace witan
