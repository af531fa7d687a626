#include "coordinator/text/reasoning.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/bad_words.h"

namespace witan {
namespace {

using nlohmann::json;

struct Parsed {
  std::string thought;
  std::string answer;
  bool operator==(const Parsed&) const = default;
};

void PrintTo(const Parsed& parsed, std::ostream* out) {
  *out << "thought \"" << parsed.thought << "\", answer \"" << parsed.answer
       << '"';
}

const Reasoning& Think() {
  static const auto& think =
      *new Reasoning{.begin = "<think>", .end = "</think>"};
  return think;
}

Parsed Parse(const std::string& text, bool starts_in_thought, size_t piece,
             const Reasoning* reasoning = &Think()) {
  ReasoningParser parser(reasoning, starts_in_thought);
  Parsed parsed;
  const auto add = [&parsed](const ReasoningParser::Piece& p) {
    // What comes after the answer has begun is answer.
    EXPECT_TRUE(p.thought.empty() || parsed.answer.empty());
    parsed.thought += p.thought;
    parsed.answer += p.answer;
  };
  for (size_t at = 0; at < text.size(); at += piece) {
    add(parser.Push(text.substr(at, piece)));
  }
  add(parser.Finish());
  return parsed;
}

// The definition, of the whole text.
Parsed NaiveParse(std::string text, bool in_thought) {
  const auto strip_begin = [](std::string s) {
    while (s.starts_with('\n')) s.erase(0, 1);
    return s;
  };
  const auto strip_end = [](std::string s) {
    while (s.ends_with('\n')) s.pop_back();
    return s;
  };
  if (in_thought) {
    text = strip_begin(text);
    if (text.starts_with("<think>")) text.erase(0, 7);
  } else {
    const size_t first = text.find_first_not_of(" \t\r\n\f\v");
    if (first == std::string::npos || text.compare(first, 7, "<think>") != 0) {
      return {"", text};
    }
    text.erase(0, first + 7);
  }
  const size_t end = text.find("</think>");
  if (end == std::string::npos) return {strip_end(strip_begin(text)), ""};
  return {strip_end(strip_begin(text.substr(0, end))),
          strip_begin(text.substr(end + 8))};
}

TEST(ReasoningParserTest, TellsTheThoughtFromTheAnswerHoweverItIsCut) {
  for (size_t piece = 1; piece < 50; ++piece) {
    EXPECT_EQ(Parse("<think>\n1 < 2\n</think>\n\nYes.\n", false, piece),
              (Parsed{"1 < 2", "Yes.\n"}));
    EXPECT_EQ(Parse("\n1 < 2\n\n</think>\n\nYes.", true, piece),
              (Parsed{"1 < 2", "Yes."}));
    EXPECT_EQ(Parse("  \n<think></think>2", false, piece), (Parsed{"", "2"}));
    EXPECT_EQ(Parse("never closed </thin\n", true, piece),
              (Parsed{"never closed </thin", ""}));
    EXPECT_EQ(Parse("<thin air", false, piece), (Parsed{"", "<thin air"}));
    EXPECT_EQ(Parse("The tag <think>x</think>", false, piece),
              (Parsed{"", "The tag <think>x</think>"}));
    // Models that write the marker once more than their template.
    EXPECT_EQ(Parse("<think>\na</think>b", true, piece), (Parsed{"a", "b"}));
    EXPECT_EQ(Parse("a</think>b</think><think>c", true, piece),
              (Parsed{"a", "b</think><think>c"}));
    EXPECT_EQ(Parse("\n\n", true, piece), (Parsed{"", ""}));
    EXPECT_EQ(Parse("", false, piece), (Parsed{"", ""}));
    EXPECT_EQ(Parse("<think>a</think>b", false, piece, nullptr),
              (Parsed{"", "<think>a</think>b"}));
  }
}

TEST(ReasoningParserTest, EqualsTheDefinitionOnTextsMadeOfPartsOfMarkers) {
  const std::string parts[] = {"<think>", "</think>", "<",  "/", "think>",
                               "<thi",    "</thi",    "\n", " ", "x"};
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (uint64_t n = random() % 9; n > 0; --n) {
      text += parts[random() % std::size(parts)];
    }
    const bool in_thought = random() % 2 == 0;
    const size_t piece = 1 + random() % 9;
    ASSERT_EQ(Parse(text, in_thought, piece), NaiveParse(text, in_thought))
        << '"' << text << "\" in pieces of " << piece
        << (in_thought ? " in thought" : "");
  }
}

TEST(ReasoningParserTest, NothingIsHeldBackThatCannotBecomeAMarker) {
  ReasoningParser parser(&Think(), /*starts_in_thought=*/true);
  EXPECT_EQ(parser.Push("abc").thought, "abc");
  EXPECT_EQ(parser.Push("d\n").thought, "d");
  EXPECT_EQ(parser.Push("e</").thought, "\ne");
  EXPECT_EQ(parser.Push("b").thought, "</b");
  EXPECT_TRUE(parser.in_thought());
  EXPECT_EQ(parser.Push("</think>f").answer, "f");
  EXPECT_FALSE(parser.in_thought());
  EXPECT_TRUE(parser.had_thought());
  // Whitespace without an end is no thought.
  ReasoningParser spaces(&Think(), false);
  std::string answer;
  const std::string text(2 * kMaxReasoningMarkerBytes, ' ');
  for (const char c : text) answer += spaces.Push({&c, 1}).answer;
  EXPECT_EQ(answer, text);
}

// Bytes as tokens, and the tokens of `added`, which are special or not.
std::unique_ptr<Tokenizer> MakeTokenizer(
    const std::vector<std::pair<std::string, bool>>& added) {
  json tokenizer = json::parse(R"({
    "added_tokens": [],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
                      "use_regex": false},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {}, "merges": []}
  })");
  int id = 0;
  json& vocab = tokenizer["model"]["vocab"];
  for (char c = '!'; c <= '~'; ++c) vocab[std::string(1, c)] = id++;
  vocab["\xC4\xA0"] = id++;  // a space
  vocab["\xC4\x8A"] = id++;  // a line feed
  vocab["\xC4\xA0w"] = id++;
  tokenizer["model"]["merges"] = {"\xC4\xA0 w"};
  for (const auto& [content, special] : added) {
    tokenizer["added_tokens"].push_back({{"id", id++},
                                         {"content", content},
                                         {"special", special},
                                         {"single_word", false},
                                         {"lstrip", false},
                                         {"rstrip", false},
                                         {"normalized", false}});
  }
  const std::string text = tokenizer.dump();
  auto made = Tokenizer::FromFiles({.tokenizer = text});
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *std::move(made) : nullptr;
}

std::unique_ptr<ChatTemplate> Template(const std::string& source) {
  return ChatTemplate::Parse(source).value();
}

constexpr char kPlainTemplate[] =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
// In the manner of Qwen 3.
constexpr char kThinkingTemplate[] =
    "{% for m in messages %}{{ m.role }}: {% if m.reasoning_content %}"
    "<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}\n{% endfor %}";
// In the manner of DeepSeek R1.
constexpr char kOpeningTemplate[] =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: <think>\n{% endif %}";

TEST(FindReasoningTest, MarkersComeFromTokensAndTemplates) {
  const auto plain = MakeTokenizer({});
  const auto tokens = MakeTokenizer({{"<think>", false}, {"</think>", false}});
  const auto none = Template(kPlainTemplate);
  const auto thinking = Template(kThinkingTemplate);
  const auto opening = Template(kOpeningTemplate);
  EXPECT_EQ(*FindReasoning("auto", *plain, nullptr), std::nullopt);
  EXPECT_EQ(*FindReasoning("auto", *tokens, nullptr), std::nullopt);
  EXPECT_EQ(*FindReasoning("auto", *plain, none.get()), std::nullopt);
  EXPECT_EQ(*FindReasoning("none", *tokens, thinking.get()), std::nullopt);

  const auto of_tokens = *FindReasoning("auto", *tokens, none.get());
  ASSERT_TRUE(of_tokens.has_value());
  EXPECT_EQ(of_tokens->begin_id, tokens->IdOf("<think>"));
  EXPECT_EQ(of_tokens->closing_ids,
            (std::vector<TokenId>{*tokens->IdOf("</think>")}));

  const auto of_template = *FindReasoning("auto", *plain, opening.get());
  ASSERT_TRUE(of_template.has_value());
  EXPECT_EQ(of_template->end, "</think>");
  EXPECT_EQ(of_template->end_id, std::nullopt);
  EXPECT_EQ(plain->Decode(of_template->closing_ids, false).value(), "</think>");

  const auto of_both = *FindReasoning("auto", *tokens, thinking.get());
  ASSERT_TRUE(of_both.has_value());
  EXPECT_EQ(of_both->closing, "\n</think>\n\n");
  const TokenId line_feed = tokens->Encode("\n", {})->front();
  EXPECT_EQ(of_both->closing_ids,
            (std::vector<TokenId>{line_feed, *tokens->IdOf("</think>"),
                                  line_feed, line_feed}));

  const auto named = *FindReasoning("[T],[/T]", *plain, nullptr);
  ASSERT_TRUE(named.has_value());
  EXPECT_EQ(named->begin, "[T]");
  EXPECT_EQ(named->closing, "[/T]");
}

TEST(FindReasoningTest, ASettingThatCannotBeReadIsRefused) {
  const auto tokenizer = MakeTokenizer({});
  for (const std::string& setting :
       {std::string("maybe"), std::string(""), std::string(",</t>"),
        std::string("<t>,"), std::string("<t>, "), std::string("\xFF,x"),
        std::string(kMaxReasoningMarkerBytes + 1, 'x') + ",y"}) {
    const auto found = FindReasoning(setting, *tokenizer, nullptr);
    EXPECT_EQ(found.status().code(), absl::StatusCode::kInvalidArgument)
        << setting;
    EXPECT_NE(found.status().message().find("--reasoning-markers"),
              std::string::npos)
        << found.status();
  }
  // This tokenizer has no such bytes.
  EXPECT_FALSE(FindReasoning("<t>,\xC3\xA9", *tokenizer, nullptr).ok());
}

TEST(FindReasoningTest, APromptOpensAThoughtOnlyAtItsEnd) {
  for (const bool special : {false, true}) {
    const auto tokenizer =
        MakeTokenizer({{"<think>", special}, {"</think>", special}});
    const auto opening = Template(kOpeningTemplate);
    const auto reasoning = *FindReasoning("auto", *tokenizer, opening.get());
    const auto opens = [&](const std::string& text) {
      return OpensThought(*reasoning, *tokenizer,
                          tokenizer->Encode(text, {}).value());
    };
    EXPECT_TRUE(opens("user: x\n<think>\n"));
    EXPECT_TRUE(opens("<think>"));
    EXPECT_TRUE(opens(std::string(5000, 'x') + "<think> \n\n"));
    EXPECT_FALSE(opens("<think>\n</think>\n\n"));
    EXPECT_FALSE(opens("what does <think> mean?"));
    EXPECT_FALSE(opens("<thin"));
    EXPECT_FALSE(OpensThought(*reasoning, *tokenizer, {}));
  }
  // Spelled with the tokens of its letters.
  const auto plain = MakeTokenizer({});
  const auto reasoning = *FindReasoning("<think>,</think>", *plain, nullptr);
  EXPECT_TRUE(OpensThought(*reasoning, *plain,
                           plain->Encode("a<think>\n", {}).value()));
}

TEST(BadWordsTest, AWordHasItsTokensWithAndWithoutASpaceBeforeIt) {
  const auto tokenizer = MakeTokenizer({});
  const auto ids = [&](const std::string& text) {
    return tokenizer->Encode(text, {}).value();
  };
  ASSERT_EQ(ids(" w").size(), 1u);
  const auto sorted = [](std::vector<std::vector<TokenId>> sequences) {
    std::sort(sequences.begin(), sequences.end());
    return sequences;
  };
  EXPECT_EQ(EncodeBadWords({"we"}, *tokenizer).value(),
            sorted({ids("we"), ids(" we")}));
  // The same with a space that the client wrote, and twice.
  EXPECT_EQ(EncodeBadWords({"  we", "we", "we"}, *tokenizer).value(),
            sorted({ids("we"), ids(" we")}));
  EXPECT_TRUE(EncodeBadWords({}, *tokenizer).value().empty());
  const auto too_long = EncodeBadWords(
      {"a", std::string(kMaxBadWordTokens + 1, 'x')}, *tokenizer);
  EXPECT_EQ(too_long.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(too_long.status().message().find("entry 1 has 65 tokens"),
            std::string::npos)
      << too_long.status();
  // A tokenizer may have no token for a text.
  EXPECT_FALSE(EncodeBadWords({"\xC3\xA9"}, *tokenizer).ok());
}

}  // namespace
}  // namespace witan
