// Clients that do not take what they asked for.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>

#include "base/limits.h"
#include "base/metric_names.h"
#include "tests/api/running_api.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

class AdjustableClock final : public Clock {
 public:
  Micros Now() const override { return MonotonicClock().Now() + offset_us_; }
  void Advance(int64_t ms) { offset_us_ += ms * kMicrosPerMilli; }

 private:
  std::atomic<Micros> offset_us_{0};
};

// Eight choices of 500 tokens with log-probabilities of many others: more than
// the connection buffers and the server keeps for one client.
v1::GenerateRequest AFlood() {
  v1::GenerateRequest request = APrompt(500);
  request.mutable_parameters()->set_num_choices(8);
  request.mutable_parameters()->set_top_logprobs(20);
  return request;
}

SampledToken LetterWithMuchBeside(int choice, int64_t index) {
  SampledToken token = NextLetter(choice, index);
  token.top_logprobs.resize(20, token.top_logprobs[1]);
  return token;
}

// A connection of its own that takes 64 KiB and no more before it is read.
std::unique_ptr<v1::Inference::Stub> NarrowStub(RunningApi& api) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 65535);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return v1::Inference::NewStub(
      grpc::CreateCustomChannel(api.server().grpc_address(),
                                grpc::InsecureChannelCredentials(), arguments));
}

// Begins it and reads nothing, until all its choices are paused. None of them
// makes a token before the only thread for texts is done with the request, or
// one might end unpaused.
std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> BeginFlood(
    RunningApi& api, v1::Inference::Stub& stub, grpc::ClientContext& context,
    const v1::GenerateRequest& request) {
  api.engine().HoldTokens();
  auto reader = stub.Generate(&context, request);
  api.engine().WaitForLive(8);
  grpc::ClientContext tokenize_context;
  v1::TokenizeResponse response;
  EXPECT_TRUE(api.inference().Tokenize(&tokenize_context, {}, &response).ok());
  api.engine().HoldTokens(false);
  api.engine().WaitForPaused(8);
  return reader;
}

TEST(SlowReaderTest, OneThatCatchesUpMissesNothing) {
  const TinyModel model;
  RunningApi api(model.directory(),
                 {.next_token = LetterWithMuchBeside, .num_text_threads = 1});
  const auto stub = NarrowStub(api);
  grpc::ClientContext context;
  const auto reader = BeginFlood(api, *stub, context, AFlood());
  // Others are served meanwhile.
  EXPECT_EQ(api.Generate(APrompt(400)).NumTokens(), 400);
  const StreamResult result = ReadStream(context, *reader);
  EXPECT_TRUE(result.status.ok()) << result.status.error_message();
  ASSERT_EQ(result.choices.size(), 8u);
  for (const auto& [index, choice] : result.choices) {
    EXPECT_TRUE(choice.ended);
    ASSERT_EQ(choice.token_ids.size(), 500u);
    for (int i = 0; i < 500; ++i) {
      ASSERT_EQ(choice.token_ids[i], NextLetter(index, i).token_id);
    }
  }
}

TEST(SlowReaderTest, OneThatReadsNothingIsCutOffAndItsSequencesEnd) {
  const TinyModel model;
  AdjustableClock clock;
  RunningApi api(model.directory(), {.next_token = LetterWithMuchBeside,
                                     .num_text_threads = 1,
                                     .clock = &clock});
  const auto stub = NarrowStub(api);
  grpc::ClientContext context;
  v1::GenerateRequest request = AFlood();
  request.set_request_id("slow");
  const auto reader = BeginFlood(api, *stub, context, request);
  // Time passes until it is cut off: what it can still take is little.
  auto ended =
      std::async(std::launch::async, [&api] { api.engine().WaitForLive(0); });
  while (ended.wait_for(std::chrono::milliseconds(1)) !=
         std::future_status::ready) {
    clock.Advance(kSlowReaderTimeoutMs);
  }
  const StreamResult result = ReadStream(context, *reader);
  EXPECT_FALSE(result.status.ok());
  EXPECT_LT(result.NumTokens(), 4000);
  EXPECT_THAT(api.Scrape(),
              HasSubstr(std::string(metric::kSlowReadersCut) + " 1"));
  // Its id is free again.
  request = APrompt(3);
  request.set_request_id("slow");
  EXPECT_TRUE(api.Generate(request).status.ok());
}

TEST(SlowReaderTest, APauseOfTheClockBetweenTokensCutsNobody) {
  const TinyModel model;
  AdjustableClock clock;
  RunningApi api(model.directory(), {.clock = &clock});
  api.engine().HoldTokens();
  grpc::ClientContext context;
  const auto reader = api.inference().Generate(&context, APrompt(3));
  api.engine().WaitForLive(1);
  v1::GenerateResponse chunk;
  for (int i = 0; i < 3; ++i) {
    clock.Advance(2 * kSlowReaderTimeoutMs);
    api.engine().Step();
    ASSERT_TRUE(reader->Read(&chunk));
  }
  while (reader->Read(&chunk)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
}

}  // namespace
}  // namespace witan
