#include "proto/generation_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "proto/error_details.pb.h"
#include "proto/rpc_status.h"

namespace witan {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

ModelFacts AModel() {
  ModelFacts model;
  model.name = "toy";
  model.config.vocab_size = 100;
  model.config.max_context_tokens = 64;
  model.max_context_tokens = 64;
  model.generation.eos_token_ids = {2, 7};
  model.generation.temperature = 0.5f;
  model.generation.top_k = 11;
  return model;
}

v1::GenerateRequest AGenerate() {
  v1::GenerateRequest request;
  request.set_text("hello");
  return request;
}

v1::ChatRequest AChat() {
  v1::ChatRequest request;
  v1::ChatMessage& message = *request.add_messages();
  message.set_role("user");
  message.set_content("hello");
  return request;
}

// The field in the BadRequest detail that a client would see; empty if none.
std::string FieldOf(const absl::Status& status) {
  rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(ToGrpcStatus(status).error_details()));
  for (const google::protobuf::Any& any : details.details()) {
    rpc::BadRequest bad_request;
    if (any.type_url() == "type.googleapis.com/google.rpc.BadRequest" &&
        bad_request.ParseFromString(any.value())) {
      return bad_request.field_violations(0).field();
    }
  }
  return "";
}

TEST(GenerationRequestTest, ADefaultTopKBeyondTheVocabularyKeepsAllOfIt) {
  ModelFacts model = AModel();
  model.generation.top_k = 1000;
  const auto request = ReadRequest(AGenerate(), model);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.top_k, model.config.vocab_size);
}

TEST(GenerationRequestTest, UnsetParametersComeFromTheModelThenFromTheEngine) {
  const auto request = ReadRequest(AGenerate(), AModel());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.temperature, 0.5f);  // generation config
  EXPECT_EQ(request->sampling.top_k, 11);          // generation config
  EXPECT_EQ(request->sampling.top_p, 1.0f);        // engine
  EXPECT_EQ(request->sampling.repetition_penalty, 1.0f);
  EXPECT_EQ(request->sampling.num_top_logprobs, -1);
  EXPECT_FALSE(request->has_seed);
  EXPECT_THAT(request->stop.stop_token_ids, ElementsAre(2, 7));
  EXPECT_EQ(request->num_choices, 1);
  EXPECT_TRUE(request->skip_special_tokens);
  EXPECT_TRUE(request->add_special_tokens);
  EXPECT_FALSE(request->include_stop_string);
}

TEST(GenerationRequestTest, SetParametersWinEvenWhenTheyAreZero) {
  v1::GenerateRequest in = AGenerate();
  v1::GenerationParameters& parameters = *in.mutable_parameters();
  parameters.set_temperature(0);
  parameters.set_top_k(0);
  parameters.set_seed(0);
  parameters.set_top_logprobs(0);
  parameters.set_skip_special_tokens(false);
  in.set_add_special_tokens(false);
  parameters.set_ignore_eos(true);
  parameters.add_stop_token_ids(9);
  parameters.add_stop_token_ids(9);
  (*parameters.mutable_logit_bias())[5] = -1;
  (*parameters.mutable_logit_bias())[3] = 2;
  const auto request = ReadRequest(in, AModel());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.temperature, 0);
  EXPECT_EQ(request->sampling.top_k, 0);
  EXPECT_TRUE(request->has_seed);
  EXPECT_EQ(request->sampling.num_top_logprobs, 0);
  EXPECT_FALSE(request->skip_special_tokens);
  EXPECT_FALSE(request->add_special_tokens);
  EXPECT_THAT(request->stop.stop_token_ids, ElementsAre(9));
  EXPECT_THAT(request->sampling.logit_bias,
              ElementsAre(LogitBias{.token_id = 3, .bias = 2},
                          LogitBias{.token_id = 5, .bias = -1}));
}

TEST(GenerationRequestTest, EndTokensAreBannedWhileThereIsAMinimum) {
  v1::GenerateRequest in = AGenerate();
  v1::GenerationParameters& parameters = *in.mutable_parameters();
  parameters.add_stop_token_ids(9);
  auto request = ReadRequest(in, AModel());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->sampling.end_token_ids, IsEmpty());
  parameters.set_min_tokens(3);
  request = ReadRequest(in, AModel());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.min_tokens, 3);
  EXPECT_THAT(request->sampling.end_token_ids, ElementsAre(2, 7, 9));
  parameters.set_ignore_eos(true);
  request = ReadRequest(in, AModel());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->sampling.end_token_ids, ElementsAre(9));
}

TEST(GenerationRequestTest, ThoughtsToolsAndCallsAreKeptWhereTheyAreSet) {
  v1::ChatRequest in = AChat();
  in.mutable_parameters()->set_echo(true);
  in.mutable_parameters()->set_prompt_logprobs(0);
  in.mutable_parameters()->set_thinking_budget_tokens(1);
  in.mutable_parameters()->add_bad_words("bad");
  v1::ChatMessage& message = *in.mutable_messages(0);
  message.set_reasoning_content("");
  message.add_tool_calls()->set_name("add");
  in.add_tools("{}");
  const auto request = ReadRequest(in, AModel());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->echo);
  EXPECT_EQ(request->sampling.num_prompt_logprobs, 0);
  EXPECT_EQ(request->thinking_budget_tokens, 1);
  EXPECT_THAT(request->bad_words, ElementsAre("bad"));
  EXPECT_EQ(request->messages[0].reasoning_content, "");
  EXPECT_EQ(request->messages[0].tool_calls[0].name, "add");
  EXPECT_EQ(request->messages[0].tool_call_id, std::nullopt);
  EXPECT_EQ(request->messages[0].name, std::nullopt);
  EXPECT_THAT(request->tools, ElementsAre("{}"));
  // The thought would be closed before the prompt is scored.
  in.mutable_parameters()->set_thinking_budget_tokens(0);
  EXPECT_TRUE(absl::IsInvalidArgument(ReadRequest(in, AModel()).status()));
  in.mutable_parameters()->clear_prompt_logprobs();
  EXPECT_EQ(ReadRequest(in, AModel())->thinking_budget_tokens, 0);
  const auto plain = ReadRequest(AChat(), AModel());
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_FALSE(plain->echo);
  EXPECT_EQ(plain->sampling.num_prompt_logprobs, -1);
  EXPECT_EQ(plain->thinking_budget_tokens, std::nullopt);
  EXPECT_EQ(plain->messages[0].reasoning_content, std::nullopt);
}

TEST(GenerationRequestTest, ToolsAndCallsThatCannotBeAreRefused) {
  const std::vector<
      std::pair<const char*, std::function<void(v1::ChatRequest&)>>>
      refusals = {
          {"tools",
           [](auto& r) {
             for (int i = 0; i <= kMaxTools; ++i) r.add_tools("{}");
           }},
          {"tools", [](auto& r) { r.add_tools(""); }},
          {"tools",
           [](auto& r) {
             r.add_tools(std::string(kMaxTemplateArgumentBytes + 1, 'x'));
           }},
          {"tools",
           [](auto& r) {
             r.add_tools("{}");
             (*r.mutable_template_arguments())["tools"] = "[]";
           }},
          {"messages.tool_calls.name",
           [](auto& r) { r.mutable_messages(0)->add_tool_calls(); }},
          {"messages.tool_calls",
           [](auto& r) {
             for (int i = 0; i <= kMaxToolCalls; ++i) {
               r.mutable_messages(0)->add_tool_calls()->set_name("x");
             }
           }},
          {"messages.tool_calls.id",
           [](auto& r) {
             v1::ToolCall& call = *r.mutable_messages(0)->add_tool_calls();
             call.set_name("x");
             call.set_id(std::string(kMaxToolNameBytes + 1, 'x'));
           }},
          {"messages.tool_calls.arguments",
           [](auto& r) {
             v1::ToolCall& call = *r.mutable_messages(0)->add_tool_calls();
             call.set_name("x");
             call.set_arguments("\xff");
           }},
          {"messages.tool_call_id",
           [](auto& r) { r.mutable_messages(0)->set_tool_call_id("\xff"); }},
          {"messages.name",
           [](auto& r) {
             r.mutable_messages(0)->set_name(
                 std::string(kMaxToolNameBytes + 1, 'x'));
           }},
          {"messages.reasoning_content",
           [](auto& r) {
             r.mutable_messages(0)->set_reasoning_content("\xff");
           }},
          {"messages",
           [](auto& r) {
             const std::string half(kMaxPromptTextBytes / 2, 'x');
             r.mutable_messages(0)->set_content(half);
             r.mutable_messages(0)->set_reasoning_content(half + "x");
           }},
      };
  for (const auto& [field, damage] : refusals) {
    v1::ChatRequest request = AChat();
    damage(request);
    EXPECT_EQ(FieldOf(ReadRequest(request, AModel()).status()), field);
  }
}

TEST(GenerationRequestTest, ChatKeepsMessagesAndLeavesSpecialTokensToTemplate) {
  v1::ChatRequest in = AChat();
  (*in.mutable_template_arguments())["enable_thinking"] = "true";
  in.set_add_generation_prompt(false);
  const auto request = ReadRequest(in, AModel());
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->messages.size(), 1u);
  EXPECT_EQ(request->messages[0].role, "user");
  EXPECT_EQ(request->template_arguments.at("enable_thinking"), "true");
  EXPECT_FALSE(request->add_special_tokens);
  EXPECT_FALSE(request->add_generation_prompt);
}

struct Refusal {
  const char* field;
  std::function<void(v1::GenerationParameters&)> damage;
};

TEST(GenerationRequestTest, ParametersOutOfRangeAreRefusedByField) {
  const std::vector<Refusal> refusals = {
      {"temperature", [](auto& p) { p.set_temperature(kNan); }},
      {"temperature", [](auto& p) { p.set_temperature(-0.1f); }},
      {"temperature", [](auto& p) { p.set_temperature(kInfinity); }},
      {"temperature",
       [](auto& p) {
         p.set_temperature(std::nextafter(kMinTemperature, 0.0f));
       }},
      {"temperature",
       [](auto& p) {
         p.set_temperature(std::numeric_limits<float>::denorm_min());
       }},
      {"top_k", [](auto& p) { p.set_top_k(-1); }},
      {"top_k", [](auto& p) { p.set_top_k(101); }},
      {"top_p", [](auto& p) { p.set_top_p(0); }},
      {"top_p", [](auto& p) { p.set_top_p(1.5f); }},
      {"top_p", [](auto& p) { p.set_top_p(kNan); }},
      {"min_p", [](auto& p) { p.set_min_p(-0.5f); }},
      {"min_p", [](auto& p) { p.set_min_p(kNan); }},
      {"repetition_penalty", [](auto& p) { p.set_repetition_penalty(0); }},
      {"presence_penalty", [](auto& p) { p.set_presence_penalty(kNan); }},
      {"frequency_penalty", [](auto& p) { p.set_frequency_penalty(101); }},
      {"top_logprobs", [](auto& p) { p.set_top_logprobs(-1); }},
      {"top_logprobs",
       [](auto& p) { p.set_top_logprobs(kMaxTopLogprobs + 1); }},
      {"logit_bias[100]", [](auto& p) { (*p.mutable_logit_bias())[100] = 1; }},
      {"logit_bias[-1]", [](auto& p) { (*p.mutable_logit_bias())[-1] = 1; }},
      {"logit_bias[1]", [](auto& p) { (*p.mutable_logit_bias())[1] = kNan; }},
      {"logit_bias",
       [](auto& p) {
         for (int i = 0; i <= kMaxLogitBias; ++i) {
           (*p.mutable_logit_bias())[i] = 1;
         }
       }},
      {"max_tokens", [](auto& p) { p.set_max_tokens(0); }},
      {"max_tokens", [](auto& p) { p.set_max_tokens(-5); }},
      {"max_tokens", [](auto& p) { p.set_max_tokens(int64_t{1} << 31); }},
      {"min_tokens", [](auto& p) { p.set_min_tokens(-1); }},
      {"min_tokens",
       [](auto& p) {
         p.set_max_tokens(3);
         p.set_min_tokens(4);
       }},
      {"stop",
       [](auto& p) {
         for (int i = 0; i < 10000; ++i) p.add_stop("x");
       }},
      {"stop", [](auto& p) { p.add_stop(""); }},
      {"stop",
       [](auto& p) { p.add_stop(std::string(kMaxStopStringBytes + 1, 'x')); }},
      {"stop_token_ids[0]", [](auto& p) { p.add_stop_token_ids(100); }},
      {"stop_token_ids",
       [](auto& p) {
         for (int i = 0; i <= kMaxStopTokenIds; ++i) p.add_stop_token_ids(1);
       }},
      {"num_choices", [](auto& p) { p.set_num_choices(0); }},
      {"num_choices", [](auto& p) { p.set_num_choices(kMaxChoices + 1); }},
  };
  for (const Refusal& refusal : refusals) {
    v1::GenerateRequest generate = AGenerate();
    refusal.damage(*generate.mutable_parameters());
    v1::ChatRequest chat = AChat();
    refusal.damage(*chat.mutable_parameters());
    for (const absl::Status& status : {ReadRequest(generate, AModel()).status(),
                                       ReadRequest(chat, AModel()).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument)
          << refusal.field;
      EXPECT_EQ(FieldOf(status), std::string("parameters.") + refusal.field);
      EXPECT_THAT(std::string(MessageOf(status)), HasSubstr("allowed"))
          << "says what is allowed";
    }
  }
}

TEST(GenerationRequestTest, ScoresBudgetsAndBadWordsOutOfRangeAreRefused) {
  const std::vector<Refusal> refusals = {
      {"prompt_logprobs", [](auto& p) { p.set_prompt_logprobs(-1); }},
      {"prompt_logprobs",
       [](auto& p) { p.set_prompt_logprobs(kMaxTopLogprobs + 1); }},
      {"thinking_budget_tokens",
       [](auto& p) { p.set_thinking_budget_tokens(-1); }},
      {"thinking_budget_tokens",
       [](auto& p) { p.set_thinking_budget_tokens(65); }},
      {"bad_words", [](auto& p) { p.add_bad_words(""); }},
      {"bad_words",
       [](auto& p) {
         p.add_bad_words(std::string(kMaxBadWordBytes + 1, 'x'));
       }},
      {"bad_words",
       [](auto& p) {
         for (int i = 0; i <= kMaxBadWords; ++i) p.add_bad_words("x");
       }},
  };
  for (const Refusal& refusal : refusals) {
    v1::GenerateRequest request = AGenerate();
    refusal.damage(*request.mutable_parameters());
    const absl::Status status = ReadRequest(request, AModel()).status();
    EXPECT_EQ(FieldOf(status), std::string("parameters.") + refusal.field);
  }
}

TEST(GenerationRequestTest, TheSmallestTemperatureIsAllowed) {
  for (const float temperature : {0.0f, -0.0f, kMinTemperature}) {
    v1::GenerateRequest in = AGenerate();
    in.mutable_parameters()->set_temperature(temperature);
    const auto request = ReadRequest(in, AModel());
    ASSERT_TRUE(request.ok()) << request.status();
    EXPECT_EQ(request->sampling.temperature, temperature);
  }
}

TEST(GenerationRequestTest, PromptsThatCannotBeAreRefused) {
  const ModelFacts model = AModel();
  v1::GenerateRequest none;
  EXPECT_EQ(FieldOf(ReadRequest(none, model).status()), "prompt");
  v1::GenerateRequest empty;
  empty.set_text("");
  EXPECT_EQ(FieldOf(ReadRequest(empty, model).status()), "text");
  v1::GenerateRequest large;
  large.set_text(std::string(kMaxPromptTextBytes + 1, 'x'));
  EXPECT_EQ(FieldOf(ReadRequest(large, model).status()), "text");
  v1::GenerateRequest no_ids;
  no_ids.mutable_token_ids();
  EXPECT_EQ(FieldOf(ReadRequest(no_ids, model).status()), "token_ids");
  v1::GenerateRequest ids;
  ids.mutable_token_ids()->add_ids(99);
  ids.mutable_token_ids()->add_ids(100);
  EXPECT_EQ(FieldOf(ReadRequest(ids, model).status()), "token_ids[1]");
  v1::GenerateRequest many;
  for (int i = 0; i < 64; ++i) many.mutable_token_ids()->add_ids(1);
  EXPECT_EQ(FieldOf(ReadRequest(many, model).status()), "token_ids");
}

TEST(GenerationRequestTest, ChatsThatCannotBeAreRefused) {
  const ModelFacts model = AModel();
  v1::ChatRequest none;
  EXPECT_EQ(FieldOf(ReadRequest(none, model).status()), "messages");
  v1::ChatRequest many;
  for (int i = 0; i <= kMaxMessages; ++i)
    *many.add_messages() = AChat().messages(0);
  EXPECT_EQ(FieldOf(ReadRequest(many, model).status()), "messages");
  v1::ChatRequest no_role = AChat();
  no_role.mutable_messages(0)->set_role("");
  EXPECT_EQ(FieldOf(ReadRequest(no_role, model).status()), "messages.role");
  v1::ChatRequest together = AChat();
  for (int i = 0; i < 3; ++i) {
    *together.add_messages() = AChat().messages(0);
    together.mutable_messages(i)->set_content(
        std::string(kMaxPromptTextBytes / 2, 'x'));
  }
  EXPECT_EQ(FieldOf(ReadRequest(together, model).status()), "messages");
  v1::ChatRequest arguments = AChat();
  (*arguments.mutable_template_arguments())["a"] =
      std::string(kMaxTemplateArgumentBytes + 1, 'x');
  EXPECT_EQ(FieldOf(ReadRequest(arguments, model).status()),
            "template_arguments[a]");
  v1::ChatRequest too_many = AChat();
  for (int i = 0; i <= kMaxTemplateArguments; ++i) {
    (*too_many.mutable_template_arguments())[std::to_string(i)] = "1";
  }
  EXPECT_EQ(FieldOf(ReadRequest(too_many, model).status()),
            "template_arguments");
}

TEST(GenerationRequestTest, TextThatIsNotUtf8IsRefusedWithItsPlace) {
  v1::GenerateRequest request;
  request.set_text("ab\xff");
  const absl::Status status = ReadRequest(request, AModel()).status();
  EXPECT_EQ(FieldOf(status), "text");
  EXPECT_THAT(std::string(MessageOf(status)), HasSubstr("byte 2"));
}

TEST(GenerationRequestTest, RequestIdsAreShortAndPlain) {
  EXPECT_TRUE(CheckRequestId("a.B_9:-").ok());
  EXPECT_TRUE(CheckRequestId(std::string(kMaxRequestIdBytes, 'x')).ok());
  EXPECT_FALSE(CheckRequestId("").ok());
  EXPECT_FALSE(CheckRequestId(std::string(kMaxRequestIdBytes + 1, 'x')).ok());
  EXPECT_FALSE(CheckRequestId("a b").ok());
  EXPECT_FALSE(CheckRequestId("a\n").ok());
  v1::GenerateRequest request = AGenerate();
  request.set_request_id("");
  EXPECT_EQ(FieldOf(ReadRequest(request, AModel()).status()), "request_id");
}

TEST(GenerationRequestTest, TenantAndPriorityHaveDefaultsAndBounds) {
  v1::GenerateRequest request = AGenerate();
  auto read = ReadRequest(request, AModel());
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->tenant, "default");
  EXPECT_EQ(read->priority, 0);
  request.set_tenant(std::string(64, 'x'));
  request.set_priority(-10);
  read = ReadRequest(request, AModel());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->tenant, std::string(64, 'x'));
  EXPECT_EQ(read->priority, -10);
  for (const int32_t priority : {-11, 11, INT32_MIN, INT32_MAX}) {
    request.set_priority(priority);
    EXPECT_EQ(FieldOf(ReadRequest(request, AModel()).status()), "priority");
  }
  request.clear_priority();
  for (const std::string& tenant :
       {std::string(), std::string(65, 'x'), std::string("a b"),
        std::string("a\0b", 3), std::string("\xc3\xa9")}) {
    request.set_tenant(tenant);
    EXPECT_EQ(FieldOf(ReadRequest(request, AModel()).status()), "tenant");
  }
}

TEST(GenerationRequestTest, AnotherModelIsNotFound) {
  v1::GenerateRequest request = AGenerate();
  request.set_model("gpt-9");
  const absl::Status status = ReadRequest(request, AModel()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(MessageOf(status)),
              testing::AllOf(HasSubstr("gpt-9"), HasSubstr("toy")));
  request.set_model("toy");
  EXPECT_TRUE(ReadRequest(request, AModel()).ok());
}

TEST(GenerationRequestTest, MaxTokensDefaultsToTheRestOfTheContext) {
  GenerationRequest request;
  ASSERT_TRUE(FitToContext(request, 60, 64).ok());
  EXPECT_EQ(request.stop.max_tokens, 4);
  request.max_tokens = 3;
  ASSERT_TRUE(FitToContext(request, 60, 64).ok());
  EXPECT_EQ(request.stop.max_tokens, 3);
}

TEST(GenerationRequestTest, WhatDoesNotFitTheContextIsRefusedNotCut) {
  GenerationRequest request;
  EXPECT_EQ(FieldOf(FitToContext(request, 0, 64)), "prompt");
  EXPECT_EQ(FieldOf(FitToContext(request, 64, 64)), "prompt");
  EXPECT_EQ(FieldOf(FitToContext(request, 1000000, 64)), "prompt");
  EXPECT_TRUE(FitToContext(request, 63, 64).ok());
  request.max_tokens = 5;
  const absl::Status status = FitToContext(request, 60, 64);
  EXPECT_EQ(FieldOf(status), "parameters.max_tokens");
  EXPECT_THAT(std::string(MessageOf(status)),
              testing::AllOf(HasSubstr("5"), HasSubstr("60"), HasSubstr("64")));
  request.max_tokens.reset();
  request.stop.min_tokens = 5;
  EXPECT_EQ(FieldOf(FitToContext(request, 60, 64)), "parameters.min_tokens");
}

TEST(RpcStatusTest, ErrorsCarryTheirReasonAndOnlyRetryableOnesADelay) {
  const auto types = [](const absl::Status& status) {
    rpc::Status details;
    EXPECT_TRUE(details.ParseFromString(ToGrpcStatus(status).error_details()));
    std::vector<std::string> types;
    for (const auto& any : details.details()) types.push_back(any.type_url());
    return types;
  };
  EXPECT_THAT(types(Unavailable("loading")),
              ElementsAre("type.googleapis.com/google.rpc.ErrorInfo",
                          "type.googleapis.com/google.rpc.RetryInfo"));
  EXPECT_THAT(types(NotFound("x")),
              ElementsAre("type.googleapis.com/google.rpc.ErrorInfo"));
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_THAT(ToGrpcStatus(absl::OkStatus()).error_details(), IsEmpty());
  EXPECT_EQ(ToGrpcStatus(Internal("a\xff")).error_message(), "a\xEF\xBF\xBD");
  EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(NotFound("x"))), NotFound("x"));
}

}  // namespace
}  // namespace witan
