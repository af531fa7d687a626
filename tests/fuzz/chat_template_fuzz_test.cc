// Damaged chat templates: an error or a text within the limits, never a crash
// and never without end. Seeded and bounded.

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/chat_template.h"

namespace witan {
namespace {

using nlohmann::ordered_json;

constexpr int kNumDamagedTemplates = 6000;

// Sources that are known to be accepted or refused for a reason.
std::vector<ordered_json> ReadCases() {
  std::ifstream file(WITAN_SOURCE_DIR
                     "/tests/text/data/chat_template_cases.json");
  return ordered_json::parse(file)["cases"];
}

std::string Damage(std::string source, const std::string& other,
                   std::mt19937* random) {
  static constexpr std::string_view kTokens[] = {
      "{{",
      "}}",
      "{%",
      "%}",
      "{#",
      "#}",
      "-",
      "(",
      ")",
      "[",
      "]",
      "{",
      "}",
      "|",
      ".",
      ",",
      ":",
      "~",
      "**",
      "//",
      "%",
      "'",
      "\"",
      "\\",
      "\\u12",
      " if ",
      " else ",
      " for ",
      " in ",
      " not ",
      " is ",
      " and ",
      "endfor",
      "endif",
      "{% for i in range(99999) %}",
      "{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}",
      "{{ m() }}",
      "namespace(",
      "loop",
      "messages",
      "x",
      "9223372036854775807",
      "0",
      "-1",
      "1e308",
      "|tojson(indent=9)",
      "|map('map')",
      "|join",
      "[::-1]",
      "[9:1:-2]",
      "'a' * 99999999",
      "\xC3\xA9",
      "\xFF",
      "\n",
      "break"};
  const auto below = [random](size_t bound) { return (*random)() % bound; };
  for (size_t i = 1 + below(4); i > 0 && !source.empty(); --i) {
    const size_t at = below(source.size());
    switch (below(5)) {
      case 0:
        source.erase(at, 1 + below(10));
        break;
      case 1:
        source.insert(at, kTokens[below(std::size(kTokens))]);
        break;
      case 2:
        source.replace(at, 1 + below(4), kTokens[below(std::size(kTokens))]);
        break;
      case 3:
        source.insert(at, other.substr(below(other.size()), below(60)));
        break;
      default:
        source[at] = static_cast<char>(below(256));
    }
  }
  return source;
}

TEST(ChatTemplateFuzzTest, DamagedTemplatesAreErrorsOrTexts) {
  const std::vector<ordered_json> cases = ReadCases();
  int num_parsed = 0;
  int num_rendered = 0;
  for (uint32_t seed = 0; seed < kNumDamagedTemplates; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const ordered_json& entry = cases[random() % cases.size()];
    const ordered_json& other = cases[random() % cases.size()];
    const auto parsed = ChatTemplate::Parse(
        Damage(entry["template"], other["template"], &random));
    if (!parsed.ok()) {
      EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
      continue;
    }
    ++num_parsed;
    ChatTemplateInput input;
    input.messages = entry["messages"];
    input.arguments = entry["arguments"];
    const auto text = (*parsed)->Render(input);
    if (text.ok()) {
      ++num_rendered;
      EXPECT_TRUE(IsValidUtf8(*text));
      EXPECT_LE(text->size(), kMaxTemplateOutputBytes);
    } else {
      EXPECT_TRUE(text.status().code() == absl::StatusCode::kInvalidArgument ||
                  text.status().code() == absl::StatusCode::kResourceExhausted)
          << text.status();
      EXPECT_TRUE(IsValidUtf8(MessageOf(text.status()))) << text.status();
    }
  }
  EXPECT_GT(num_parsed, kNumDamagedTemplates / 20);
  EXPECT_GT(num_rendered, kNumDamagedTemplates / 50);
}

}  // namespace
}  // namespace witan
