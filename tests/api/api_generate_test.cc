// What a client's stream brings, from an engine that makes scripted tokens.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "tests/api/running_api.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

class ApiGenerateTest : public testing::Test {
 protected:
  ApiGenerateTest() { Start({}); }

  void Start(RunningApiOptions options) {
    api_.reset();
    api_ = std::make_unique<RunningApi>(tiny_.directory(), std::move(options));
  }

  TinyModel tiny_;
  std::unique_ptr<RunningApi> api_;
};

TEST_F(ApiGenerateTest, StreamsEveryTokenOfEveryChoiceOnce) {
  v1::GenerateRequest request = APrompt(30);
  request.mutable_parameters()->set_num_choices(3);
  request.mutable_parameters()->set_top_logprobs(1);
  request.mutable_parameters()->set_seed(77);
  const StreamResult outcome = api_->Generate(request);
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
  const SequenceSpec spec = api_->engine().last_spec();
  EXPECT_EQ(spec.prompt.front(), kTinyBos);
  EXPECT_EQ(spec.sampling.seed, 77u);
}

TEST_F(ApiGenerateTest, DrawsIdsAndSeedsThatTheClientDidNotChoose) {
  const StreamResult first = api_->Generate(APrompt(1));
  const StreamResult second = api_->Generate(APrompt(1));
  EXPECT_NE(first.request_id(), "");
  EXPECT_NE(first.request_id(), second.request_id());
  EXPECT_NE(first.choices.at(0).last.seed(), second.choices.at(0).last.seed());
}

TEST_F(ApiGenerateTest, EndsBeforeAStopStringAndTellsTheEngine) {
  v1::GenerateRequest request = APrompt(400);
  request.mutable_parameters()->add_stop("ghi");
  const StreamResult outcome = api_->Generate(request);
  ASSERT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.choices.at(0).text, "abcdef");
  EXPECT_EQ(outcome.choices.at(0).token_ids.size(), 9u);
  EXPECT_EQ(outcome.choices.at(0).last.finish_reason(), v1::FINISH_REASON_STOP);
  request.mutable_parameters()->set_include_stop_string(true);
  EXPECT_EQ(api_->Generate(request).choices.at(0).text, "abcdefghi");
}

TEST_F(ApiGenerateTest, StopRulesWaitForMinTokens) {
  v1::GenerateRequest request = APrompt(400);
  request.mutable_parameters()->add_stop("b");
  request.mutable_parameters()->set_min_tokens(2);
  const StreamResult outcome = api_->Generate(request);
  // The first b is token 1; the next one is 26 later.
  EXPECT_EQ(outcome.choices.at(0).token_ids.size(), 28u);
  EXPECT_EQ(outcome.choices.at(0).text, "abcdefghijklmnopqrstuvwxyza");
}

TEST_F(ApiGenerateTest, AStopTokenIsDeliveredButNotShown) {
  v1::GenerateRequest request = APrompt(400);
  request.mutable_parameters()->add_stop_token_ids(Letter('d'));
  const StreamResult outcome = api_->Generate(request);
  EXPECT_EQ(outcome.choices.at(0).text, "abc");
  EXPECT_EQ(outcome.choices.at(0).token_ids.back(), Letter('d'));
  EXPECT_EQ(outcome.choices.at(0).last.finish_reason(), v1::FINISH_REASON_STOP);
}

TEST_F(ApiGenerateTest, TextHeldBackForAStopStringComesAtTheEnd) {
  v1::GenerateRequest request = APrompt(4);
  request.mutable_parameters()->add_stop("cdX");
  EXPECT_EQ(api_->Generate(request).choices.at(0).text, "abcd");
}

TEST_F(ApiGenerateTest, CutCharactersBecomeReplacementsOnlyAtTheEnd) {
  const std::string euro = "\xE2\x82\xAC";
  Start({.next_token = [euro](int, int64_t index) {
    return SampledToken{
        .token_id = kTinyFirstByteToken +
                    static_cast<uint8_t>(euro[static_cast<size_t>(index) % 3])};
  }});
  EXPECT_EQ(api_->Generate(APrompt(6)).choices.at(0).text, euro + euro);
  EXPECT_EQ(api_->Generate(APrompt(5)).choices.at(0).text,
            euro + "\xEF\xBF\xBD");
}

TEST_F(ApiGenerateTest, ChatRendersTheTemplate) {
  v1::ChatRequest request;
  v1::ChatMessage& message = *request.add_messages();
  message.set_role("user");
  message.set_content("hi");
  request.mutable_parameters()->set_max_tokens(2);
  grpc::ClientContext context;
  const auto reader = api_->inference().Chat(&context, request);
  const StreamResult outcome = ReadStream(context, *reader);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  EXPECT_EQ(outcome.choices.at(0).text, "ab");
  const std::vector<TokenId> prompt = api_->engine().last_spec().prompt;
  EXPECT_THAT(prompt, testing::Contains(kTinyUser));
  EXPECT_EQ(std::count(prompt.begin(), prompt.end(), kTinyBos), 1);
}

TEST_F(ApiGenerateTest, CancelEndsEveryChoiceWithItsReason) {
  api_->engine().HoldTokens();
  v1::GenerateRequest request = APrompt(400);
  request.set_request_id("job-1");
  request.mutable_parameters()->set_num_choices(2);
  grpc::ClientContext context;
  const auto reader = api_->inference().Generate(&context, request);
  api_->engine().WaitForLive(2);
  api_->engine().Step();
  v1::CancelRequest cancel;
  cancel.set_request_id("job-1");
  v1::CancelResponse response;
  grpc::ClientContext cancel_context;
  ASSERT_TRUE(
      api_->inference().Cancel(&cancel_context, cancel, &response).ok());
  const StreamResult outcome = ReadStream(context, *reader);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  ASSERT_EQ(outcome.choices.size(), 2u);
  for (const auto& [index, choice] : outcome.choices) {
    EXPECT_EQ(choice.last.finish_reason(), v1::FINISH_REASON_CANCELLED);
    EXPECT_EQ(choice.token_ids.size(), 1u);
  }
  api_->engine().WaitForLive(0);
  cancel.set_request_id("job-2");
  grpc::ClientContext again;
  EXPECT_EQ(api_->inference().Cancel(&again, cancel, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(ApiGenerateTest, AClientThatGoesAwayFreesItsSequences) {
  api_->engine().HoldTokens();
  v1::GenerateRequest request = APrompt(400);
  request.set_request_id("gone");
  request.mutable_parameters()->set_num_choices(2);
  {
    grpc::ClientContext context;
    const auto reader = api_->inference().Generate(&context, request);
    api_->engine().WaitForLive(2);
    context.TryCancel();
    EXPECT_EQ(ReadStream(context, *reader).status.error_code(),
              grpc::StatusCode::CANCELLED);
  }
  api_->engine().WaitForLive(0);
}

TEST_F(ApiGenerateTest, ADeadlineReachesTheEngine) {
  constexpr Micros kHour = 3600 * kMicrosPerSecond;
  api_->engine().HoldTokens();
  const Micros before = MonotonicClock().Now();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::hours(1));
  const auto reader = api_->inference().Generate(&context, APrompt(400));
  api_->engine().WaitForLive(1);
  ASSERT_TRUE(api_->engine().last_spec().deadline.has_value());
  // What the call took to get here may count or not, by the hour.
  EXPECT_GT(*api_->engine().last_spec().deadline, before + kHour / 2);
  EXPECT_LT(*api_->engine().last_spec().deadline, before + 2 * kHour);
  context.TryCancel();
  ReadStream(context, *reader);
  api_->engine().WaitForLive(0);
  grpc::ClientContext no_deadline;
  const auto other = api_->inference().Generate(&no_deadline, APrompt(400));
  api_->engine().WaitForLive(1);
  EXPECT_FALSE(api_->engine().last_spec().deadline.has_value());
  no_deadline.TryCancel();
}

TEST_F(ApiGenerateTest, ARequestIdIsUniqueWhileItIsInFlight) {
  api_->engine().HoldTokens();
  v1::GenerateRequest request = APrompt(1);
  request.set_request_id("twice");
  grpc::ClientContext context;
  const auto reader = api_->inference().Generate(&context, request);
  api_->engine().WaitForLive(1);
  const StreamResult second = api_->Generate(request);
  EXPECT_EQ(second.status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_THAT(second.status.error_message(), HasSubstr("twice"));
  api_->engine().Step();
  const StreamResult first = ReadStream(context, *reader);
  EXPECT_TRUE(first.status.ok());
  EXPECT_EQ(first.request_id(), "twice");
}

TEST_F(ApiGenerateTest, TokensForASlowReaderAreMergedIntoFewerChunks) {
  api_->engine().HoldTokens();
  v1::GenerateRequest request = APrompt(500);
  request.mutable_parameters()->set_top_logprobs(1);
  request.mutable_parameters()->set_num_choices(8);
  grpc::ClientContext context;
  const auto reader = api_->inference().Generate(&context, request);
  api_->engine().WaitForLive(8);
  // 4000 tokens of about 60 bytes are made before the first is read: far more
  // than the stream's window takes one by one.
  for (int i = 0; i < 500; ++i) api_->engine().Step();
  api_->engine().WaitForLive(0);
  const StreamResult outcome = ReadStream(context, *reader);
  ASSERT_TRUE(outcome.status.ok());
  EXPECT_LT(static_cast<int>(outcome.chunks.size()), 3000);
  ASSERT_EQ(outcome.choices.size(), 8u);
  for (const auto& [index, choice] : outcome.choices) {
    EXPECT_EQ(choice.token_ids.size(), 500u);
    EXPECT_EQ(choice.logprobs.size(), 500u);
    EXPECT_EQ(choice.text.size(), 500u);
  }
}

TEST_F(ApiGenerateTest, ALostGroupEndsStreamsAfterTheTokensItMade) {
  api_->engine().HoldTokens();
  grpc::ClientContext context;
  const auto reader = api_->inference().Generate(&context, APrompt(400));
  api_->engine().WaitForLive(1);
  api_->engine().Step();
  api_->engine().Step();
  api_->engine().FailAll(Unavailable("rank 1 (pid 7) left: connection closed"));
  const StreamResult outcome = ReadStream(context, *reader);
  EXPECT_EQ(outcome.choices.at(0).text, "ab");
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(outcome.status.error_message(), HasSubstr("rank 1"));
  EXPECT_EQ(outcome.pushback(), std::to_string(kRetryPushbackMs));
}

}  // namespace
}  // namespace witan
