#include "coordinator/text/chat_template.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/template_argument.h"
#include "tests/testing/temp_directory.h"

namespace witan {
namespace {

using nlohmann::ordered_json;

absl::StatusOr<std::string> Render(const std::string& source,
                                   ChatTemplateInput input = {}) {
  ASSIGN_OR_RETURN(const auto parsed, ChatTemplate::Parse(source));
  return parsed->Render(input);
}

std::string ErrorOf(const std::string& source, ChatTemplateInput input = {}) {
  const absl::StatusOr<std::string> text = Render(source, std::move(input));
  return text.ok() ? "no error: " + *text
                   : std::string(MessageOf(text.status()));
}

std::string Repeat(std::string_view text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

// The expected texts were made by jinja2, see data/make_templates.py.
TEST(ChatTemplateTest, RendersAsJinja2Does) {
  std::ifstream file(WITAN_SOURCE_DIR
                     "/tests/text/data/chat_template_cases.json");
  const ordered_json table = ordered_json::parse(file);
  int num_texts = 0;
  int num_errors = 0;
  for (const ordered_json& entry : table["cases"]) {
    SCOPED_TRACE(entry["name"].get<std::string>());
    ChatTemplateInput input;
    input.messages = entry["messages"];
    input.arguments = entry["arguments"];
    input.add_generation_prompt = entry["add_generation_prompt"];
    input.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
    input.now_unix_seconds = table["now_unix_seconds"];
    const absl::StatusOr<std::string> text =
        Render(entry["template"].get<std::string>(), input);
    if (entry.contains("error")) {
      ++num_errors;
      EXPECT_FALSE(text.ok())
          << "gave " << *text << "\njinja2: " << entry["error"];
      if (!text.ok()) {
        EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument)
            << text.status();
      }
      continue;
    }
    ++num_texts;
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(*text, entry["output"].get<std::string>());
  }
  EXPECT_GE(num_texts, 160);
  EXPECT_GE(num_errors, 200);
}

TEST(ChatTemplateTest, NamesLineAndCauseOfErrors) {
  EXPECT_EQ(ErrorOf("a\n{% if true %}\n{{ 1 + }}{% endif %}"),
            "chat template: line 3: expected a value, got '}}'");
  EXPECT_EQ(ErrorOf("a\n\n{{ 1 + x }}"),
            "chat template: line 3: 'x' is undefined");
  EXPECT_EQ(ErrorOf("a\n{% include 'x' %}"),
            "chat template: line 2: expected one of the tags for, if, set, "
            "with, macro, call, filter, raw, break, continue, generation, got "
            "'include'");
  EXPECT_EQ(ErrorOf("\n{{ 'a'\n | nope }}"),
            "chat template: line 3: there is no filter 'nope'");
}

TEST(ChatTemplateTest, RefusesUnknownFiltersAndTestsBeforeItRenders) {
  const auto error_of = [](const std::string& source) {
    return std::string(MessageOf(ChatTemplate::Parse(source).status()));
  };
  EXPECT_EQ(error_of("a\n{{ 'a' | trim | nope }}"),
            "chat template: line 2: there is no filter 'nope'");
  EXPECT_EQ(error_of("{% for i in [] %}\n{{ 1 is nope }}{% endfor %}"),
            "chat template: line 2: there is no test 'nope'");
  EXPECT_EQ(error_of("{% set x | nope %}{% endset %}"),
            "chat template: line 1: there is no filter 'nope'");
  // As Jinja, only when it is reached.
  EXPECT_EQ(*Render("{% if false %}{{ 1 | nope }}{% endif %}a"), "a");
  EXPECT_EQ(ErrorOf("{% if true %}\n{{ 1 | nope }}{% endif %}"),
            "chat template: line 2: there is no filter 'nope'");
}

TEST(ChatTemplateTest, SaysThatIntegersEndAt64Bits) {
  for (const char* source :
       {"{{ 9223372036854775807 + 1 }}", "{{ 2 ** 63 }}",
        "{{ 99999999999 * 99999999999 }}", "{{ '9223372036854775808' | int }}",
        "{{ 1e19 | int }}", "{{ (-9223372036854775807 - 1) | abs }}",
        "{{ 9223372036854775808 }}", "{{ 0x8000000000000000 }}"}) {
    EXPECT_NE(ErrorOf(source).find("beyond 64 bits"), std::string::npos)
        << ErrorOf(source);
  }
}

TEST(ChatTemplateTest, PassesTheTemplatesOwnMessageOn) {
  ChatTemplateInput input;
  input.messages = ordered_json::array({{{"role", "x"}, {"content", "y"}}});
  EXPECT_EQ(
      ErrorOf("{{ raise_exception('unknown role: ' + messages[0].role) }}",
              input),
      "chat template: unknown role: x");
}

TEST(ChatTemplateTest, EndsTemplatesThatLoopForTooLong) {
  const std::string loop = "{% for i in range(100000) %}";
  const absl::StatusOr<std::string> text =
      Render(Repeat(loop, 4) + "{{ i }}" + Repeat("{% endfor %}", 4));
  EXPECT_EQ(text.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Render(loop + loop + "{% endfor %}{% endfor %}").status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(ChatTemplateTest, EndsEndlessRecursion) {
  EXPECT_EQ(
      Render("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").status().code(),
      absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Render("{% macro m(a) %}{{ m([a, [m]|length]) }}{% endmacro %}"
                   "{{ m(1) }}")
                .ok(),
            false);
  for (const char* source :
       {"{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% macro m() %}{% call m() %}{% endcall %}{{ caller() }}"
        "{% endmacro %}{% call m() %}{% endcall %}"}) {
    EXPECT_EQ(Render(source).status().code(),
              absl::StatusCode::kResourceExhausted)
        << source;
  }
}

TEST(ChatTemplateTest, BoundsMemoryAndOutput) {
  // Doubling, repetition, and many large values at once.
  for (const char* source :
       {"{% set ns = namespace(s='x') %}{% for i in range(60) %}"
        "{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        "{{ 'x' * 9000000000000000000 }}", "{{ [1] * 9000000000000000000 }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}"
        "{% set ns.l = ns.l + ['x' * 1000000] %}{% endfor %}",
        "{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ ('x' * 1000000).replace('x', 'y' * 1000000) }}",
        "{{ ('x' * 1000000).split('x') | tojson(indent=1000) }}",
        "{{ '%99999999s' % 1 }}|{{ '%*d' % (99999999, 1) }}",
        "{{ '{:>99999999}'.format(1) }}",
        "{{ '{0:{1}}'.format('x', 99999999) }}",
        "{{ 'x'.ljust(999999999999999) }}",
        "{{ range(90000) | unique | list | length }}",
        "{% for i in range(90000) %}{{ range(90000) | sort | first }}"
        "{% endfor %}",
        "{% set ns = namespace(x='') %}{% for i in range(40) %}"
        "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set a = namespace(x=1) %}{% set b = namespace(x=1) %}"
        "{% for i in range(50) %}{% set a.x = [a.x, a.x] %}"
        "{% set b.x = [b.x, b.x] %}{% endfor %}{{ a.x == b.x }}"}) {
    EXPECT_EQ(Render(source).status().code(),
              absl::StatusCode::kResourceExhausted)
        << source;
  }
}

TEST(ChatTemplateTest, BoundsTheNestingOfSourceAndValues) {
  EXPECT_FALSE(ChatTemplate::Parse("{{ " + Repeat("(", 100000) + "1" +
                                   Repeat(")", 100000) + " }}")
                   .ok());
  EXPECT_FALSE(ChatTemplate::Parse("{{ " + Repeat("[", 100000)).ok());
  EXPECT_FALSE(
      ChatTemplate::Parse("{{ " + Repeat("not ", 100000) + "1 }}").ok());
  EXPECT_FALSE(ChatTemplate::Parse("{{ " + Repeat("-", 100000) + "1 }}").ok());
  EXPECT_FALSE(ChatTemplate::Parse(Repeat("{% if 1 %}", 50000) +
                                   Repeat("{% endif %}", 50000))
                   .ok());
  EXPECT_FALSE(
      ChatTemplate::Parse("{{ 1" + Repeat(" if 1 else 1", 50000) + " }}").ok());
  EXPECT_FALSE(
      ChatTemplate::Parse("{{ 1" + Repeat(" if 1", 50000) + " }}").ok());
  EXPECT_EQ(ErrorOf("{% set ns = namespace(x=1) %}{% for i in range(1000) %}"
                    "{% set ns.x = [ns.x] %}{% endfor %}"),
            "chat template: line 1: values nested deeper than 64 levels");
  EXPECT_EQ(ErrorOf("{% set ns = namespace(x=1) %}{% for i in range(1000) %}"
                    "{% set ns.x = [ns.x] | select %}{% endfor %}"),
            "chat template: line 1: values nested deeper than 64 levels");
  EXPECT_FALSE(ChatTemplate::Parse("{% for " + Repeat("(", 50000) + "a" +
                                   Repeat(")", 50000) + " in [] %}{% endfor %}")
                   .ok());
  ordered_json deep = 1;
  for (int i = 0; i < 10000; ++i) {
    ordered_json outer = ordered_json::array();
    outer.push_back(std::move(deep));
    deep = std::move(outer);
  }
  ChatTemplateInput input;
  input.arguments["deep"] = std::move(deep);
  EXPECT_FALSE((*ChatTemplate::Parse("x"))->Render(input).ok());
}

TEST(ChatTemplateTest, TakesLongChainsOfOperators) {
  const int count = 20000;
  EXPECT_EQ(*Render("{{ 0" + Repeat(" + 1", count) + " }}"), "20000");
  EXPECT_EQ(*Render("{{ 0" + Repeat(" or 0", count) + " }}"), "0");
  EXPECT_EQ(Render("{{ ''" + Repeat(" ~ 'a'", count) + " }}")->size(), 20000u);
  EXPECT_EQ(*Render("{{ 'a'" + Repeat("|upper", count) + " }}"), "A");
  EXPECT_EQ(*Render("{% if 0 %}" + Repeat("{% elif 0 %}", count) +
                    "{% else %}x{% endif %}"),
            "x");
}

TEST(ChatTemplateTest, RefusesWhatIsNotUtf8OrTooLarge) {
  EXPECT_FALSE(ChatTemplate::Parse("a\xFF").ok());
  EXPECT_FALSE(
      ChatTemplate::Parse(std::string(kMaxChatTemplateBytes + 1, 'a')).ok());
  ChatTemplateInput input;
  input.messages = ordered_json::array({{{"role", "a\xC0"}}});
  EXPECT_EQ(ErrorOf("x", input),
            "chat template: messages: text is not valid UTF-8 at byte 1");
  input.messages = "no array";
  EXPECT_FALSE(Render("x", input).ok());
}

TEST(ChatTemplateTest, TakesEmptyAndLargeInput) {
  EXPECT_EQ(*Render(""), "");
  ChatTemplateInput input;
  const std::string large(1 << 20, 'x');
  input.messages = ordered_json::array({{{"role", "u"}, {"content", large}}});
  EXPECT_EQ(*Render("{% for m in messages %}{{ m.content | trim }}{% endfor %}",
                    input),
            large);
}

TEST(ChatTemplateTest, ReachesNothingButItsValues) {
  for (const char* source :
       {"{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}",
        "{{ namespace.__init__() }}", "{{ self.x() }}",
        "{{ range.__globals__['os'] }}", "{{ cycler.__init__() }}"}) {
    EXPECT_FALSE(Render(source).ok()) << source;
  }
}

TEST(ChatTemplateTest, NamespacesAndMacrosCannotBeStored) {
  EXPECT_FALSE(Render("{% set n = namespace() %}{% set n.me = n %}").ok());
  EXPECT_FALSE(Render("{% set n = namespace() %}{% set l = [n] %}").ok());
  EXPECT_FALSE(Render("{% set n = namespace() %}{% for i in [1] %}"
                      "{% macro m() %}{{ i }}{% endmacro %}"
                      "{% set n.m = m %}{% endfor %}{{ n.m() }}")
                   .ok());
}

class ChatTemplateLoadTest : public testing::Test {
 protected:
  void Write(const std::string& name, const std::string& content) {
    files_.Write(name, content);
  }

  const TempDirectory files_;
  const std::string& directory_ = files_.path();
};

TEST_F(ChatTemplateLoadTest, PrefersTheJinjaFile) {
  Write("tokenizer_config.json", R"({"chat_template": "config"})");
  EXPECT_EQ(*(*ChatTemplate::Load(directory_))->Render({}), "config");
  Write("chat_template.jinja", "file");
  EXPECT_EQ(*(*ChatTemplate::Load(directory_))->Render({}), "file");
}

TEST_F(ChatTemplateLoadTest, TakesTheTemplateNamedDefault) {
  Write("tokenizer_config.json", R"({"chat_template": [
    {"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}
  ]})");
  EXPECT_EQ(*(*ChatTemplate::Load(directory_))->Render({}), "d");
}

TEST_F(ChatTemplateLoadTest, SaysWhenThereIsNone) {
  EXPECT_TRUE(absl::IsNotFound(ChatTemplate::Load(directory_).status()));
  Write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_TRUE(absl::IsNotFound(ChatTemplate::Load(directory_).status()));
  Write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_TRUE(absl::IsInvalidArgument(ChatTemplate::Load(directory_).status()));
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "other"}]})");
  EXPECT_TRUE(absl::IsInvalidArgument(ChatTemplate::Load(directory_).status()));
  Write("tokenizer_config.json", "{");
  EXPECT_TRUE(absl::IsInvalidArgument(ChatTemplate::Load(directory_).status()));
}

TEST(ChatTemplateTest, RendersTheBundledModels) {
  const auto loaded =
      ChatTemplate::Load(WITAN_SOURCE_DIR "/examples/witling/witling-instruct");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ChatTemplateInput input;
  input.messages = ordered_json::array(
      {{{"role", "user"}, {"content", " What is 2 + 2? "}}});
  input.special_tokens = {{"bos_token", "<|bos|>"}};
  EXPECT_EQ(*(*loaded)->Render(input),
            "<|bos|><|user|>What is 2 + 2?<|end|><|assistant|><think></think>");
  input.arguments["enable_thinking"] = true;
  EXPECT_EQ(*(*loaded)->Render(input),
            "<|bos|><|user|>What is 2 + 2?<|end|><|assistant|><think>");
  input.messages = ordered_json::array();
  EXPECT_FALSE((*loaded)->Render(input).ok());
}

// Work that no step and no output pays for: each of these would take minutes,
// or gigabytes.
TEST(ChatTemplateTest, ChargesWorkInsideOneStep) {
  std::string parameters;
  for (int i = 0; i < 50000; ++i) parameters += fmt::format("a{},", i);
  for (const std::string& source :
       {// as many texts as a text has lines
        std::string("{{ ('\\n' * 99999999)|indent }}"),
        std::string("{{ ('\\n' * 99999999).split('\\n')|length }}"),
        std::string("{{ (' a' * 49999999).split()|length }}"),
        std::string("{% set b = ('b',) * 99999 %}"
                    "{% for i in range(99999) %}"
                    "{% set t = 'a'.startswith(b) %}{% endfor %}"),
        std::string("{% set k = 'a' * 999999 %}"
                    "{% for i in range(99999) %}"
                    "{% set t = [{}]|map(attribute=k, default=1) %}"
                    "{% endfor %}"),
        "{% macro m(" + parameters + "b) %}{% endmacro %}" +
            "{% for i in range(99999) %}{{ m() }}{% endfor %}"}) {
    const auto parsed = ChatTemplate::Parse(source);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    const absl::Status status = (*parsed)->Render({}).status();
    EXPECT_FALSE(status.ok()) << source.substr(0, 80);
  }
}

TEST(ChatTemplateTest, SplitsFromTheRightInLinearTime) {
  const auto parsed = ChatTemplate::Parse(
      "{% set t = 'a' * 1000000 %}"
      "{{ t.rsplit('a' * 500000 + 'b' + 'a')|length }} "
      "{{ 'a--b--\xC3\xA9'.rsplit('--', 1) }} {{ 'aaa'.rsplit('aa') }} "
      "{{ t.count('a' * 999) }}");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const auto text = (*parsed)->Render({});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "1 ['a--b', '\xC3\xA9'] ['a', ''] 1001");
}

TEST(ChatTemplateTest, BoundsNames) {
  const std::string longest(kMaxNameBytes, 'a');
  EXPECT_TRUE(ChatTemplate::Parse("{{ " + longest + " }}").ok());
  EXPECT_EQ(MessageOf(ChatTemplate::Parse("\n{{ " + longest + "a }}").status()),
            "chat template: line 2: a name of more than 1024 bytes");
}

TEST(TemplateArgumentTest, IsJsonOrText) {
  EXPECT_EQ(*ParseTemplateArgument("true"), nlohmann::ordered_json(true));
  EXPECT_EQ(*ParseTemplateArgument("[1, {\"b\": 2, \"a\": null}]"),
            nlohmann::ordered_json::parse("[1,{\"b\":2,\"a\":null}]"));
  EXPECT_EQ(*ParseTemplateArgument("[1"), nlohmann::ordered_json("[1"));
  EXPECT_EQ(*ParseTemplateArgument(""), nlohmann::ordered_json(""));
}

TEST(TemplateArgumentTest, BoundsDepthAndWidth) {
  const auto nested = [](int depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(ParseTemplateArgument(nested(kMaxJsonDepth - 1))->is_array());
  EXPECT_EQ(MessageOf(ParseTemplateArgument(nested(kMaxJsonDepth)).status()),
            "is nested deeper than 63 levels");
  const auto wide = [](int num_members) {
    std::string text = "[{";
    for (int i = 0; i < num_members; ++i) {
      text += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":0";
    }
    return text + "},{\"other\":0}]";
  };
  EXPECT_TRUE(
      ParseTemplateArgument(wide(kMaxTemplateObjectMembers))->is_array());
  EXPECT_EQ(
      MessageOf(
          ParseTemplateArgument(wide(kMaxTemplateObjectMembers + 1)).status()),
      "has an object with more than 512 members");
}

}  // namespace
}  // namespace witan
