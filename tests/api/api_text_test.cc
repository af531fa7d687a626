// Text at the API's edge: what it refuses, and what does not wait for it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/limits.h"
#include "coordinator/api/messages.h"
#include "tests/api/running_api.h"

// A message that cannot be written.
struct Unwritable {};

namespace grpc {
template <>
class SerializationTraits<Unwritable> {
 public:
  static Status Serialize(const Unwritable&, ByteBuffer*, bool*) {
    return Status(StatusCode::INTERNAL, "too large");
  }
};
}  // namespace grpc

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Json = nlohmann::ordered_json;

// Parses, changes and writes a JSON file of a model.
template <typename Change>
void ChangeJson(const TinyModel& model, const std::string& name,
                const Change& change) {
  const std::string path = model.directory() + "/" + name;
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  Json json = Json::parse(text.str());
  change(json);
  std::ofstream(path) << json.dump();
}

v1::ChatRequest AChat(const std::string& content) {
  v1::ChatRequest request;
  v1::ChatMessage& message = *request.add_messages();
  message.set_role("user");
  message.set_content(content);
  request.mutable_parameters()->set_max_tokens(1);
  return request;
}

// A retry would fail just the same, so no hint asks for one.
void ExpectBadField(const StreamResult& result, const std::string& field,
                    const std::string& reason) {
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(result.status.error_message(),
              AllOf(HasSubstr(field), HasSubstr(reason)));
  EXPECT_THAT(result.status.error_details(),
              AllOf(HasSubstr("BadRequest"), HasSubstr(field)));
  EXPECT_FALSE(result.trailers.contains("grpc-retry-pushback-ms"));
}

TEST(ApiTextTest, AConversationThatExhaustsTheTemplateIsABadRequest) {
  const TinyModel model;
  ChangeJson(model, "tokenizer_config.json", [](Json& config) {
    config["chat_template"] =
        "{% for i in range(100000) %}{% for j in range(100000) %}"
        "{% endfor %}{% endfor %}";
  });
  RunningApi api(model.directory());
  ExpectBadField(api.Chat(AChat("hi")), "messages", "steps");
}

TEST(ApiTextTest, AConversationThatTheTemplateRefusesIsABadRequest) {
  const TinyModel model;
  ChangeJson(model, "tokenizer_config.json", [](Json& config) {
    config["chat_template"] = "{{ raise_exception('no such role') }}";
  });
  RunningApi api(model.directory());
  ExpectBadField(api.Chat(AChat("hi")), "messages", "no such role");
}

TEST(ApiTextTest, AnErrorThatQuotesALongTextArrivesWithItsField) {
  const TinyModel model;
  ChangeJson(model, "tokenizer_config.json", [](Json& config) {
    config["chat_template"] = "{{ raise_exception(messages[0].content) }}";
  });
  RunningApi api(model.directory());
  // Every character takes nine bytes in a header.
  std::string text;
  while (text.size() < size_t{64} << 10) text += "\xE2\x82\xAC";
  const StreamResult result = api.Chat(AChat(text));
  ExpectBadField(result, "messages", text.substr(0, 900));
  EXPECT_LE(result.status.error_message().size(), kMaxStatusMessageBytes);
}

TEST(ApiTextTest, TextThatExhaustsTheTokenizerIsABadRequest) {
  const TinyModel model;
  ChangeJson(model, "tokenizer.json", [](Json& tokenizer) {
    const Json byte_level = tokenizer["pre_tokenizer"];
    const Json split = {{"type", "Split"},
                        {"pattern", {{"Regex", "(a|aa)+[bc]"}}},
                        {"behavior", "Isolated"}};
    tokenizer["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers", Json::array({split, byte_level})}};
  });
  RunningApi api(model.directory());
  const std::string text(200, 'a');
  v1::GenerateRequest request = APrompt(1);
  request.set_text(text);
  ExpectBadField(api.Generate(request), "text", "matching");
  ExpectBadField(api.Chat(AChat(text)), "messages", "matching");
  v1::TokenizeRequest tokenize;
  tokenize.set_text(text);
  v1::TokenizeResponse tokens;
  grpc::ClientContext context;
  const grpc::Status status =
      api.inference().Tokenize(&context, tokenize, &tokens);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("text"));
}

TEST(ApiTextTest, ChatNeedsAModelWithATemplate) {
  const TinyModel model;
  ChangeJson(model, "tokenizer_config.json",
             [](Json& config) { config.erase("chat_template"); });
  RunningApi api(model.directory());
  const StreamResult result = api.Chat(AChat("hi"));
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(result.status.error_message(),
              AllOf(HasSubstr("chat template"), HasSubstr("Generate")));
  EXPECT_FALSE(result.trailers.contains("grpc-retry-pushback-ms"));
  EXPECT_TRUE(api.Generate(APrompt(1)).status.ok());
}

TEST(ApiTextTest, ADeeplyNestedTemplateArgumentIsABadRequest) {
  const TinyModel model;
  RunningApi api(model.directory());
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  v1::ChatRequest request = AChat("hi");
  auto& arguments = *request.mutable_template_arguments();
  // Several: they must not be copied on the way either.
  for (const char* name : {"a", "b", "c", "d"}) {
    arguments[name] = nested(kMaxTemplateArgumentBytes / 2);
  }
  ExpectBadField(api.Chat(request), "template_arguments[a]",
                 "nested deeper than 63 levels");
  for (auto& [name, value] : arguments) value = nested(kMaxJsonDepth - 1);
  EXPECT_TRUE(api.Chat(request).status.ok());
  arguments["d"] = nested(kMaxJsonDepth);
  ExpectBadField(api.Chat(request), "template_arguments[d]", "63 levels");
}

TEST(ApiTextTest, DetokenizeTakesABoundedNumberOfTokens) {
  const TinyModel model;
  RunningApi api(model.directory());
  v1::DetokenizeRequest request;
  for (int i = 0; i < kMaxDetokenizeTokens; ++i) {
    request.add_token_ids(kTinyFirstByteToken + 'x');
  }
  v1::DetokenizeResponse response;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(api.inference().Detokenize(&context, request, &response).ok());
    EXPECT_EQ(response.text(), std::string(kMaxDetokenizeTokens, 'x'));
  }
  request.add_token_ids(kTinyFirstByteToken);
  grpc::ClientContext context;
  const grpc::Status status =
      api.inference().Detokenize(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(
      status.error_message(),
      AllOf(HasSubstr("token_ids"), HasSubstr("262145"), HasSubstr("262144")));
}

TEST(ApiTextTest, AnAnswerThatCannotBeWrittenIsAnError) {
  grpc::ByteBuffer bytes;
  const absl::Status status = SerializeMessage(Unwritable(), bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(MessageOf(status)), HasSubstr("too large"));
}

TEST(ApiTextTest, WhatNeedsNoTextDoesNotWaitForTheTextPool) {
  const TinyModel model;
  RunningApi api(model.directory(), {.num_text_threads = 1});
  api.engine().HoldTokens();
  v1::GenerateRequest request = APrompt(400);
  request.set_request_id("long");
  grpc::ClientContext running_context;
  const auto running = api.inference().Generate(&running_context, request);
  api.engine().WaitForLive(1);
  // Its only thread is busy with another request from here on.
  api.engine().HoldIds(true);
  grpc::ClientContext held_context;
  const auto held = api.inference().Generate(&held_context, APrompt(400));
  api.engine().WaitForWaitingForIds(1);

  v1::ListModelsResponse models;
  grpc::ClientContext list_context;
  EXPECT_TRUE(api.inference().ListModels(&list_context, {}, &models).ok());
  v1::GetModelRequest get;
  get.set_model("tiny");
  v1::Model described;
  grpc::ClientContext get_context;
  EXPECT_TRUE(api.inference().GetModel(&get_context, get, &described).ok());
  v1::CancelRequest cancel;
  cancel.set_request_id("long");
  v1::CancelResponse cancelled;
  grpc::ClientContext cancel_context;
  EXPECT_TRUE(api.inference().Cancel(&cancel_context, cancel, &cancelled).ok());
  const StreamResult result = ReadStream(running_context, *running);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(result.chunks.back().finish_reason(), v1::FINISH_REASON_CANCELLED);

  api.engine().HoldIds(false);
  held_context.TryCancel();
  ReadStream(held_context, *held);
}

TEST(ApiTextTest, CallsThatOnlyTokenizeLeaveRoomInTheTextPool) {
  const TinyModel model;
  RunningApi api(model.directory(), {.num_text_threads = 1});
  api.engine().HoldTokens();
  api.engine().HoldIds(true);
  grpc::ClientContext held_context;
  const auto held = api.inference().Generate(&held_context, APrompt(400));
  api.engine().WaitForWaitingForIds(1);
  // The only thread is busy from here on.
  struct Call {
    grpc::ClientContext context;
    v1::TokenizeResponse response;
    std::promise<grpc::Status> status;
  };
  v1::TokenizeRequest request;
  request.set_text("hello");
  std::promise<grpc::Status> refused;  // by the call that came last
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < kMaxTextCalls + 1; ++i) {
    Call& call = *calls.emplace_back(std::make_unique<Call>());
    api.inference().async()->Tokenize(&call.context, &request, &call.response,
                                      [&call, &refused](grpc::Status status) {
                                        if (!status.ok())
                                          refused.set_value(status);
                                        call.status.set_value(status);
                                      });
  }
  EXPECT_EQ(refused.get_future().get().error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  // The others wait, and a stream finds a place behind them.
  grpc::ClientContext context;
  const auto stream = api.inference().Generate(&context, APrompt(400));
  api.engine().HoldIds(false);
  api.engine().WaitForLive(2);
  int num_refused = 0;
  for (const auto& call : calls) {
    if (!call->status.get_future().get().ok()) ++num_refused;
  }
  EXPECT_EQ(num_refused, 1);
  api.engine().FailAll(Unavailable("over"));
  ReadStream(context, *stream);
  ReadStream(held_context, *held);
}

// How many threads were still in the engine when a server had shut down whose
// only stream ended before the text pool came back from the engine.
int NumInEngineAfterShutdown(const TinyModel& model) {
  RunningApi api(model.directory(), {.num_text_threads = 1});
  api.engine().HoldIds(true);
  grpc::ClientContext context;
  const auto stream = api.inference().Generate(&context, APrompt(400));
  api.engine().WaitForWaitingForIds(1);
  context.TryCancel();
  ReadStream(context, *stream);
  int num_in_engine = -1;
  std::thread closer([&] {
    api.server().Shutdown(0);
    num_in_engine = api.engine().num_waiting_for_ids();
  });
  grpc::Status status;
  while (status.error_code() != grpc::StatusCode::UNAVAILABLE) {
    grpc::ClientContext list_context;
    v1::ListModelsResponse models;
    status = api.inference().ListModels(&list_context, {}, &models);
  }
  api.engine().HoldIds(false);
  closer.join();
  return num_in_engine;
}

TEST(ApiTextTest, ShutdownWaitsForTextThatIsStillWorkedOn) {
  const TinyModel model;
  // A server that does not wait may still be the slower one now and then.
  for (int i = 0; i < 10; ++i) EXPECT_EQ(NumInEngineAfterShutdown(model), 0);
}

}  // namespace
}  // namespace witan
