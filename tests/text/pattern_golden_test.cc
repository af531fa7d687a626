// Equality with the reference implementation in how patterns cut and replace,
// see data/make_tokenizers.py.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "coordinator/text/json_value.h"
#include "coordinator/text/normalizer.h"
#include "coordinator/text/pre_tokenizer.h"
#include "coordinator/text/regex.h"

namespace witan {
namespace {

using nlohmann::json;

const json& Cases() {
  static const json cases = [] {
    std::ifstream file(WITAN_SOURCE_DIR "/tests/text/data/pattern_cases.json");
    return json::parse(file);
  }();
  return cases;
}

absl::StatusOr<JsonDocument> Document(const json& spec) {
  return JsonDocument::Parse(spec.dump(), "tokenizer.json");
}

TEST(PatternGoldenTest, CutsAsTheReferenceDoes) {
  ASSERT_GE(Cases()["cuts"].size(), 120u);
  for (const json& entry : Cases()["cuts"]) {
    const json& spec = entry["pre_tokenizer"];
    SCOPED_TRACE(spec.dump());
    const auto document = Document(spec);
    ASSERT_TRUE(document.ok()) << document.status();
    const auto pre_tokenizer = PreTokenizer::Parse(document->root());
    ASSERT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
    for (const json& example : entry["texts"]) {
      const std::string text = example[0];
      std::vector<std::string> words;
      const absl::Status status = pre_tokenizer->Apply(
          text, /*at_text_start=*/true,
          [&words](std::string_view word) { words.emplace_back(word); });
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(words, example[1].get<std::vector<std::string>>())
          << json(text).dump();
    }
  }
}

TEST(PatternGoldenTest, ReplacesAsTheReferenceDoes) {
  ASSERT_GE(Cases()["replacements"].size(), 50u);
  for (const json& entry : Cases()["replacements"]) {
    const json& spec = entry["normalizer"];
    SCOPED_TRACE(spec.dump());
    const auto document = Document(spec);
    ASSERT_TRUE(document.ok()) << document.status();
    const auto normalizer = Normalizer::Parse(document->root());
    ASSERT_TRUE(normalizer.ok()) << normalizer.status();
    for (const json& example : entry["texts"]) {
      const std::string text = example[0];
      const auto replaced = normalizer->Apply(text);
      ASSERT_TRUE(replaced.ok()) << replaced.status();
      EXPECT_EQ(*replaced, example[1].get<std::string>()) << json(text).dump();
    }
  }
}

std::string ErrorOf(std::string_view pattern) {
  return std::string(MessageOf(Regex::Compile(pattern).status()));
}

TEST(RegexTest, RefusesWhatOnigurumaAndPcre2ReadDifferently) {
  EXPECT_EQ(ErrorOf(R"(a\b)"), R"(pattern 'a\b': \b is not supported)");
  EXPECT_EQ(ErrorOf("x(?i)a|b"),
            "pattern 'x(?i)a|b': flags behind the beginning need a group of "
            "their own");
  EXPECT_EQ(ErrorOf("(?s)."), "pattern '(?s).': group '(?s' is not supported");
  EXPECT_EQ(ErrorOf("(?i:strasse)"),
            "pattern '(?i:strasse)': 'ss' under the flag i, which is also "
            "U+00DF, is not supported");
  EXPECT_EQ(ErrorOf("(?i)[À-ÿ]"),
            "pattern '(?i)[À-ÿ]': U+00DF in a class under the flag i, which is "
            "also 'ss', is not supported");
  for (const char* pattern :
       {R"(\pL)",    R"(\R)",       R"(\X)",        R"(\K)",
        R"(\G)",     R"(\H)",       R"(\B)",        R"(\1)",
        R"(\0)",     R"(\xe9)",     R"(\u00e)",     R"(\Q)",
        R"(\p{L&})", R"([\W])",     R"([\A])",      "[a&&b]",
        "[[a]]",     "[[:punct:]]", "[[:^alpha:]]", "(?P<a>b)",
        "(?<a>b)",   "(?|a)",       "(?#a)",        "(?x)a",
        "(?~a)",     "(*FAIL)",     "(?1)",         "(?i)f(?:i)",
        "(?i)ß",     "(?i)[ﬁ]",     R"((?i)\p{L})", R"((?i)[\w])",
        "a**"}) {
    EXPECT_NE(ErrorOf(pattern), "") << pattern;
  }
  // Only where the flag holds, and only neighbours.
  for (const char* pattern : {"(?i:a)ss", "(?i)s|s", "(?i)s[s]", "(?i:'s|'t)",
                              "(?i)a(?-i:ss)", "(?i)s.s"}) {
    EXPECT_EQ(ErrorOf(pattern), "") << pattern;
  }
}

TEST(RegexTest, AnEmptyTextHasNoParts) {
  std::vector<Regex::Part> parts;
  ASSERT_TRUE(Regex::Compile("x*")->Split("", &parts).ok());
  EXPECT_TRUE(parts.empty());
}

}  // namespace
}  // namespace witan
