// The whole API over real sockets, with an engine that makes scripted tokens.

#include "coordinator/api/api_server.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/metric_names.h"
#include "base/status.h"
#include "net/channel.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/inference.grpc.pb.h"
#include "tests/api/fake_engine.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TokenId Letter(char c) { return kTinyFirstByteToken + c; }

// abcdef...zabc..., each with a log-probability that names its index.
SampledToken Alphabet(int choice, int64_t index) {
  const char letter = static_cast<char>('a' + (index + choice) % 26);
  SampledToken token;
  token.token_id = Letter(letter);
  token.logprob = -static_cast<float>(index) - 1;
  token.top_logprobs = {{.token_id = token.token_id, .logprob = token.logprob},
                        {.token_id = 0, .logprob = token.logprob - 1}};
  return token;
}

struct Choice {
  std::string text;
  std::vector<TokenId> token_ids;
  std::vector<float> logprobs;
  v1::GenerateResponse last;  // the chunk that ended it
  bool ended = false;
};

struct Outcome {
  grpc::Status status;
  std::map<int, Choice> choices;
  std::string request_id;
  int num_chunks = 0;
  std::string pushback;
};

// Reads a stream to its end. Every index must come exactly once, in order.
Outcome ReadAll(grpc::ClientContext& context,
                grpc::ClientReaderInterface<v1::GenerateResponse>& reader) {
  Outcome outcome;
  v1::GenerateResponse chunk;
  while (reader.Read(&chunk)) {
    ++outcome.num_chunks;
    outcome.request_id = chunk.request_id();
    Choice& choice = outcome.choices[chunk.choice()];
    EXPECT_FALSE(choice.ended) << "a chunk after the last one";
    EXPECT_EQ(chunk.token_index(),
              static_cast<int64_t>(choice.token_ids.size()));
    choice.text += chunk.text();
    choice.token_ids.insert(choice.token_ids.end(), chunk.token_ids().begin(),
                            chunk.token_ids().end());
    for (const v1::TokenLogprobs& logprobs : chunk.logprobs()) {
      choice.logprobs.push_back(logprobs.logprob());
    }
    if (chunk.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      choice.ended = true;
      choice.last = chunk;
    }
  }
  outcome.status = reader.Finish();
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto pushback = trailers.find("grpc-retry-pushback-ms");
  if (pushback != trailers.end()) {
    outcome.pushback =
        std::string(pushback->second.data(), pushback->second.size());
  }
  return outcome;
}

class ApiServerTest : public testing::Test {
 protected:
  ApiServerTest() { Start(Alphabet); }

  void Start(FakeEngine::NextTokenFn next_token, int max_streams = 100) {
    server_.reset();
    engine_.reset();
    auto model = LoadServedModel(tiny_.directory(), "tiny", 0);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = std::make_unique<ServedModel>(*std::move(model));
    engine_ = std::make_unique<FakeEngine>(std::move(next_token));
    ApiServerOptions options;
    options.has_metrics = true;
    options.inference = {.max_concurrent_streams = max_streams,
                         .num_text_threads = 2};
    auto server =
        ApiServer::Start(options, *model_, *engine_, {}, MonotonicClock());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    server_->OnState(ReplicaState::kServing);
    channel_ =
        MakeChannel(server_->grpc_address(), {.max_receive_bytes = 64 << 20});
    inference_ = v1::Inference::NewStub(channel_);
  }

  // The stream's sinks call the server's objects: end the streams first.
  ~ApiServerTest() override {
    if (server_ != nullptr) server_->Shutdown(0);
    engine_.reset();
    server_.reset();
  }

  Outcome Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto reader = inference_->Generate(&context, request);
    return ReadAll(context, *reader);
  }

  // A unary call with bytes of our own making.
  grpc::Status Raw(const std::string& method, const std::string& request,
                   std::string* response = nullptr) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    const grpc::Slice slice(request);
    const grpc::ByteBuffer in(&slice, 1);
    grpc::ByteBuffer out;
    std::promise<grpc::Status> done;
    stub.UnaryCall(&context, method, grpc::StubOptions(), &in, &out,
                   [&done](grpc::Status status) { done.set_value(status); });
    const grpc::Status status = done.get_future().get();
    grpc::Slice joined;
    if (response != nullptr && out.DumpToSingleSlice(&joined).ok()) {
      response->assign(reinterpret_cast<const char*>(joined.begin()),
                       joined.size());
    }
    return status;
  }

  // The answer of grpc.health.v1 for `name`: 1 serving, 2 not; 0 unknown.
  int Health(const std::string& name) {
    const std::string request =
        std::string("\x0a") + static_cast<char>(name.size()) + name;
    std::string response;
    const grpc::Status status =
        Raw("/grpc.health.v1.Health/Check", request, &response);
    return status.ok() && response.size() == 2 ? response[1] : 0;
  }

  std::string Scrape() {
    const std::string address = server_->metrics_address();
    const int port = std::stoi(address.substr(address.rfind(':') + 1));
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
    const std::string request =
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    EXPECT_EQ(send(fd, request.data(), request.size(), 0),
              static_cast<ssize_t>(request.size()));
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
      text.append(buffer, static_cast<size_t>(n));
    }
    close(fd);
    return text;
  }

  static v1::GenerateRequest APrompt(int64_t max_tokens) {
    v1::GenerateRequest request;
    request.set_text("hello");
    request.mutable_parameters()->set_max_tokens(max_tokens);
    return request;
  }

  TinyModel tiny_;
  std::unique_ptr<ServedModel> model_;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<ApiServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> inference_;
};

TEST_F(ApiServerTest, StreamsEveryTokenOfEveryChoiceOnce) {
  v1::GenerateRequest request = APrompt(30);
  request.mutable_parameters()->set_num_choices(3);
  request.mutable_parameters()->set_top_logprobs(1);
  request.mutable_parameters()->set_seed(77);
  const Outcome outcome = Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  ASSERT_EQ(outcome.choices.size(), 3u);
  for (const auto& [index, choice] : outcome.choices) {
    std::string text;
    for (int i = 0; i < 30; ++i) {
      text += static_cast<char>('a' + (i + index) % 26);
      ASSERT_EQ(choice.token_ids[i], Letter(text.back()));
      ASSERT_EQ(choice.logprobs[i], -static_cast<float>(i) - 1);
    }
    EXPECT_EQ(choice.text, text);
    EXPECT_EQ(choice.token_ids.size(), 30u);
    EXPECT_EQ(choice.last.finish_reason(), v1::FINISH_REASON_LENGTH);
    EXPECT_EQ(choice.last.usage().prompt_tokens(), 6);  // with <|bos|>
    EXPECT_EQ(choice.last.usage().completion_tokens(), 30);
    EXPECT_EQ(choice.last.seed(), 77u);
    EXPECT_EQ(choice.last.timings().prefill_ms(), 2);
    EXPECT_EQ(choice.last.timings().decode_ms(), 4);
  }
  const SequenceSpec spec = engine_->last_spec();
  EXPECT_EQ(spec.prompt.front(), kTinyBos);
  EXPECT_EQ(spec.sampling.seed, 77u);
}

TEST_F(ApiServerTest, DrawsIdsAndSeedsThatTheClientDidNotChoose) {
  const Outcome first = Generate(APrompt(1));
  const Outcome second = Generate(APrompt(1));
  EXPECT_NE(first.request_id, "");
  EXPECT_NE(first.request_id, second.request_id);
  EXPECT_NE(first.choices.at(0).last.seed(), second.choices.at(0).last.seed());
}

TEST_F(ApiServerTest, EndsBeforeAStopStringAndTellsTheEngine) {
  v1::GenerateRequest request = APrompt(400);
  request.mutable_parameters()->add_stop("ghi");
  const Outcome outcome = Generate(request);
  ASSERT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.choices.at(0).text, "abcdef");
  EXPECT_EQ(outcome.choices.at(0).token_ids.size(), 9u);
  EXPECT_EQ(outcome.choices.at(0).last.finish_reason(), v1::FINISH_REASON_STOP);
  request.mutable_parameters()->set_include_stop_string(true);
  EXPECT_EQ(Generate(request).choices.at(0).text, "abcdefghi");
}

TEST_F(ApiServerTest, StopRulesWaitForMinTokens) {
  v1::GenerateRequest request = APrompt(400);
  request.mutable_parameters()->add_stop("b");
  request.mutable_parameters()->set_min_tokens(2);
  const Outcome outcome = Generate(request);
  // The first b is token 1; the next one is 26 later.
  EXPECT_EQ(outcome.choices.at(0).token_ids.size(), 28u);
  EXPECT_EQ(outcome.choices.at(0).text, "abcdefghijklmnopqrstuvwxyza");
}

TEST_F(ApiServerTest, AStopTokenIsDeliveredButNotShown) {
  v1::GenerateRequest request = APrompt(400);
  request.mutable_parameters()->add_stop_token_ids(Letter('d'));
  const Outcome outcome = Generate(request);
  EXPECT_EQ(outcome.choices.at(0).text, "abc");
  EXPECT_EQ(outcome.choices.at(0).token_ids.back(), Letter('d'));
  EXPECT_EQ(outcome.choices.at(0).last.finish_reason(), v1::FINISH_REASON_STOP);
}

TEST_F(ApiServerTest, TextHeldBackForAStopStringComesAtTheEnd) {
  v1::GenerateRequest request = APrompt(4);
  request.mutable_parameters()->add_stop("cdX");
  EXPECT_EQ(Generate(request).choices.at(0).text, "abcd");
}

TEST_F(ApiServerTest, CutCharactersBecomeReplacementsOnlyAtTheEnd) {
  const std::string euro = "\xE2\x82\xAC";
  Start([euro](int, int64_t index) {
    return SampledToken{
        .token_id = kTinyFirstByteToken +
                    static_cast<uint8_t>(euro[static_cast<size_t>(index) % 3])};
  });
  EXPECT_EQ(Generate(APrompt(6)).choices.at(0).text, euro + euro);
  EXPECT_EQ(Generate(APrompt(5)).choices.at(0).text, euro + "\xEF\xBF\xBD");
}

TEST_F(ApiServerTest, ChatRendersTheTemplate) {
  v1::ChatRequest request;
  v1::ChatMessage& message = *request.add_messages();
  message.set_role("user");
  message.set_content("hi");
  request.mutable_parameters()->set_max_tokens(2);
  grpc::ClientContext context;
  const auto reader = inference_->Chat(&context, request);
  const Outcome outcome = ReadAll(context, *reader);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  EXPECT_EQ(outcome.choices.at(0).text, "ab");
  const std::vector<TokenId> prompt = engine_->last_spec().prompt;
  EXPECT_THAT(prompt, testing::Contains(kTinyUser));
  EXPECT_EQ(std::count(prompt.begin(), prompt.end(), kTinyBos), 1);
}

TEST_F(ApiServerTest, CancelEndsEveryChoiceWithItsReason) {
  engine_->HoldTokens();
  v1::GenerateRequest request = APrompt(400);
  request.set_request_id("job-1");
  request.mutable_parameters()->set_num_choices(2);
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, request);
  engine_->WaitForLive(2);
  engine_->Step();
  v1::CancelRequest cancel;
  cancel.set_request_id("job-1");
  v1::CancelResponse response;
  grpc::ClientContext cancel_context;
  ASSERT_TRUE(inference_->Cancel(&cancel_context, cancel, &response).ok());
  const Outcome outcome = ReadAll(context, *reader);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  ASSERT_EQ(outcome.choices.size(), 2u);
  for (const auto& [index, choice] : outcome.choices) {
    EXPECT_EQ(choice.last.finish_reason(), v1::FINISH_REASON_CANCELLED);
    EXPECT_EQ(choice.token_ids.size(), 1u);
  }
  engine_->WaitForLive(0);
  cancel.set_request_id("job-2");
  grpc::ClientContext again;
  EXPECT_EQ(inference_->Cancel(&again, cancel, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(ApiServerTest, AClientThatGoesAwayFreesItsSequences) {
  engine_->HoldTokens();
  v1::GenerateRequest request = APrompt(400);
  request.set_request_id("gone");
  request.mutable_parameters()->set_num_choices(2);
  {
    grpc::ClientContext context;
    const auto reader = inference_->Generate(&context, request);
    engine_->WaitForLive(2);
    context.TryCancel();
    EXPECT_EQ(ReadAll(context, *reader).status.error_code(),
              grpc::StatusCode::CANCELLED);
  }
  engine_->WaitForLive(0);
}

TEST_F(ApiServerTest, ADeadlineReachesTheEngine) {
  constexpr Micros kHour = 3600 * kMicrosPerSecond;
  engine_->HoldTokens();
  const Micros before = MonotonicClock().Now();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::hours(1));
  const auto reader = inference_->Generate(&context, APrompt(400));
  engine_->WaitForLive(1);
  ASSERT_TRUE(engine_->last_spec().deadline.has_value());
  // What the call took to get here may count or not, by the hour.
  EXPECT_GT(*engine_->last_spec().deadline, before + kHour / 2);
  EXPECT_LT(*engine_->last_spec().deadline, before + 2 * kHour);
  context.TryCancel();
  ReadAll(context, *reader);
  engine_->WaitForLive(0);
  grpc::ClientContext no_deadline;
  const auto other = inference_->Generate(&no_deadline, APrompt(400));
  engine_->WaitForLive(1);
  EXPECT_FALSE(engine_->last_spec().deadline.has_value());
  no_deadline.TryCancel();
}

TEST_F(ApiServerTest, ARequestIdIsUniqueWhileItIsInFlight) {
  engine_->HoldTokens();
  v1::GenerateRequest request = APrompt(1);
  request.set_request_id("twice");
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, request);
  engine_->WaitForLive(1);
  const Outcome second = Generate(request);
  EXPECT_EQ(second.status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_THAT(second.status.error_message(), HasSubstr("twice"));
  engine_->Step();
  const Outcome first = ReadAll(context, *reader);
  EXPECT_TRUE(first.status.ok());
  EXPECT_EQ(first.request_id, "twice");
}

TEST_F(ApiServerTest, TokensForASlowReaderAreMergedIntoFewerChunks) {
  engine_->HoldTokens();
  v1::GenerateRequest request = APrompt(500);
  request.mutable_parameters()->set_top_logprobs(1);
  request.mutable_parameters()->set_num_choices(8);
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, request);
  engine_->WaitForLive(8);
  // 4000 tokens of about 60 bytes are made before the first is read: far more
  // than the stream's window takes one by one.
  for (int i = 0; i < 500; ++i) engine_->Step();
  engine_->WaitForLive(0);
  const Outcome outcome = ReadAll(context, *reader);
  ASSERT_TRUE(outcome.status.ok());
  EXPECT_LT(outcome.num_chunks, 3000);
  ASSERT_EQ(outcome.choices.size(), 8u);
  for (const auto& [index, choice] : outcome.choices) {
    EXPECT_EQ(choice.token_ids.size(), 500u);
    EXPECT_EQ(choice.logprobs.size(), 500u);
    EXPECT_EQ(choice.text.size(), 500u);
  }
}

TEST_F(ApiServerTest, ALostGroupEndsStreamsAfterTheTokensItMade) {
  engine_->HoldTokens();
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, APrompt(400));
  engine_->WaitForLive(1);
  engine_->Step();
  engine_->Step();
  engine_->FailAll(Unavailable("rank 1 (pid 7) left: connection closed"));
  const Outcome outcome = ReadAll(context, *reader);
  EXPECT_EQ(outcome.choices.at(0).text, "ab");
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(outcome.status.error_message(), HasSubstr("rank 1"));
  EXPECT_EQ(outcome.pushback, std::to_string(kRetryPushbackMs));
}

TEST_F(ApiServerTest, RefusesWithAHintWhileNothingServes) {
  ReplicaSnapshot snapshot = *engine_->Snapshot();
  snapshot.state = ReplicaState::kPreparing;
  snapshot.not_serving_reason = "rank 0 has loaded 10 %";
  engine_->SetSnapshot(snapshot);
  const Outcome outcome = Generate(APrompt(1));
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(outcome.status.error_message(), HasSubstr("10 %"));
  EXPECT_EQ(outcome.pushback, std::to_string(kRetryPushbackMs));
  EXPECT_THAT(outcome.status.error_details(), HasSubstr("RetryInfo"));
}

TEST_F(ApiServerTest, OneStreamTooManyIsRefusedWithAHint) {
  Start(Alphabet, /*max_streams=*/1);
  engine_->HoldTokens();
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, APrompt(1));
  engine_->WaitForLive(1);
  const Outcome second = Generate(APrompt(1));
  EXPECT_EQ(second.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(second.pushback, std::to_string(kRetryPushbackMs));
  engine_->Step();
  EXPECT_TRUE(ReadAll(context, *reader).status.ok());
  EXPECT_THAT(
      Scrape(),
      HasSubstr("witan_admission_rejected_total{reason=\"streams\"} 1"));
}

TEST_F(ApiServerTest, BadRequestsAreRefusedAndHurtNobody) {
  engine_->HoldTokens();
  grpc::ClientContext context;
  const auto good = inference_->Generate(&context, APrompt(1));
  engine_->WaitForLive(1);
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
    const Outcome outcome = Generate(request);
    EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << field;
    EXPECT_THAT(outcome.status.error_message(), HasSubstr(field));
    EXPECT_THAT(outcome.status.error_details(), HasSubstr("BadRequest"));
  }
  v1::GenerateRequest other = APrompt(1);
  other.set_model("gpt-9");
  EXPECT_EQ(Generate(other).status.error_code(), grpc::StatusCode::NOT_FOUND);
  engine_->Step();
  EXPECT_TRUE(ReadAll(context, *good).status.ok());
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
    const grpc::Status status = Raw(path, RequestOfSize(kMaxRequestBytes + 1));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << method << ": " << status.error_message();
    EXPECT_THAT(status.error_message(),
                HasSubstr("4194305 bytes; at most 4194304"));
  }
  for (const char* method :
       {"Inference/Tokenize", "Inference/ListModels", "Cluster/Status"}) {
    const std::string path = std::string("/witan.v1.") + method;
    const grpc::Status status = Raw(path, RequestOfSize(kMaxRequestBytes));
    EXPECT_TRUE(status.ok()) << method << ": " << status.error_message();
  }
  EXPECT_TRUE(Generate(APrompt(1)).status.ok());
}

TEST_F(ApiServerTest, TextThatIsNotUtf8IsInvalidArgumentNotUnimplemented) {
  // GenerateRequest.text = "\xff", which no proto library would write.
  const std::string bytes = "\x1a\x01\xff";
  for (const char* method :
       {"/witan.v1.Inference/Generate", "/witan.v1.Inference/Chat",
        "/witan.v1.Inference/Tokenize"}) {
    const std::string request =
        std::string(method).ends_with("Tokenize") ? "\x12\x01\xff" : bytes;
    const grpc::Status status = Raw(method, request);
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
    ASSERT_TRUE(inference_->Tokenize(&context, request, &tokens).ok());
    EXPECT_THAT(tokens.token_ids(),
                ElementsAre(Letter('h'), kTinyFirstByteToken + 0xC3,
                            kTinyFirstByteToken + 0xA9));
  }
  request.set_add_special_tokens(true);
  {
    grpc::ClientContext context;
    v1::TokenizeResponse with_special;
    ASSERT_TRUE(inference_->Tokenize(&context, request, &with_special).ok());
    EXPECT_EQ(with_special.token_ids(0), kTinyBos);
  }
  v1::DetokenizeRequest back;
  *back.mutable_token_ids() = tokens.token_ids();
  back.add_token_ids(kTinyEnd);
  back.add_token_ids(319);  // of the model, without a token
  v1::DetokenizeResponse text;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(inference_->Detokenize(&context, back, &text).ok());
    EXPECT_EQ(text.text(), "h\xC3\xA9<|end|>");
  }
  back.set_skip_special_tokens(true);
  {
    grpc::ClientContext context;
    ASSERT_TRUE(inference_->Detokenize(&context, back, &text).ok());
    EXPECT_EQ(text.text(), "h\xC3\xA9");
  }
  back.add_token_ids(320);
  grpc::ClientContext context;
  EXPECT_EQ(inference_->Detokenize(&context, back, &text).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ApiServerTest, DescribesItsModel) {
  grpc::ClientContext context;
  v1::ListModelsResponse models;
  ASSERT_TRUE(
      inference_->ListModels(&context, v1::ListModelsRequest(), &models).ok());
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
  ASSERT_TRUE(inference_->GetModel(&known, request, &model).ok());
  EXPECT_EQ(model.SerializeAsString(), models.models(0).SerializeAsString());
  request.set_model("other");
  grpc::ClientContext unknown;
  EXPECT_EQ(inference_->GetModel(&unknown, request, &model).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(ApiServerTest, StatusShowsTheGroup) {
  const auto cluster = v1::Cluster::NewStub(channel_);
  Generate(APrompt(5));
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
  EXPECT_EQ(status.grpc_address(), server_->grpc_address());
  EXPECT_EQ(status.metrics_address(), server_->metrics_address());
}

TEST_F(ApiServerTest, HealthNamesFollowTheGroup) {
  const std::vector<std::string> readiness = {
      "", "readiness", "witan.v1.Inference", "witan.v1.Cluster"};
  for (const std::string& name : readiness) EXPECT_EQ(Health(name), 1) << name;
  server_->OnState(ReplicaState::kWaitingForWorkers);
  for (const std::string& name : readiness) EXPECT_EQ(Health(name), 2) << name;
  EXPECT_EQ(Health("startup"), 1) << "it has served before";
  EXPECT_EQ(Health("liveness"), 1);
  EXPECT_EQ(Health("nonsense"), 0);
}

TEST_F(ApiServerTest, StartupIsNotHealthyBeforeTheFirstGroup) {
  ApiServerOptions options;
  options.inference = {.max_concurrent_streams = 1, .num_text_threads = 1};
  auto server =
      ApiServer::Start(options, *model_, *engine_, {}, MonotonicClock());
  ASSERT_TRUE(server.ok());
  channel_ =
      MakeChannel((*server)->grpc_address(), {.max_receive_bytes = 1024});
  EXPECT_EQ(Health("startup"), 2);
  EXPECT_EQ(Health(""), 2);
  EXPECT_EQ(Health("liveness"), 1);
}

TEST_F(ApiServerTest, ReflectionListsTheServices) {
  std::string response;
  // ServerReflectionRequest{list_services: "*"}
  const grpc::Status status =
      Raw("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
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
  ASSERT_TRUE(Generate(request).status.ok());
  v1::GenerateRequest bad = APrompt(0);
  ASSERT_FALSE(Generate(bad).status.ok());
  const std::string text = Scrape();
  for (const char* name :
       {metric::kRequests,         metric::kRequestsInFlight,
        metric::kPromptTokens,     metric::kGeneratedTokens,
        metric::kTimeToFirstToken, metric::kInterTokenLatency,
        metric::kRequestDuration,  metric::kQueueTime,
        metric::kSequencesRunning, metric::kSequencesWaiting,
        metric::kKvBlocks,         metric::kKvCacheUsage,
        metric::kPreemptions,      metric::kSteps,
        metric::kStepRows,         metric::kGroupEpoch,
        metric::kGroupServing,     metric::kGroupFailures,
        metric::kWorkerUp,         metric::kWorkerStepSeconds,
        metric::kLoadProgress,     metric::kBuildInfo}) {
    EXPECT_THAT(text, HasSubstr(std::string("\n# TYPE ") + name + " "));
  }
  EXPECT_THAT(text, HasSubstr("witan_generated_tokens_total 5\n"));
  EXPECT_THAT(text, HasSubstr("method=\"generate\",outcome=\"length\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("witan_group_epoch 3\n"));
  EXPECT_THAT(text, HasSubstr("witan_inter_token_latency_seconds_count 4\n"));
  EXPECT_THAT(text, Not(HasSubstr("secret")));
}

TEST_F(ApiServerTest, APortInUseIsAClearError) {
  ApiServerOptions options;
  options.inference = {.max_concurrent_streams = 1, .num_text_threads = 1};
  const std::string address = server_->grpc_address();
  options.grpc.port = std::stoi(address.substr(address.rfind(':') + 1));
  const auto second =
      ApiServer::Start(options, *model_, *engine_, {}, MonotonicClock());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(
      std::string(MessageOf(second.status())),
      AllOf(HasSubstr(std::to_string(options.grpc.port)), HasSubstr("in use")));
}

}  // namespace
}  // namespace witan
