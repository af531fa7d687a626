// The public API beside its streams: refusals, health, reflection, metrics.

#include "coordinator/api/api_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/metric_names.h"
#include "base/status.h"
#include "net/channel.h"
#include "proto/cluster.grpc.pb.h"
#include "tests/api/running_api.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class ApiServerTest : public testing::Test {
 protected:
  ApiServerTest() { Start({}); }

  void Start(RunningApiOptions options) {
    api_.reset();
    api_ = std::make_unique<RunningApi>(tiny_.directory(), std::move(options));
  }

  // The answer of grpc.health.v1 for `name`: 1 serving, 2 not; 0 unknown.
  static int Health(const std::shared_ptr<grpc::Channel>& channel,
                    const std::string& name) {
    const std::string request =
        std::string("\x0a") + static_cast<char>(name.size()) + name;
    std::string response;
    const grpc::Status status =
        RawCall(channel, "/grpc.health.v1.Health/Check", request, &response);
    return status.ok() && response.size() == 2 ? response[1] : 0;
  }

  TinyModel tiny_;
  std::unique_ptr<RunningApi> api_;
};

TEST_F(ApiServerTest, RefusesWithAHintWhileNothingServes) {
  ReplicaSnapshot snapshot = *api_->engine().Snapshot();
  snapshot.state = ReplicaState::kPreparing;
  snapshot.not_serving_reason = "rank 0 has loaded 10 %";
  api_->engine().SetSnapshot(snapshot);
  const StreamResult outcome = api_->Generate(APrompt(1));
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(outcome.status.error_message(), HasSubstr("10 %"));
  EXPECT_EQ(outcome.pushback(), std::to_string(kRetryPushbackMs));
  EXPECT_THAT(outcome.status.error_details(), HasSubstr("RetryInfo"));
}

TEST_F(ApiServerTest, OneStreamTooManyIsRefusedWithAHint) {
  Start({.max_streams = 1});
  api_->engine().HoldTokens();
  grpc::ClientContext context;
  const auto reader = api_->inference().Generate(&context, APrompt(1));
  api_->engine().WaitForLive(1);
  const StreamResult second = api_->Generate(APrompt(1));
  EXPECT_EQ(second.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(second.pushback(), std::to_string(kRetryPushbackMs));
  api_->engine().Step();
  EXPECT_TRUE(ReadStream(context, *reader).status.ok());
  EXPECT_THAT(
      api_->Scrape(),
      HasSubstr("witan_admission_rejected_total{reason=\"streams\"} 1"));
}

TEST_F(ApiServerTest, BadRequestsAreRefusedAndHurtNobody) {
  api_->engine().HoldTokens();
  grpc::ClientContext context;
  const auto good = api_->inference().Generate(&context, APrompt(1));
  api_->engine().WaitForLive(1);
  std::vector<std::pair<std::string, v1::GenerateRequest>> bad;
  const auto add = [&bad](const std::string& field) -> v1::GenerateRequest& {
    bad.emplace_back(field, APrompt(1));
    return bad.back().second;
  };
  add("max_tokens").mutable_parameters()->set_max_tokens(0);
  add("max_tokens").mutable_parameters()->set_max_tokens(int64_t{1} << 31);
  add("max_tokens").mutable_parameters()->set_max_tokens(507);  // 6 + 507 > 512
  add("temperature")
      .mutable_parameters()
      ->set_temperature(std::numeric_limits<float>::quiet_NaN());
  add("text").set_text("");
  add("prompt").set_text(std::string(1 << 20, 'x'));  // beyond the context
  v1::GenerateRequest& stops = add("stop");
  for (int i = 0; i < 10000; ++i) stops.mutable_parameters()->add_stop("x");
  for (const auto& [field, request] : bad) {
    const StreamResult outcome = api_->Generate(request);
    EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << field;
    EXPECT_THAT(outcome.status.error_message(), HasSubstr(field));
    EXPECT_THAT(outcome.status.error_details(), HasSubstr("BadRequest"));
  }
  v1::GenerateRequest other = APrompt(1);
  other.set_model("gpt-9");
  EXPECT_EQ(api_->Generate(other).status.error_code(),
            grpc::StatusCode::NOT_FOUND);
  api_->engine().Step();
  EXPECT_TRUE(ReadStream(context, *good).status.ok());
}

// A request of `bytes` bytes that every method takes: all of it is one field
// that none knows.
std::string RequestOfSize(size_t bytes) {
  std::string request = "\x7a";  // field 15, bytes
  const size_t length = bytes - 5;
  for (int shift = 0; shift < 28; shift += 7) {
    const size_t more = shift < 21 ? 0x80 : 0;
    request += static_cast<char>((length >> shift & 0x7f) | more);
  }
  return request + std::string(length, 'x');
}

TEST_F(ApiServerTest, AByteTooManyInARequestIsRefusedWithTheLimit) {
  for (const char* method :
       {"Inference/Generate", "Inference/Chat", "Inference/Cancel",
        "Inference/Tokenize", "Inference/Detokenize", "Inference/ListModels",
        "Inference/GetModel", "Cluster/Status"}) {
    const std::string path = std::string("/witan.v1.") + method;
    const grpc::Status status =
        api_->Raw(path, RequestOfSize(kMaxRequestBytes + 1));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << method << ": " << status.error_message();
    EXPECT_THAT(status.error_message(),
                HasSubstr("4194305 bytes; at most 4194304"));
  }
  for (const char* method :
       {"Inference/Tokenize", "Inference/ListModels", "Cluster/Status"}) {
    const std::string path = std::string("/witan.v1.") + method;
    const grpc::Status status =
        api_->Raw(path, RequestOfSize(kMaxRequestBytes));
    EXPECT_TRUE(status.ok()) << method << ": " << status.error_message();
  }
  EXPECT_TRUE(api_->Generate(APrompt(1)).status.ok());
}

TEST_F(ApiServerTest, TextThatIsNotUtf8IsInvalidArgumentNotUnimplemented) {
  // GenerateRequest.text = "\xff", which no proto library would write.
  const std::string bytes = "\x1a\x01\xff";
  for (const char* method :
       {"/witan.v1.Inference/Generate", "/witan.v1.Inference/Chat",
        "/witan.v1.Inference/Tokenize"}) {
    const std::string request =
        std::string(method).ends_with("Tokenize") ? "\x12\x01\xff" : bytes;
    const grpc::Status status = api_->Raw(method, request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << method << ": " << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr("UTF-8"));
  }
}

TEST_F(ApiServerTest, TokenizesAndBack) {
  v1::TokenizeRequest request;
  request.set_text("h\xC3\xA9");
  v1::TokenizeResponse tokens;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(api_->inference().Tokenize(&context, request, &tokens).ok());
    EXPECT_THAT(tokens.token_ids(),
                ElementsAre(Letter('h'), kTinyFirstByteToken + 0xC3,
                            kTinyFirstByteToken + 0xA9));
  }
  request.set_add_special_tokens(true);
  {
    grpc::ClientContext context;
    v1::TokenizeResponse with_special;
    ASSERT_TRUE(
        api_->inference().Tokenize(&context, request, &with_special).ok());
    EXPECT_EQ(with_special.token_ids(0), kTinyBos);
  }
  v1::DetokenizeRequest back;
  *back.mutable_token_ids() = tokens.token_ids();
  back.add_token_ids(kTinyEnd);
  back.add_token_ids(319);  // of the model, without a token
  v1::DetokenizeResponse text;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(api_->inference().Detokenize(&context, back, &text).ok());
    EXPECT_EQ(text.text(), "h\xC3\xA9<|end|>");
  }
  back.set_skip_special_tokens(true);
  {
    grpc::ClientContext context;
    ASSERT_TRUE(api_->inference().Detokenize(&context, back, &text).ok());
    EXPECT_EQ(text.text(), "h\xC3\xA9");
  }
  back.add_token_ids(320);
  grpc::ClientContext context;
  EXPECT_EQ(api_->inference().Detokenize(&context, back, &text).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ApiServerTest, DescribesItsModel) {
  grpc::ClientContext context;
  v1::ListModelsResponse models;
  ASSERT_TRUE(api_->inference()
                  .ListModels(&context, v1::ListModelsRequest(), &models)
                  .ok());
  ASSERT_EQ(models.models_size(), 1);
  EXPECT_EQ(models.models(0).name(), "tiny");
  EXPECT_EQ(models.models(0).vocab_size(), 320);
  EXPECT_EQ(models.models(0).max_context_tokens(), 512);
  EXPECT_TRUE(models.models(0).has_chat_template());
  EXPECT_THAT(models.models(0).eos_token_ids(), ElementsAre(kTinyEnd));
  v1::GetModelRequest request;
  request.set_model("tiny");
  v1::Model model;
  grpc::ClientContext known;
  ASSERT_TRUE(api_->inference().GetModel(&known, request, &model).ok());
  EXPECT_EQ(model.SerializeAsString(), models.models(0).SerializeAsString());
  request.set_model("other");
  grpc::ClientContext unknown;
  EXPECT_EQ(api_->inference().GetModel(&unknown, request, &model).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(ApiServerTest, StatusShowsTheGroup) {
  const auto cluster = v1::Cluster::NewStub(api_->channel());
  api_->Generate(APrompt(5));
  grpc::ClientContext context;
  v1::StatusResponse status;
  ASSERT_TRUE(cluster->Status(&context, v1::StatusRequest(), &status).ok());
  EXPECT_EQ(status.model(), "tiny");
  EXPECT_EQ(status.state(), v1::GROUP_STATE_SERVING);
  EXPECT_EQ(status.epoch(), 3u);
  EXPECT_EQ(status.num_ranks(), 2);
  ASSERT_EQ(status.workers_size(), 2);
  EXPECT_EQ(status.workers(1).rank(), 1);
  EXPECT_EQ(status.workers(1).host_name(), "other\xEF\xBF\xBD");
  EXPECT_EQ(status.scheduler().generated_tokens(), 5);
  EXPECT_EQ(status.scheduler().prompt_tokens(), 6);
  EXPECT_EQ(status.grpc_address(), api_->server().grpc_address());
  EXPECT_EQ(status.metrics_address(), api_->server().metrics_address());
}

TEST_F(ApiServerTest, HealthNamesFollowTheGroup) {
  const std::vector<std::string> readiness = {
      "", "readiness", "witan.v1.Inference", "witan.v1.Cluster"};
  for (const std::string& name : readiness)
    EXPECT_EQ(Health(api_->channel(), name), 1) << name;
  api_->server().OnState(ReplicaState::kWaitingForWorkers);
  for (const std::string& name : readiness)
    EXPECT_EQ(Health(api_->channel(), name), 2) << name;
  EXPECT_EQ(Health(api_->channel(), "startup"), 1) << "it has served before";
  EXPECT_EQ(Health(api_->channel(), "liveness"), 1);
  EXPECT_EQ(Health(api_->channel(), "nonsense"), 0);
}

TEST_F(ApiServerTest, StartupIsNotHealthyBeforeTheFirstGroup) {
  ApiServerOptions options;
  options.inference = {.max_concurrent_streams = 1, .num_text_threads = 1};
  auto server = ApiServer::Start(options, api_->model(), api_->engine(), {},
                                 MonotonicClock());
  ASSERT_TRUE(server.ok());
  const auto channel =
      MakeChannel((*server)->grpc_address(), {.max_receive_bytes = 1024});
  EXPECT_EQ(Health(channel, "startup"), 2);
  EXPECT_EQ(Health(channel, ""), 2);
  EXPECT_EQ(Health(channel, "liveness"), 1);
}

TEST_F(ApiServerTest, ReflectionListsTheServices) {
  std::string response;
  // ServerReflectionRequest{list_services: "*"}
  const grpc::Status status = api_->Raw(
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      "\x3a\x01*", &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(response, AllOf(HasSubstr("witan.v1.Inference"),
                              HasSubstr("witan.v1.Cluster"),
                              HasSubstr("grpc.health.v1.Health")));
}

TEST_F(ApiServerTest, MetricsHaveEveryNameAndNoUserText) {
  v1::GenerateRequest request = APrompt(5);
  request.set_request_id("secret-id");
  request.set_text("secret text");
  ASSERT_TRUE(api_->Generate(request).status.ok());
  v1::GenerateRequest bad = APrompt(0);
  ASSERT_FALSE(api_->Generate(bad).status.ok());
  const std::string text = api_->Scrape();
  for (const char* name : {metric::kRequests,
                           metric::kRequestsInFlight,
                           metric::kPromptTokens,
                           metric::kGeneratedTokens,
                           metric::kReasoningTokens,
                           metric::kTimeToFirstToken,
                           metric::kInterTokenLatency,
                           metric::kRequestDuration,
                           metric::kQueueTime,
                           metric::kSequencesRunning,
                           metric::kSequencesWaiting,
                           metric::kKvBlocks,
                           metric::kKvCacheUsage,
                           metric::kPreemptions,
                           metric::kSteps,
                           metric::kStepRows,
                           metric::kGroupEpoch,
                           metric::kGroupServing,
                           metric::kGroupFailures,
                           metric::kWorkerUp,
                           metric::kWorkerStepSeconds,
                           metric::kLoadProgress,
                           metric::kBuildInfo}) {
    EXPECT_THAT(text, HasSubstr(std::string("\n# TYPE ") + name + " "));
  }
  EXPECT_THAT(text, HasSubstr("witan_generated_tokens_total 5\n"));
  EXPECT_THAT(text, HasSubstr("method=\"generate\",outcome=\"length\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("witan_group_epoch{replica=\"0\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("witan_inter_token_latency_seconds_count 4\n"));
  EXPECT_THAT(text, Not(HasSubstr("secret")));
}

TEST_F(ApiServerTest, APortInUseIsAClearError) {
  ApiServerOptions options;
  options.inference = {.max_concurrent_streams = 1, .num_text_threads = 1};
  const std::string address = api_->server().grpc_address();
  options.grpc.port = std::stoi(address.substr(address.rfind(':') + 1));
  const auto second = ApiServer::Start(options, api_->model(), api_->engine(),
                                       {}, MonotonicClock());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(
      std::string(MessageOf(second.status())),
      AllOf(HasSubstr(std::to_string(options.grpc.port)), HasSubstr("in use")));
}

}  // namespace
}  // namespace witan
