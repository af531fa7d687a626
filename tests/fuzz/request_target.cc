// Every request of the public services. What is accepted is within the limits
// of a worker too: the same parameters pass the wall between processes.

#include <google/protobuf/message.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/stop.h"
#include "coordinator/text/template_argument.h"
#include "proto/cluster.pb.h"
#include "proto/generation_request.h"
#include "proto/inference.pb.h"
#include "proto/wire.h"
#include "tests/fuzz/message_change.h"
#include "tests/fuzz/target.h"
#include "tests/testing/tiny_model.h"

namespace witan::fuzz {
namespace {

using google::protobuf::Message;

const ModelFacts& Model() {
  static const auto& model = *new ModelFacts{
      .name = "toy",
      .config = TinyModelConfig(),
      .generation = {.eos_token_ids = {2}, .temperature = 0.7f, .top_k = 40},
      .max_context_tokens = 64};
  return model;
}

void CheckSampling(const SamplingParams& sampling, Promises* promises) {
  promises->Expect(
      sampling.temperature == 0 || (sampling.temperature >= kMinTemperature &&
                                    sampling.temperature <= kMaxTemperature),
      "temperature is within limits");
  promises->Expect(sampling.top_p >= kMinTopP && sampling.top_p <= 1,
                   "top_p is within limits");
  promises->Expect(sampling.logit_bias.size() <= kMaxLogitBias,
                   "kMaxLogitBias holds");
  StepPlan plan;
  plan.epoch = 1;
  plan.step = 1;
  plan.slot_starts = {{.slot = 0, .sampling = sampling}};
  plan.token_ids = {1};
  plan.row_begin = {0, 1};
  plan.slots = {0};
  plan.first_positions = {0};
  plan.samples = {1};
  plan.new_block_begin = {0, 1};
  plan.new_block_ids = {1};
  const auto received = FromProto(ToProto(CoordinatorMessage(plan)));
  promises->Expect(received.ok() && *received == CoordinatorMessage(plan),
                   "what a client may ask for, a worker takes");
}

void CheckStopRules(const GenerationRequest& request, Promises* promises) {
  const std::vector<TokenId>& ids = request.stop.stop_token_ids;
  promises->Expect(
      std::is_sorted(ids.begin(), ids.end()) &&
          (ids.empty() ||
           (ids.front() >= 0 && ids.back() < Model().config.vocab_size)),
      "stop tokens are of the vocabulary");
  auto matcher = StopMatcher::Create(request.stop.stop_strings,
                                     request.include_stop_string);
  promises->Expect(matcher.ok(), "stop strings that were accepted can be used");
  if (!matcher.ok()) return;
  std::string text = matcher->Push(request.text).text;
  text += matcher->Push("x").text;
  text += matcher->Flush();
  promises->Expect(text.size() <= request.text.size() + 1,
                   "no text comes from nowhere");
}

void CheckTemplateArguments(const GenerationRequest& request,
                            Promises* promises) {
  for (const auto& [name, value] : request.template_arguments) {
    const auto json = ParseTemplateArgument(value);
    if (!json.ok()) {
      const Outcome refused = promises->Refused(json.status());
      promises->Expect(refused.broken.empty(), refused.broken);
    }
  }
}

Outcome CheckGeneration(const absl::StatusOr<GenerationRequest>& parsed,
                        Promises* promises) {
  if (!parsed.ok()) {
    return promises->Refused(
        parsed.status(),
        {absl::StatusCode::kInvalidArgument, absl::StatusCode::kNotFound});
  }
  CheckSampling(parsed->sampling, promises);
  CheckStopRules(*parsed, promises);
  CheckTemplateArguments(*parsed, promises);
  promises->Expect(!parsed->text.empty() + !parsed->token_ids.empty() +
                           !parsed->messages.empty() ==
                       1,
                   "a request has one prompt");
  promises->Expect(IsValidUtf8(parsed->text), "text is UTF-8");
  promises->Expect(parsed->tenant.size() <= kMaxTenantBytes &&
                       std::abs(parsed->priority) <= kMaxAbsolutePriority,
                   "tenant and priority are within limits");
  promises->Expect(parsed->bad_words.size() <= kMaxBadWords,
                   "kMaxBadWords holds");
  promises->Expect(
      !parsed->thinking_budget_tokens ||
          (*parsed->thinking_budget_tokens >= 0 &&
           *parsed->thinking_budget_tokens <= Model().max_context_tokens),
      "the budget is within limits");
  promises->Expect(
      parsed->num_choices >= 1 && parsed->num_choices <= kMaxChoices,
      "choices are within limits");
  GenerationRequest fitted = *parsed;
  constexpr int64_t kPromptTokens = 10;
  if (FitToContext(fitted, kPromptTokens, Model().max_context_tokens).ok()) {
    promises->Expect(fitted.stop.max_tokens >= 1 &&
                         fitted.stop.max_tokens <=
                             Model().max_context_tokens - kPromptTokens &&
                         fitted.stop.min_tokens <= fitted.stop.max_tokens,
                     "prompt and output fit the context");
  }
  return promises->Accepted();
}

Outcome CheckStatus(const absl::Status& status, Promises* promises) {
  if (status.ok()) return promises->Accepted();
  return promises->Refused(status, {absl::StatusCode::kInvalidArgument,
                                    absl::StatusCode::kNotFound});
}

// Of all services, by the first byte of the input.
using Maker = std::unique_ptr<Message> (*)();
template <typename Request>
std::unique_ptr<Message> Make() {
  return std::make_unique<Request>();
}
constexpr std::array<Maker, 8> kRequests = {
    Make<v1::GenerateRequest>,   Make<v1::ChatRequest>,
    Make<v1::CancelRequest>,     Make<v1::TokenizeRequest>,
    Make<v1::DetokenizeRequest>, Make<v1::ListModelsRequest>,
    Make<v1::GetModelRequest>,   Make<v1::StatusRequest>};

// The request of an input; null when it is none.
std::unique_ptr<Message> Parse(std::string_view input) {
  if (input.empty() ||
      static_cast<unsigned char>(input[0]) >= kRequests.size()) {
    return nullptr;
  }
  auto message = kRequests[static_cast<unsigned char>(input[0])]();
  input.remove_prefix(1);
  if (!message->ParseFromArray(input.data(), static_cast<int>(input.size()))) {
    return nullptr;
  }
  return message;
}

template <typename Request>
const Request* As(const Message& message) {
  return dynamic_cast<const Request*>(&message);
}

std::string Write(const Message& message) {
  for (size_t i = 0; i < kRequests.size(); ++i) {
    if (kRequests[i]()->GetDescriptor() == message.GetDescriptor()) {
      return static_cast<char>(i) + message.SerializeAsString();
    }
  }
  return "";
}

}  // namespace

Outcome RunRequest(std::string_view input) {
  Promises promises;
  const auto message = Parse(input);
  if (message == nullptr) {
    return promises.Refused(InvalidArgument("not a message"));
  }
  if (const auto* generate = As<v1::GenerateRequest>(*message)) {
    return CheckGeneration(ReadRequest(*generate, Model()), &promises);
  }
  if (const auto* chat = As<v1::ChatRequest>(*message)) {
    return CheckGeneration(ReadRequest(*chat, Model()), &promises);
  }
  if (const auto* cancel = As<v1::CancelRequest>(*message)) {
    return CheckStatus(CheckRequest(*cancel), &promises);
  }
  if (const auto* tokenize = As<v1::TokenizeRequest>(*message)) {
    return CheckStatus(CheckRequest(*tokenize, Model()), &promises);
  }
  if (const auto* detokenize = As<v1::DetokenizeRequest>(*message)) {
    return CheckStatus(CheckRequest(*detokenize, Model()), &promises);
  }
  if (const auto* get_model = As<v1::GetModelRequest>(*message)) {
    return CheckStatus(CheckRequest(*get_model, Model()), &promises);
  }
  return promises.Accepted();  // ListModels and Status say nothing
}

std::vector<std::string> RequestSeeds() {
  v1::GenerateRequest generate;
  generate.set_request_id("id");
  generate.set_model("toy");
  generate.set_text("hello");
  generate.set_tenant("somebody");
  generate.set_priority(3);
  v1::GenerationParameters& parameters = *generate.mutable_parameters();
  parameters.set_temperature(0.5f);
  parameters.set_top_k(5);
  parameters.set_top_p(0.9f);
  parameters.set_min_p(0.1f);
  parameters.set_repetition_penalty(1.5f);
  parameters.set_presence_penalty(-1);
  parameters.set_frequency_penalty(1);
  (*parameters.mutable_logit_bias())[1] = 1;
  parameters.set_seed(7);
  parameters.set_top_logprobs(2);
  parameters.set_max_tokens(5);
  parameters.set_min_tokens(1);
  parameters.add_stop("x");
  parameters.add_stop_token_ids(3);
  parameters.set_num_choices(2);
  parameters.set_echo(true);
  parameters.set_prompt_logprobs(1);
  parameters.add_bad_words("bad");
  parameters.set_thinking_budget_tokens(4);
  v1::GenerateRequest of_tokens;
  for (const int32_t id : {1, 2, 3}) of_tokens.mutable_token_ids()->add_ids(id);
  v1::ChatRequest chat;
  for (const char* role : {"system", "user"}) {
    chat.add_messages()->set_role(role);
    chat.mutable_messages(0)->set_content("hi");
  }
  v1::ChatMessage& called = *chat.add_messages();
  called.set_role("assistant");
  called.set_reasoning_content("hm");
  called.set_tool_call_id("1");
  called.set_name("f");
  v1::ToolCall& call = *called.add_tool_calls();
  call.set_id("1");
  call.set_name("f");
  call.set_arguments(R"({"x":1})");
  chat.add_tools(R"({"type":"function"})");
  (*chat.mutable_template_arguments())["a"] = "1";
  (*chat.mutable_template_arguments())["b"] =
      R"([{"name":"f","parameters":{"x":[1,2.5,null,true,"s"]}}])";
  chat.set_add_generation_prompt(false);
  v1::CancelRequest cancel;
  cancel.set_request_id("id");
  v1::TokenizeRequest tokenize;
  tokenize.set_text("hello");
  v1::DetokenizeRequest detokenize;
  detokenize.add_token_ids(5);
  v1::GetModelRequest get_model;
  get_model.set_model("toy");
  return {Write(generate),
          Write(of_tokens),
          Write(chat),
          Write(cancel),
          Write(tokenize),
          Write(detokenize),
          Write(get_model),
          Write(v1::ListModelsRequest()),
          Write(v1::StatusRequest())};
}

void ReshapeRequest(std::string* input, uint64_t seed) {
  const auto message = Parse(*input);
  if (message == nullptr) return;
  ChangeMessage(message.get(), seed);
  *input = Write(*message);
}

}  // namespace witan::fuzz
