// The load generator against the API with a scripted engine: what it sends,
// that an open loop waits for nobody, and that no error is hidden.

#include <gmock/gmock.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <sstream>
#include <thread>

#include "base/metric_names.h"
#include "cli/bench/plan.h"
#include "cli/bench/runner.h"
#include "cli/bench/statistics.h"
#include "tests/api/running_api.h"

namespace witan::bench {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::Field;
using ::testing::HasSubstr;

constexpr int64_t kTimeoutMs = 300000;

Plan PlanOf(const WorkloadOptions& options) {
  const auto workload = MakeWorkload(options);
  EXPECT_TRUE(workload.ok()) << workload.status();
  auto plan = Plan::Make(*workload, {320, 512});
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

RunResult RunPlan(const Plan& plan,
                  const std::shared_ptr<grpc::Channel>& channel,
                  RunnerOptions options = {.timeout_ms = kTimeoutMs}) {
  Runner runner(plan, {channel}, options, MonotonicClock());
  return runner.Run([](const RunState&) {});
}

// A plan on its way in a thread of its own.
class Running {
 public:
  Running(const Plan& plan, const std::shared_ptr<grpc::Channel>& channel,
          RunnerOptions options = {.timeout_ms = kTimeoutMs})
      : thread_([this, &plan, channel, options] {
          result_ = RunPlan(plan, channel, options);
        }) {}
  RunResult Wait() {
    thread_.join();
    return std::move(result_);
  }

 private:
  RunResult result_;
  std::thread thread_;
};

// Sum of a metric over its labels that contain `label`.
double MetricOf(const std::string& scrape, const std::string& name,
                const std::string& label = "") {
  double sum = 0;
  std::istringstream lines(scrape);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name) && line.find(label) != std::string::npos &&
        (line[name.size()] == '{' || line[name.size()] == ' ')) {
      sum += std::stod(line.substr(line.rfind(' ')));
    }
  }
  return sum;
}

TEST(BenchRunTest, AnOpenLoopSendsEverythingWithoutAnAnswer) {
  const TinyModel model;
  RunningApi api(model.directory());
  api.engine().HoldTokens();
  for (const char* rate : {"inf", "4000"}) {
    const Plan plan = PlanOf({.settings = {{"rate", rate},
                                           {"num-requests", "40"},
                                           {"prompt-tokens", "9"},
                                           {"output-tokens", "3"}}});
    Running running(plan, api.channel());
    // None has been answered, and none is missing.
    api.engine().WaitForLive(40);
    for (int i = 0; i < 3; ++i) api.engine().Step();
    const RunResult result = running.Wait();
    ASSERT_EQ(result.records.size(), 40u);
    EXPECT_THAT(result.records,
                Each(Field(&Record::code, grpc::StatusCode::OK)));
    const Report report = MakeReport({"all"}, {}, result.records);
    EXPECT_EQ(report.total.peak_in_flight, 40);
    EXPECT_EQ(report.total.output_tokens, 120);
    EXPECT_EQ(report.total.client_lag_ms.count, 40);
  }
}

TEST(BenchRunTest, CountsAreThoseOfTheServer) {
  const TinyModel model;
  RunningApi api(model.directory());
  const Plan plan = PlanOf({.settings = {{"prompt-tokens", "uniform:1-60"},
                                         {"output-tokens", "uniform:1-30"}},
                            .classes = {"open:rate=500,num-requests=60",
                                        "closed:clients=3,num-requests=50"},
                            .num_warmup_requests = 11});
  const RunResult result = RunPlan(plan, api.channel());
  const Report report = MakeReport({"open", "closed"}, {}, result.records);
  EXPECT_EQ(report.total.num_completed, 110);
  EXPECT_EQ(report.classes[0].num_completed, 60);
  EXPECT_EQ(report.classes[1].num_completed, 50);
  EXPECT_EQ(report.warmup.num_completed, 11);
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  for (const Record& record : result.records) {
    prompt_tokens += record.prompt_tokens;
    output_tokens += record.NumTokens();
    EXPECT_EQ(record.NumTokens(), record.output_tokens);
    EXPECT_GE(record.server_queue_ms, 1);  // what the engine alone says
  }
  const std::string scrape = api.Scrape();
  EXPECT_EQ(MetricOf(scrape, metric::kRequests, "length"), 121);
  EXPECT_EQ(MetricOf(scrape, metric::kRequests), 121);
  EXPECT_EQ(MetricOf(scrape, metric::kPromptTokens), prompt_tokens);
  EXPECT_EQ(MetricOf(scrape, metric::kGeneratedTokens), output_tokens);
}

TEST(BenchRunTest, ClientsNeverHaveMoreThanOneRequestEach) {
  const TinyModel model;
  RunningApi api(model.directory());
  const Plan plan =
      PlanOf({.settings = {{"clients", "3"}, {"num-requests", "60"}}});
  const RunResult result = RunPlan(plan, api.channel());
  ASSERT_EQ(result.records.size(), 60u);
  for (const Record& record : result.records) {
    const auto num_overlapping = std::count_if(
        result.records.begin(), result.records.end(), [&](const Record& other) {
          return other.sent_us <= record.sent_us &&
                 record.sent_us < other.ended_us;
        });
    EXPECT_LE(num_overlapping, 3);
  }
}

TEST(BenchRunTest, RequestsAreThoseOfThePlanAndStopForNoToken) {
  const TinyModel model;
  // Nothing but end-of-sequence tokens.
  RunningApi api(model.directory(), {.next_token = [](int, int64_t) {
                   SampledToken token;
                   token.token_id = kTinyEnd;
                   return token;
                 }});
  api.engine().HoldTokens();
  const Plan plan = PlanOf({.settings = {{"clients", "1"},
                                         {"num-requests", "1"},
                                         {"prompt-tokens", "33"},
                                         {"output-tokens", "7"},
                                         {"tenant", "acme"},
                                         {"priority", "-2"},
                                         {"temperature", "0.5"}},
                            .seed = 77});
  Running running(plan, api.channel());
  api.engine().WaitForLive(1);
  const SequenceSpec spec = api.engine().last_spec();
  const PlannedRequest planned = plan.ClosedLoopRequest(0, 0);
  EXPECT_EQ(spec.prompt, plan.TokenIds(planned));
  EXPECT_EQ(spec.stop.max_tokens, 7);
  EXPECT_EQ(spec.sampling.temperature, 0.5f);
  EXPECT_EQ(spec.sampling.seed, planned.seed);
  for (int i = 0; i < 7; ++i) api.engine().Step();
  const RunResult result = running.Wait();
  ASSERT_EQ(result.records.size(), 1u);
  EXPECT_TRUE(result.records[0].ok()) << result.records[0].message;
  EXPECT_EQ(result.records[0].NumTokens(), 7);
}

TEST(BenchRunTest, AFailureIsCountedOnceAndNeverTriedAgain) {
  const TinyModel model;
  RunningApi api(model.directory());
  api.engine().HoldTokens();
  const Plan plan = PlanOf(
      {.settings = {
           {"rate", "inf"}, {"num-requests", "6"}, {"output-tokens", "5"}}});
  Running running(plan, api.channel());
  api.engine().WaitForLive(6);
  api.engine().Step();
  api.engine().FailAll(Unavailable("worker 1 went away"));
  const RunResult result = running.Wait();
  const Report report = MakeReport({"all"}, {}, result.records);
  EXPECT_EQ(report.total.num_completed, 0);
  EXPECT_EQ(report.total.num_failed, 6);
  EXPECT_EQ(report.total.failed_output_tokens, 6);
  ASSERT_EQ(report.total.errors.size(), 1u);
  EXPECT_EQ(report.total.errors[0].code, grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(report.total.errors[0].count, 6);
  EXPECT_THAT(report.total.errors[0].example, HasSubstr("worker 1 went away"));
  EXPECT_EQ(MetricOf(api.Scrape(), metric::kRequests), 6);
}

TEST(BenchRunTest, AServerThatAnswersNothingInTimeHasFailed) {
  const TinyModel model;
  RunningApi api(model.directory());
  api.engine().HoldTokens();
  const Plan plan =
      PlanOf({.settings = {{"clients", "2"}, {"num-requests", "2"}}});
  const RunResult result = RunPlan(plan, api.channel(), {.timeout_ms = 20});
  EXPECT_THAT(result.records,
              Each(Field(&Record::code, grpc::StatusCode::DEADLINE_EXCEEDED)));
  EXPECT_FALSE(result.interrupted);
}

TEST(BenchRunTest, AnInterruptedRunCancelsAndReports) {
  const TinyModel model;
  RunningApi api(model.directory());
  api.engine().HoldTokens();
  // Those of the second class are due after hours.
  const Plan at_once =
      PlanOf({.classes = {"now:rate=inf,num-requests=4",
                          "later:rate=0.0001,num-requests=3"}});
  std::atomic<bool> interrupted = false;
  Running running(at_once, api.channel(),
                  {.timeout_ms = kTimeoutMs, .interrupted = &interrupted});
  api.engine().WaitForLive(4);
  interrupted = true;
  const RunResult result = running.Wait();
  ASSERT_EQ(result.records.size(), 4u);
  EXPECT_THAT(result.records,
              Each(Field(&Record::code, grpc::StatusCode::CANCELLED)));
  EXPECT_THAT(result.records[0].message, HasSubstr("interrupted"));
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(result.num_unsent, 3);
  api.engine().WaitForLive(0);
}

// --- Streams that are not what they should be -------------------------------

constexpr int64_t kBrokenCachedTokens = 17;

// Answers a request by the script that its tenant names.
class BrokenServer final : public v1::Inference::Service {
 public:
  BrokenServer() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    channel_ = MakeChannel("127.0.0.1:" + std::to_string(port_),
                           {.max_receive_bytes = 1 << 20});
  }
  ~BrokenServer() override { server_->Shutdown(); }

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  grpc::Status Generate(
      grpc::ServerContext*, const v1::GenerateRequest* request,
      grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    const auto write = [&](int64_t index, v1::FinishReason reason) {
      v1::GenerateResponse chunk;
      chunk.set_token_index(index);
      chunk.add_token_ids(5);
      chunk.set_finish_reason(reason);
      if (reason != v1::FINISH_REASON_UNSPECIFIED) {
        chunk.mutable_usage()->set_cached_tokens(kBrokenCachedTokens);
      }
      writer->Write(chunk);
    };
    const v1::FinishReason goes_on = v1::FINISH_REASON_UNSPECIFIED;
    write(0, goes_on);
    if (request->tenant() == "repeats") {
      write(0, goes_on);
      write(1, v1::FINISH_REASON_LENGTH);
    } else if (request->tenant() == "skips") {
      write(2, v1::FINISH_REASON_LENGTH);
    } else if (request->tenant() == "stops") {
      write(1, v1::FINISH_REASON_STOP);
    } else if (request->tenant() == "falls-short") {
      write(1, v1::FINISH_REASON_LENGTH);
    } else if (request->tenant() == "is-whole") {
      write(1, goes_on);
      write(2, v1::FINISH_REASON_LENGTH);
    }
    return grpc::Status::OK;
  }

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST(BenchRunTest, MissingRepeatedAndUnaskedTokensAreLossOfData) {
  BrokenServer server;
  const std::pair<const char*, const char*> scripts[] = {
      {"repeats", "sent token 0 of choice 0, expected token 1"},
      {"skips", "sent token 2 of choice 0, expected token 1"},
      {"stops", "finished as \"stop\" after 2 of 3 tokens"},
      {"falls-short", "finished as \"length\" after 2 of 3 tokens"},
      {"breaks-off", "ended before choice 0 of 1 was finished"},
      {"is-whole", ""}};
  for (const auto& [tenant, message] : scripts) {
    const Plan plan = PlanOf({.settings = {{"tenant", tenant},
                                           {"num-requests", "2"},
                                           {"output-tokens", "3"}}});
    const RunResult result = RunPlan(plan, server.channel());
    ASSERT_EQ(result.records.size(), 2u);
    for (const Record& record : result.records) {
      EXPECT_EQ(record.code, *message == '\0' ? grpc::StatusCode::OK
                                              : grpc::StatusCode::DATA_LOSS)
          << tenant;
      EXPECT_THAT(record.message, HasSubstr(message));
    }
  }
}

TEST(BenchRunTest, ARecordSaysWhatTheServerCachedAndThePlanShares) {
  BrokenServer server;
  const Plan plan = PlanOf({.settings = {{"tenant", "is-whole"},
                                         {"num-requests", "2"},
                                         {"shared-prefix-tokens", "16"},
                                         {"output-tokens", "3"}}});
  const RunResult result = RunPlan(plan, server.channel());
  ASSERT_EQ(result.records.size(), 2u);
  EXPECT_THAT(result.records,
              Each(AllOf(Field(&Record::cached_tokens, kBrokenCachedTokens),
                         Field(&Record::shared_tokens, 16))));
  EXPECT_FALSE(result.stopped_at_max_requests);
}

}  // namespace
}  // namespace witan::bench
