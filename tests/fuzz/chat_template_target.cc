// A chat template and a conversation: an error or a text within the limits,
// never without end, and the same one each time.

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/chat_template.h"
#include "coordinator/text/template_argument.h"
#include "tests/fuzz/sections.h"
#include "tests/fuzz/target.h"

namespace witan::fuzz {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kSomeUnixSeconds = 1'700'000'000;
// Longer ones are changed where it says little, and take long.
constexpr size_t kMaxSeedBytes = 4200;

ChatTemplateInput UsualInput() {
  ChatTemplateInput input;
  input.messages = ordered_json::array(
      {{{"role", "system"}, {"content", "Be brief."}},
       {{"role", "user"}, {"content", "What is 1 + 1? \xC3\xA9"}},
       {{"role", "assistant"}, {"content", "<think>2</think>Two."}},
       {{"role", "user"}, {"content", "And 2 + 2?"}}});
  input.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  input.now_unix_seconds = kSomeUnixSeconds;
  return input;
}

// What the JSON text says of the input; parsed as a request's arguments are.
ChatTemplateInput InputOf(const std::string& text) {
  ChatTemplateInput input = UsualInput();
  const auto json = ParseTemplateArgument(text);
  if (!json.ok() || !json->is_object()) return input;
  if (json->contains("messages")) input.messages = (*json)["messages"];
  if (json->contains("arguments")) input.arguments = (*json)["arguments"];
  const auto prompt = json->find("add_generation_prompt");
  if (prompt != json->end() && prompt->is_boolean()) {
    input.add_generation_prompt = prompt->get<bool>();
  }
  return input;
}

}  // namespace

Outcome RunChatTemplate(std::string_view input) {
  Promises promises;
  const std::vector<std::string> sections = SectionsOf(input, 2);
  const auto parsed = ChatTemplate::Parse(sections[0]);
  if (!parsed.ok()) return promises.Refused(parsed.status());
  const ChatTemplateInput conversation = InputOf(sections[1]);
  const auto text = (*parsed)->Render(conversation);
  if (!text.ok()) {
    return promises.Refused(text.status(),
                            {absl::StatusCode::kInvalidArgument,
                             absl::StatusCode::kResourceExhausted});
  }
  promises.Expect(IsValidUtf8(*text), "what a template writes is UTF-8");
  promises.Expect(text->size() <= kMaxTemplateOutputBytes,
                  "kMaxTemplateOutputBytes holds");
  const auto again = (*parsed)->Render(conversation);
  promises.Expect(again.ok() && *again == *text,
                  "a template writes the same each time");
  return promises.Accepted();
}

std::vector<std::string> ChatTemplateSeeds() {
  const ordered_json cases = ordered_json::parse(
      ReadSource("tests/text/data/chat_template_cases.json"))["cases"];
  std::vector<std::string> seeds;
  std::set<std::string> seen;
  for (const ordered_json& entry : cases) {
    const std::string source = entry["template"];
    if (!seen.insert(source).second) continue;
    const ordered_json input = {
        {"messages", entry["messages"]},
        {"arguments", entry["arguments"]},
        {"add_generation_prompt", entry["add_generation_prompt"]}};
    seeds.push_back(JoinSections({source, input.dump()}));
  }
  // Templates of published models, with what the usual conversation lacks.
  const ordered_json goldens =
      ordered_json::parse(ReadSource("tests/text/data/template_goldens.json"));
  const ordered_json& conversations = goldens["conversations"];
  for (const ordered_json& entry : goldens["templates"]) {
    const std::string source =
        ReadSource(fmt::format("tests/third_party/chat_templates/{}.jinja",
                               entry["name"].get<std::string>()));
    if (source.size() > kMaxSeedBytes) continue;
    ordered_json input = conversations[seeds.size() % conversations.size()];
    input.erase("name");
    seeds.push_back(JoinSections({source, input.dump()}));
  }
  return seeds;
}

}  // namespace witan::fuzz
