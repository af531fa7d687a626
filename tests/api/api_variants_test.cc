// What a stream brings beside tokens and their text: the thought of a model
// that thinks, and the prompt with its scores; and what of a request the engine
// and the template get.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "tests/api/running_api.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// Of the markers, where the tokenizer gets tokens for them.
constexpr TokenId kBegin = kTinyTokenizerSize;
constexpr TokenId kEnd = kTinyTokenizerSize + 1;

constexpr char kOpensThought[] =
    "{{ messages[0].content }}"
    "{% if add_generation_prompt %}<think>\n{% endif %}";

void ChangeJson(const TinyModel& model, const std::string& name,
                const std::function<void(json&)>& change) {
  const std::string path = model.directory() + "/" + name;
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  json value = json::parse(text.str());
  change(value);
  std::ofstream(path) << value.dump();
}

void SetTemplate(const TinyModel& model, const std::string& source) {
  ChangeJson(model, "tokenizer_config.json",
             [&](json& config) { config["chat_template"] = source; });
}

// Says `text`, then dots.
FakeEngine::NextTokenFn Say(const std::string& text) {
  return [text](int, int64_t index) {
    const size_t i = static_cast<size_t>(index);
    return SampledToken{.token_id = Letter(i < text.size() ? text[i] : '.'),
                        .logprob = -1,
                        .top_logprobs = {{.token_id = 5, .logprob = -1}}};
  };
}

v1::ChatRequest AChat(int64_t max_tokens) {
  v1::ChatRequest request;
  request.add_messages()->set_role("user");
  request.mutable_messages(0)->set_content("x");
  request.mutable_parameters()->set_max_tokens(max_tokens);
  return request;
}

class ApiVariantsTest : public testing::Test {
 protected:
  void Start(const FakeEngine::NextTokenFn& next_token) {
    api_ = std::make_unique<RunningApi>(
        tiny_.directory(), RunningApiOptions{.next_token = next_token});
  }
  // The text of the prompt that the engine got last.
  std::string PromptOfEngine() {
    return api_->model()
        .tokenizer->Decode(api_->engine().last_spec().prompt, false)
        .value();
  }

  TinyModel tiny_;
  std::unique_ptr<RunningApi> api_;
};

// --- Thoughts ----------------------------------------------------------------

TEST_F(ApiVariantsTest, AThoughtHasItsOwnFieldAndNoStopStrings) {
  SetTemplate(tiny_, kOpensThought);
  Start(Say("<think>\na stop b\n</think>\n\nc stop d"));
  v1::GenerateRequest request = APrompt(400);
  request.mutable_parameters()->add_stop("stop");
  const StreamResult outcome = api_->Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  const Choice& choice = outcome.choices.at(0);
  EXPECT_EQ(choice.reasoning, "a stop b");
  EXPECT_EQ(choice.text, "c ");
  EXPECT_EQ(choice.last.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(choice.token_ids.size(), 33u);
  EXPECT_EQ(choice.last.usage().completion_tokens(), 33);
  EXPECT_EQ(choice.last.usage().reasoning_tokens(), 25);
  EXPECT_THAT(api_->Scrape(), HasSubstr("witan_reasoning_tokens_total 25\n"));
}

TEST_F(ApiVariantsTest, AThoughtThatThePromptOpenedMayNeverEnd) {
  SetTemplate(tiny_, kOpensThought);
  Start(Say("hm</think>\n2"));
  const StreamResult closed = api_->Chat(AChat(13));
  ASSERT_TRUE(closed.status.ok()) << closed.status.error_message();
  EXPECT_EQ(closed.choices.at(0).reasoning, "hm");
  EXPECT_EQ(closed.choices.at(0).text, "2.");
  const StreamResult open = api_->Chat(AChat(6));
  EXPECT_EQ(open.choices.at(0).reasoning, "hm</th");
  EXPECT_EQ(open.choices.at(0).text, "");
  EXPECT_EQ(open.choices.at(0).last.usage().reasoning_tokens(), 6);
}

TEST_F(ApiVariantsTest, MarkersThatAreSpecialTokensAreFoundAndNotShown) {
  ChangeJson(tiny_, "tokenizer.json", [](json& tokenizer) {
    for (const auto& [id, content] :
         {std::pair(kBegin, "<think>"), std::pair(kEnd, "</think>")}) {
      json token = tokenizer["added_tokens"][0];
      token["id"] = id;
      token["content"] = content;
      tokenizer["added_tokens"].push_back(token);
    }
  });
  Start([](int, int64_t index) {
    const TokenId tokens[] = {kBegin, Letter('a'), kEnd, Letter('b')};
    return SampledToken{.token_id = tokens[index % 4]};
  });
  for (const bool skip : {true, false}) {
    v1::GenerateRequest request = APrompt(4);
    request.mutable_parameters()->set_skip_special_tokens(skip);
    const StreamResult outcome = api_->Generate(request);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    EXPECT_EQ(outcome.choices.at(0).reasoning, "a");
    EXPECT_EQ(outcome.choices.at(0).text, "b");
    EXPECT_EQ(outcome.choices.at(0).token_ids,
              (std::vector<TokenId>{kBegin, Letter('a'), kEnd, Letter('b')}));
  }
}

TEST_F(ApiVariantsTest, ABudgetClosesTheThoughtAfterExactlySoManyTokens) {
  SetTemplate(tiny_, kOpensThought);
  for (const int64_t budget : {0, 1, 5}) {
    Start(Say(std::string(100, 'a')));
    v1::ChatRequest request = AChat(budget + 8 + 3);
    request.mutable_parameters()->set_thinking_budget_tokens(budget);
    request.mutable_parameters()->set_top_logprobs(1);
    const StreamResult outcome = api_->Chat(request);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    const Choice& choice = outcome.choices.at(0);
    const std::string thought(static_cast<size_t>(budget), 'a');
    EXPECT_EQ(choice.reasoning, thought);
    EXPECT_EQ(choice.text, "aaa");
    EXPECT_EQ(choice.last.usage().reasoning_tokens(), budget + 8);
    ASSERT_EQ(std::ssize(choice.logprobs), budget + 8 + 3);
    for (int64_t i = 0; i < budget + 8 + 3; ++i) {
      const bool is_forced = i >= budget && i < budget + 8;
      EXPECT_EQ(choice.logprobs[static_cast<size_t>(i)], is_forced ? 0 : -1);
    }
  }
}

TEST_F(ApiVariantsTest, ABudgetCountsFromTheMarkerAndSparesShortThoughts) {
  SetTemplate(tiny_, kOpensThought);
  Start(Say("<think>123456789"));
  v1::GenerateRequest request = APrompt(30);
  request.mutable_parameters()->set_thinking_budget_tokens(4);
  const StreamResult cut = api_->Generate(request);
  EXPECT_EQ(cut.choices.at(0).reasoning, "1234");
  EXPECT_EQ(cut.choices.at(0).text, "...........");  // of the script's end
  // Just long enough to close it itself.
  Start(Say("<think>123</think>ok"));
  request.mutable_parameters()->set_thinking_budget_tokens(3 + 8);
  const StreamResult whole = api_->Generate(request);
  EXPECT_EQ(whole.choices.at(0).reasoning, "123");
  EXPECT_EQ(whole.choices.at(0).text, "ok..........");
  Start(Say("no thought"));
  EXPECT_EQ(api_->Generate(request).choices.at(0).text.substr(0, 12),
            "no thought..");
}

TEST_F(ApiVariantsTest, ABudgetNeedsAModelThatThinks) {
  Start(NextLetter);
  v1::GenerateRequest request = APrompt(5);
  request.mutable_parameters()->set_thinking_budget_tokens(4);
  const StreamResult outcome = api_->Generate(request);
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(outcome.status.error_message(),
              HasSubstr("parameters.thinking_budget_tokens"));
  EXPECT_FALSE(ToProto(api_->model()).has_reasoning());
}

// --- Prompts -----------------------------------------------------------------

TEST_F(ApiVariantsTest, AnEchoedPromptBeginsEveryChoiceInPieces) {
  Start(NextLetter);
  v1::GenerateRequest request;
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += static_cast<char>('a' + i % 26);
    request.mutable_token_ids()->add_ids(Letter(text.back()));
  }
  request.mutable_parameters()->set_max_tokens(5);
  request.mutable_parameters()->set_num_choices(3);
  request.mutable_parameters()->set_echo(true);
  const StreamResult outcome = api_->Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  ASSERT_EQ(outcome.choices.size(), 3u);
  for (const auto& [index, choice] : outcome.choices) {
    EXPECT_EQ(choice.prompt_text, text);
    EXPECT_EQ(choice.prompt_ids, api_->engine().last_spec().prompt);
    EXPECT_TRUE(choice.prompt_logprobs.empty());
    EXPECT_EQ(choice.token_ids.size(), 5u);
  }
}

TEST_F(ApiVariantsTest, PromptsAreScoredOnceForTheFirstChoice) {
  Start(NextLetter);
  v1::GenerateRequest request;
  for (int i = 0; i < 450; ++i) {
    request.mutable_token_ids()->add_ids(Letter('a'));
  }
  request.mutable_parameters()->set_max_tokens(2);
  request.mutable_parameters()->set_num_choices(2);
  request.mutable_parameters()->set_prompt_logprobs(1);
  for (const bool echo : {false, true}) {
    request.mutable_parameters()->set_echo(echo);
    const StreamResult outcome = api_->Generate(request);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    const Choice& first = outcome.choices.at(0);
    ASSERT_EQ(first.prompt_ids.size(), 450u);
    ASSERT_EQ(first.prompt_logprobs.size(), 450u);
    EXPECT_EQ(first.prompt_logprobs[0].ByteSizeLong(), 0u);
    for (int i = 1; i < 450; ++i) {
      const v1::TokenLogprobs& logprobs =
          first.prompt_logprobs[static_cast<size_t>(i)];
      ASSERT_EQ(logprobs.logprob(), -static_cast<float>(i));
      ASSERT_EQ(logprobs.top_size(), 1);
    }
    EXPECT_EQ(first.prompt_text, echo ? std::string(450, 'a') : "");
    EXPECT_EQ(first.text, "ab");
    const Choice& second = outcome.choices.at(1);
    EXPECT_TRUE(second.prompt_logprobs.empty());
    EXPECT_EQ(second.prompt_ids.size(), echo ? 450u : 0u);
    EXPECT_EQ(api_->engine().last_spec().sampling.num_prompt_logprobs, -1);
  }
}

TEST_F(ApiVariantsTest, APromptOfOneTokenHasNoScore) {
  Start(NextLetter);
  v1::GenerateRequest request;
  request.mutable_token_ids()->add_ids(Letter('q'));
  request.mutable_parameters()->set_max_tokens(1);
  request.mutable_parameters()->set_prompt_logprobs(3);
  const StreamResult outcome = api_->Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  EXPECT_EQ(outcome.choices.at(0).prompt_ids,
            (std::vector<TokenId>{Letter('q')}));
  EXPECT_EQ(outcome.choices.at(0).prompt_logprobs.size(), 1u);
}

TEST_F(ApiVariantsTest, AnEchoedChatIsTheRenderedPrompt) {
  SetTemplate(tiny_, "[{{ messages[0].content }}]");
  Start(NextLetter);
  v1::ChatRequest request = AChat(1);
  request.mutable_parameters()->set_echo(true);
  EXPECT_EQ(api_->Chat(request).choices.at(0).prompt_text, "[x]");
}

// --- What the engine and the template get ------------------------------------

TEST_F(ApiVariantsTest, BadWordsAndEarlyEndsReachTheEngineAsTokens) {
  Start(NextLetter);
  v1::GenerateRequest request = APrompt(5);
  request.mutable_parameters()->add_bad_words("ab");
  request.mutable_parameters()->set_min_tokens(3);
  request.mutable_parameters()->add_stop_token_ids(Letter('z'));
  ASSERT_TRUE(api_->Generate(request).status.ok());
  const SamplingParams sampling = api_->engine().last_spec().sampling;
  EXPECT_THAT(sampling.bad_words,
              testing::UnorderedElementsAre(
                  std::vector<TokenId>{Letter('a'), Letter('b')},
                  std::vector<TokenId>{Letter(' '), Letter('a'), Letter('b')}));
  EXPECT_EQ(sampling.min_tokens, 3);
  EXPECT_THAT(sampling.end_token_ids,
              testing::ElementsAre(kTinyEnd, Letter('z')));
  request.mutable_parameters()->set_ignore_eos(true);
  ASSERT_TRUE(api_->Generate(request).status.ok());
  EXPECT_THAT(api_->engine().last_spec().sampling.end_token_ids,
              testing::ElementsAre(Letter('z')));
  request.mutable_parameters()->add_bad_words(std::string(100, 'x'));
  const StreamResult refused = api_->Generate(request);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.status.error_message(),
              HasSubstr("parameters.bad_words"));
}

TEST_F(ApiVariantsTest, TheTemplateGetsMessagesAsTransformersHasThem) {
  SetTemplate(tiny_, "{{ messages | tojson }}|{{ tools | tojson }}");
  Start(NextLetter);
  v1::ChatRequest request = AChat(1);
  v1::ChatMessage& call = *request.add_messages();
  call.set_role("assistant");
  call.set_reasoning_content("hm");
  v1::ToolCall& tool_call = *call.add_tool_calls();
  tool_call.set_id("c1");
  tool_call.set_name("add");
  tool_call.set_arguments(R"({"a": 1})");
  call.add_tool_calls()->set_name("now");
  v1::ChatMessage& answer = *request.add_messages();
  answer.set_role("tool");
  answer.set_content("2");
  answer.set_tool_call_id("c1");
  answer.set_name("add");
  request.add_tools(R"({"type": "function", "function": {"name": "add"}})");
  const StreamResult outcome = api_->Chat(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  const std::string prompt = PromptOfEngine();
  const size_t bar = prompt.find('|');
  EXPECT_EQ(json::parse(prompt.substr(0, bar)), json::parse(R"([
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": "", "reasoning_content": "hm",
     "tool_calls": [
       {"type": "function", "id": "c1",
        "function": {"name": "add", "arguments": {"a": 1}}},
       {"type": "function", "function": {"name": "now", "arguments": {}}}]},
    {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"}
  ])"));
  EXPECT_EQ(
      json::parse(prompt.substr(bar + 1)),
      json::parse(R"([{"type": "function", "function": {"name": "add"}}])"));
}

TEST_F(ApiVariantsTest, ToolsAndArgumentsAreJsonObjects) {
  Start(NextLetter);
  for (const std::string text : {"1", "[1]", "{", "\"text\"", "text"}) {
    v1::ChatRequest with_tool = AChat(1);
    with_tool.add_tools(text);
    v1::ChatRequest with_call = AChat(1);
    v1::ToolCall& call = *with_call.mutable_messages(0)->add_tool_calls();
    call.set_name("add");
    call.set_arguments(text);
    for (const v1::ChatRequest& request : {with_tool, with_call}) {
      const StreamResult outcome = api_->Chat(request);
      EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
          << text;
      EXPECT_THAT(outcome.status.error_message(),
                  HasSubstr("is not a JSON object"));
    }
  }
}

}  // namespace
}  // namespace witan
