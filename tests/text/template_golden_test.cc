// The chat templates of published models on many conversations. The expected
// texts were made by transformers, see tests/goldens/make_template_goldens.py.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/chat_template.h"

namespace witan {
namespace {

using nlohmann::ordered_json;

const ordered_json& Goldens() {
  static const ordered_json* const kTable = [] {
    std::ifstream file(WITAN_SOURCE_DIR
                       "/tests/text/data/template_goldens.json");
    return new ordered_json(ordered_json::parse(file));
  }();
  return *kTable;
}

std::unique_ptr<ChatTemplate> TemplateOf(const ordered_json& entry) {
  const absl::StatusOr<std::string> source =
      ReadFile(fmt::format("{}/tests/third_party/chat_templates/{}.jinja",
                           WITAN_SOURCE_DIR, entry["name"].get<std::string>()),
               kMaxChatTemplateBytes);
  EXPECT_TRUE(source.ok()) << source.status();
  absl::StatusOr<std::unique_ptr<ChatTemplate>> parsed =
      ChatTemplate::Parse(*source);
  EXPECT_TRUE(parsed.ok()) << entry["name"] << ": " << parsed.status();
  return parsed.ok() ? *std::move(parsed) : nullptr;
}

ChatTemplateInput InputOf(const ordered_json& conversation) {
  ChatTemplateInput input;
  input.messages = conversation["messages"];
  input.arguments = conversation["arguments"];
  input.add_generation_prompt = conversation["add_generation_prompt"];
  input.now_unix_seconds = Goldens()["now_unix_seconds"];
  for (const auto& [name, spelling] : Goldens()["special_tokens"].items()) {
    input.special_tokens.emplace_back(name, spelling);
  }
  return input;
}

const ordered_json& ConversationNamed(std::string_view name) {
  const ordered_json& conversations = Goldens()["conversations"];
  const auto found = std::find_if(
      conversations.begin(), conversations.end(),
      [name](const ordered_json& entry) { return entry["name"] == name; });
  WITAN_CHECK(found != conversations.end(), "no conversation '{}'", name);
  return *found;
}

// `expected`: the number of a text, the message of raise_exception, or how
// Python failed, which we word ourselves.
void ExpectResult(const ordered_json& expected,
                  const absl::StatusOr<std::string>& text) {
  if (expected.is_number()) {
    ASSERT_TRUE(text.ok()) << text.status();
    const ordered_json& wanted = Goldens()["texts"][expected.get<size_t>()];
    EXPECT_EQ(*text, wanted.get_ref<const std::string&>());
    return;
  }
  ASSERT_FALSE(text.ok()) << "gave " << *text << "\nwanted " << expected;
  if (expected.contains("raised")) {
    EXPECT_EQ(
        MessageOf(text.status()),
        "chat template: " + expected["raised"].get_ref<const std::string&>());
    return;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(text.status()) ||
              absl::IsResourceExhausted(text.status()))
      << text.status();
  EXPECT_NE(MessageOf(text.status()).find("line "), std::string::npos)
      << text.status();
}

TEST(TemplateGoldenTest, RendersRealTemplatesAsTransformersDoes) {
  const ordered_json& conversations = Goldens()["conversations"];
  size_t num_results = 0;
  for (const ordered_json& entry : Goldens()["templates"]) {
    const auto parsed = TemplateOf(entry);
    if (parsed == nullptr) continue;
    ASSERT_EQ(entry["results"].size(), conversations.size());
    for (size_t i = 0; i < conversations.size(); ++i) {
      SCOPED_TRACE(fmt::format("{}: {}", entry["name"].get<std::string>(),
                               conversations[i]["name"].get<std::string>()));
      ExpectResult(entry["results"][i],
                   parsed->Render(InputOf(conversations[i])));
      ++num_results;
    }
  }
  EXPECT_GE(num_results, 2000u);
}

TEST(TemplateGoldenTest, RendersLongConversationsWithinTheLimitOfSteps) {
  ChatTemplateInput input = InputOf(ConversationNamed("empty system"));
  // Which some templates insist on.
  input.arguments = ConversationNamed("reasoning with a call")["arguments"];
  input.messages = ordered_json::array();
  for (int i = 0; i < 2000; ++i) {
    input.messages.push_back(
        {{"role", "user"}, {"content", fmt::format("question {}", i)}});
    input.messages.push_back(
        {{"role", "assistant"},
         {"content", fmt::format("<think>{}</think>answer", i)}});
  }
  input.messages.push_back({{"role", "user"}, {"content", "the last"}});
  for (const ordered_json& entry : Goldens()["templates"]) {
    const auto parsed = TemplateOf(entry);
    if (parsed == nullptr) continue;
    const absl::StatusOr<std::string> text = parsed->Render(input);
    ASSERT_TRUE(text.ok()) << entry["name"] << ": " << text.status();
    EXPECT_NE(text->find("question 1999"), std::string::npos) << entry["name"];
    EXPECT_NE(text->find("the last"), std::string::npos) << entry["name"];
  }
}

}  // namespace
}  // namespace witan
