#include "coordinator/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/normalizer.h"
#include "tests/testing/temp_directory.h"

namespace witan {
namespace {

using nlohmann::ordered_json;

const char* kData = WITAN_SOURCE_DIR "/tests/text/data/";

std::unique_ptr<Tokenizer> LoadTokenizer(const std::string& name) {
  auto tokenizer = Tokenizer::Load(kData + name);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

// The smallest byte-level tokenizer: a, b, c, ab, abc.
ordered_json SmallSpec() {
  return ordered_json::parse(R"({
    "added_tokens": [
      {"id": 5, "content": "<e>", "special": true, "normalized": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
                      "use_regex": false},
    "post_processor": null,
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE",
              "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4},
              "merges": ["a b", ["ab", "c"]]}})");
}

absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(
    std::string_view tokenizer, std::string_view config,
    std::string_view special_tokens_map) {
  return Tokenizer::FromFiles({.tokenizer = tokenizer,
                               .tokenizer_config = config,
                               .special_tokens_map = special_tokens_map});
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const ordered_json& spec,
                                                std::string config = "") {
  return FromJson(spec.dump(), config, "");
}

// The error of SmallSpec after `change`.
std::string ErrorAfter(const std::function<void(ordered_json&)>& change) {
  ordered_json spec = SmallSpec();
  change(spec);
  const auto tokenizer = Make(spec);
  if (tokenizer.ok()) return "no error";
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(MessageOf(tokenizer.status()));
}

TEST(TokenizerTest, MergesLowestRankFirst) {
  const auto tokenizer = Make(SmallSpec());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode("abcab<e>ca", {}),
            (std::vector<TokenId>{4, 3, 5, 2, 0}));
  EXPECT_EQ((*tokenizer)->vocab_size(), 6);
  EXPECT_EQ((*tokenizer)->IdOf("abc"), 4);
  EXPECT_EQ((*tokenizer)->IdOf("<e>"), 5);
  EXPECT_EQ((*tokenizer)->IdOf("d"), std::nullopt);
}

TEST(TokenizerTest, NamesTheByteThatIsNotUtf8) {
  const auto tokenizer = LoadTokenizer("llama3_style");
  for (const auto& [text, message] :
       std::vector<std::pair<std::string, std::string>>{
           {"ab\xFF", "text is not valid UTF-8 at byte 2 (0xFF)"},
           {"\xC0\x80", "text is not valid UTF-8 at byte 0 (0xC0)"},
           {"a\xED\xA0\x80", "text is not valid UTF-8 at byte 1 (0xED)"},
           {"é\xE2\x82", "text is not valid UTF-8 at byte 2 (0xE2)"},
           {"\xF4\x90\x80\x80", "text is not valid UTF-8 at byte 0 (0xF4)"}}) {
    const auto ids = tokenizer->Encode(text, {});
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(MessageOf(ids.status()), message);
  }
}

TEST(TokenizerTest, EmptyTextHasOnlySpecialTokens) {
  const auto tokenizer = LoadTokenizer("llama2_style");
  EXPECT_EQ(*tokenizer->Encode("", {}), (std::vector<TokenId>{1, 2}));
  EXPECT_TRUE(tokenizer->Encode("", {.add_special_tokens = false})->empty());
  EXPECT_EQ(*tokenizer->Decode({}, false), "");
}

TEST(TokenizerTest, RefusesIdsBeyondTheVocabulary) {
  const auto tokenizer = Make(SmallSpec());
  for (TokenId id : {-1, 6, INT32_MAX, INT32_MIN}) {
    const auto text = (*tokenizer)->Decode(std::vector<TokenId>{0, id}, false);
    EXPECT_EQ(MessageOf(text.status()),
              fmt::format("token id {} at index 1; allowed: 0 to 5", id));
  }
}

// Long words and runs that make naive algorithms quadratic: the test would not
// end within its time limit.
TEST(TokenizerTest, IsFastOnAdversarialText) {
  constexpr size_t kSize = size_t{1} << 20;
  std::string letters;
  uint32_t state = 1;
  while (letters.size() < kSize) {
    state = state * 1103515245 + 12345;
    letters += static_cast<char>('a' + (state >> 16) % 26);
  }
  std::string marks = "a";
  while (marks.size() < kSize) marks += "\xCC\x81\xCC\xA3";
  std::string prefixes;
  while (prefixes.size() < kSize) prefixes += "<|end|";
  std::string lines;
  while (lines.size() < kSize) lines += " \n\t";
  for (const char* name : {"llama3_style", "qwen_style", "llama2_style"}) {
    const auto tokenizer = LoadTokenizer(name);
    for (const std::string& text :
         {letters, marks, prefixes, lines, lines + "x", std::string(kSize, 'a'),
          std::string(kSize, ' '), std::string(kSize, ' ') + "x",
          std::string(kSize, '\n'), std::string(kSize, '!'),
          std::string(kSize, '7'), std::string(kSize, '\0')}) {
      const auto ids = tokenizer->Encode(text, {});
      ASSERT_TRUE(ids.ok()) << name << ": " << ids.status();
      EXPECT_FALSE(ids->empty());
    }
  }
}

TEST(TokenizerTest, RefusesTextBeyondTheLimit) {
  const auto tokenizer = Make(SmallSpec());
  EXPECT_FALSE(
      (*tokenizer)->Encode(std::string(kMaxEncodeTextBytes + 1, 'a'), {}).ok());
}

TEST(TokenizerTest, ThreadsShareOneTokenizer) {
  const auto tokenizer = LoadTokenizer("qwen_style");
  const std::string text = "whether the weather be fine <think> naïve 12345";
  const auto expected = *tokenizer->Encode(text, {});
  std::vector<std::thread> threads;
  std::atomic<int> num_equal = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 100; ++j) {
        num_equal += *tokenizer->Encode(text, {}) == expected;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_equal, 400);
}

TEST(TokenizerTest, NamesUnsupportedParts) {
  using J = ordered_json;
  EXPECT_EQ(ErrorAfter([](J& s) { s["model"]["type"] = "WordPiece"; }),
            "tokenizer.json: model.type: got \"WordPiece\"; expected BPE or "
            "Unigram");
  EXPECT_EQ(ErrorAfter([](J& s) { s["model"]["type"] = "Unigram"; }),
            "tokenizer.json: model.vocab: got {\"a\":0,\"b\":1,\"c\":2,"
            "\"ab\":3,\"abc\":4}; expected an array");
  EXPECT_EQ(ErrorAfter([](J& s) {
              s["normalizer"] = {{"type", "BertNormalizer"}};
            }),
            "tokenizer.json: normalizer.type: got \"BertNormalizer\"; expected "
            "NFC, NFD, NFKC, NFKD, Lowercase, Nmt, Precompiled, Prepend, "
            "Replace, Strip, StripAccents or Sequence");
  EXPECT_EQ(ErrorAfter([](J& s) {
              s["normalizer"] = {{"type", "Precompiled"},
                                 {"precompiled_charsmap", "AA"}};
            }),
            "tokenizer.json: normalizer.precompiled_charsmap: got \"AA\"; "
            "expected base64");
  EXPECT_EQ(ErrorAfter([](J& s) {
              s["pre_tokenizer"] = {
                  {"type", "Sequence"},
                  {"pretokenizers", {{{"type", "BertPreTokenizer"}}}}};
            }),
            "tokenizer.json: pre_tokenizer.pretokenizers[0].type: got "
            "\"BertPreTokenizer\"; expected Split, ByteLevel, Metaspace, "
            "Digits, Punctuation, Whitespace, WhitespaceSplit, "
            "CharDelimiterSplit or Sequence");
  EXPECT_EQ(ErrorAfter([](J& s) {
              s["post_processor"] = {{"type", "Bert"}};
            }),
            "tokenizer.json: post_processor.type: got \"Bert\"; expected "
            "TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel "
            "or Sequence");
  EXPECT_NE(ErrorAfter([](J& s) {
              s["decoder"] = {{"type", "WordPiece"}};
            }),
            "no error");
  EXPECT_NE(ErrorAfter([](J& s) { s["decoder"] = nullptr; }), "no error");
  EXPECT_NE(ErrorAfter([](J& s) { s["model"]["dropout"] = 0.1; }), "no error");
  EXPECT_NE(ErrorAfter([](J& s) { s["model"]["end_of_word_suffix"] = "</w>"; }),
            "no error");
  EXPECT_NE(
      ErrorAfter([](J& s) {
        s["pre_tokenizer"] = {
            {"type", "Sequence"},
            {"pretokenizers", {{{"type", "ByteLevel"}}, {{"type", "Digits"}}}}};
      }),
      "no error");
}

TEST(TokenizerTest, BoundsTheStagesOfThePreTokenizer) {
  const auto with_stages = [](size_t count) {
    return [count](ordered_json& spec) {
      spec["pre_tokenizer"] = {
          {"type", "Sequence"},
          {"pretokenizers",
           std::vector<ordered_json>(count, {{"type", "Digits"}})}};
    };
  };
  EXPECT_EQ(ErrorAfter(with_stages(kMaxTokenizerStages)), "no error");
  EXPECT_EQ(ErrorAfter(with_stages(kMaxTokenizerStages + 1)),
            "tokenizer.json: pre_tokenizer has more than 64 stages");
}

// Files whose stages multiply what they are given: a text of one byte would
// take all memory, or until the end of time.
TEST(TokenizerTest, BoundsWhatStagesMakeOfAText) {
  const ordered_json doubles = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  const auto encode = [](const ordered_json& spec) {
    const auto tokenizer = Make(spec);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return (*tokenizer)->Encode("a", {}).status();
  };
  ordered_json spec = SmallSpec();
  spec["normalizer"] = {{"type", "Sequence"},
                        {"normalizers", std::vector<ordered_json>(4, doubles)}};
  EXPECT_TRUE(encode(spec).ok());
  spec["normalizer"]["normalizers"] = std::vector<ordered_json>(60, doubles);
  EXPECT_EQ(encode(spec).code(), absl::StatusCode::kResourceExhausted);

  // Each pair of stages cuts words into characters and gives each a prefix.
  spec = SmallSpec();
  std::vector<ordered_json> stages;
  for (int i = 0; i < 30; ++i) {
    stages.push_back({{"type", "Split"},
                      {"pattern", {{"Regex", "."}}},
                      {"behavior", "Isolated"}});
    stages.push_back({{"type", "Metaspace"},
                      {"replacement", i % 2 == 0 ? "b" : "c"},
                      {"prepend_scheme", "always"},
                      {"split", false}});
  }
  spec["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", stages}};
  EXPECT_EQ(encode(spec).code(), absl::StatusCode::kResourceExhausted);
}

TEST(TokenizerTest, BoundsWhatStagesMakeOfTheVocabulary) {
  const ordered_json doubles = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  const auto decoder = [&](size_t count) {
    return [&doubles, count](ordered_json& spec) {
      spec["decoder"] = {
          {"type", "Sequence"},
          {"decoders", std::vector<ordered_json>(count, doubles)}};
    };
  };
  EXPECT_EQ(ErrorAfter(decoder(10)), "no error");
  EXPECT_EQ(
      ErrorAfter(decoder(11)),
      "tokenizer.json: token \"a\": replacing pattern 'a' makes more than "
      "1025 bytes of 1024");
  EXPECT_EQ(ErrorAfter(decoder(kMaxTokenizerStages + 1)),
            "tokenizer.json: decoder has more than 64 stages");
  EXPECT_EQ(ErrorAfter([&](ordered_json& spec) {
              spec["normalizer"] = {
                  {"type", "Sequence"},
                  {"normalizers", std::vector<ordered_json>(
                                      kMaxTokenizerStages + 1, doubles)}};
            }),
            "tokenizer.json: normalizer has more than 64 stages");
  EXPECT_EQ(ErrorAfter([&](ordered_json& spec) {
              spec["normalizer"] = {
                  {"type", "Sequence"},
                  {"normalizers", std::vector<ordered_json>(11, doubles)}};
              spec["added_tokens"].push_back({{"id", 6},
                                              {"content", "a a"},
                                              {"special", false},
                                              {"normalized", true}});
            }),
            "tokenizer.json: normalizer makes more than 1024 bytes of an added "
            "token");
}

TEST(TokenizerTest, BoundsTheTokensAroundAText) {
  const auto with_tokens = [](size_t count) {
    return [count](ordered_json& spec) {
      spec["post_processor"] = {
          {"type", "TemplateProcessing"},
          {"single",
           {{{"SpecialToken", {{"id", "<e>"}}}},
            {{"Sequence", {{"id", "A"}}}}}},
          {"special_tokens", {{"<e>", {{"ids", std::vector<int>(count, 5)}}}}}};
    };
  };
  EXPECT_EQ(ErrorAfter(with_tokens(kMaxPostProcessorTokens)), "no error");
  EXPECT_THAT(ErrorAfter(with_tokens(kMaxPostProcessorTokens + 1)),
              ::testing::HasSubstr("at most 1024 tokens around a text"));
}

// White space that is a token and takes what follows with it.
TEST(TokenizerTest, SkipsWhiteSpaceBehindTokensOnce) {
  ordered_json spec = SmallSpec();
  spec["added_tokens"].push_back({{"id", 6},
                                  {"content", " "},
                                  {"special", false},
                                  {"normalized", false},
                                  {"rstrip", true}});
  const auto tokenizer = Make(spec);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode("a  b", {}),
            (std::vector<TokenId>{0, 6, 6, 1}));
  // Quadratic, this would not end within the test's time limit.
  constexpr size_t kSize = size_t{1} << 20;
  const auto ids = (*tokenizer)->Encode(std::string(kSize, ' '), {});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(ids->size(), kSize);
}

TEST(TokenizerTest, NamesDamageOfTheVocabulary) {
  using J = ordered_json;
  EXPECT_EQ(ErrorAfter([](J& s) { s["model"]["vocab"]["d"] = 1; }),
            "tokenizer.json: model.vocab[\"d\"]: got 1; expected an id of its "
            "own; token 'b' has this one");
  for (const J& id : {J(-1), J(kMaxVocabSize), J(1.5), J("1"), J(nullptr),
                      J(uint64_t{1} << 63)}) {
    EXPECT_EQ(ErrorAfter([&](J& s) {
                s["model"]["vocab"]["d"] = id;
              }).find("tokenizer.json: model.vocab[\"d\"]: "),
              0u);
  }
  EXPECT_EQ(ErrorAfter([](J& s) { s["model"]["merges"][0] = "a x"; }),
            "tokenizer.json: model.merges[0]: got \"a x\"; expected both "
            "tokens and their union in model.vocab");
  for (const J& merge : {J("ab"), J("a b c"), J(5), J({"a"}), J({"a", 1}),
                         J({"b", "a"}), J(""), J(J::object())}) {
    EXPECT_EQ(ErrorAfter([&](J& s) {
                s["model"]["merges"][1] = merge;
              }).find("tokenizer.json: model.merges[1]: "),
              0u)
        << merge;
  }
  EXPECT_NE(ErrorAfter([](J& s) { s["model"]["unk_token"] = "?"; }),
            "no error");
  EXPECT_NE(ErrorAfter([](J& s) { s["model"].erase("vocab"); }), "no error");
  EXPECT_NE(ErrorAfter([](J& s) { s["model"].erase("merges"); }), "no error");
  EXPECT_NE(ErrorAfter([](J& s) { s["model"] = 7; }), "no error");
  EXPECT_NE(ErrorAfter([](J& s) { s = J::array(); }), "no error");
  // The same key twice.
  EXPECT_FALSE(FromJson(
                   R"({"decoder":{"type":"ByteLevel"},"model":{"type":"BPE",
                       "vocab":{"a":0,"a":1},"merges":[]}})",
                   "", "")
                   .ok());
}

TEST(TokenizerTest, NamesDamageOfAddedTokens) {
  using J = ordered_json;
  EXPECT_EQ(ErrorAfter([](J& s) { s["added_tokens"][0]["id"] = 1; }),
            "tokenizer.json: added_tokens[0].id: got 1; expected an id of its "
            "own; token 'b' has this one");
  EXPECT_EQ(ErrorAfter([](J& s) { s["added_tokens"][0]["content"] = "ab"; }),
            "tokenizer.json: added_tokens[0].id: got 5; expected 3, the id of "
            "'ab' in model.vocab");
  EXPECT_NE(ErrorAfter([](J& s) { s["added_tokens"][0]["content"] = ""; }),
            "no error");
  EXPECT_NE(ErrorAfter([](J& s) {
              s["added_tokens"][0]["content"] = std::string(5000, 'x');
            }),
            "no error");
  EXPECT_NE(ErrorAfter([](J& s) { s["added_tokens"] = 3; }), "no error");
  EXPECT_NE(ErrorAfter([](J& s) { s["added_tokens"][0] = "x"; }), "no error");
  EXPECT_NE(ErrorAfter([](J& s) { s["added_tokens"][0]["lstrip"] = 1; }),
            "no error");
}

TEST(TokenizerTest, NamesDamageOfPatternsAndTemplates) {
  using J = ordered_json;
  const auto with_pattern = [](const std::string& pattern) {
    return ErrorAfter([&](J& s) {
      s["pre_tokenizer"] = {{"type", "Split"},
                            {"pattern", {{"Regex", pattern}}},
                            {"behavior", "Isolated"}};
    });
  };
  EXPECT_EQ(with_pattern("(a"),
            "tokenizer.json: pre_tokenizer.pattern.Regex: pattern '(a' does "
            "not compile: missing closing parenthesis");
  for (const char* pattern : {"", "[", "a{2,1}", "\\p{Nope}", "[a&&b]", "[[a]]",
                              "\\", "(?<n", "\\Qa", "*"}) {
    EXPECT_NE(with_pattern(pattern), "no error") << pattern;
  }
  const auto with_template = [](const J& single, const J& special) {
    return ErrorAfter([&](J& s) {
      s["post_processor"] = {{"type", "TemplateProcessing"},
                             {"single", single},
                             {"special_tokens", special}};
    });
  };
  const J text = {{"Sequence", {{"id", "A"}}}};
  const J bos = {{"SpecialToken", {{"id", "<e>"}}}};
  EXPECT_NE(with_template({bos, text}, J::object()), "no error");
  EXPECT_NE(with_template({bos, text}, {{"<e>", {{"ids", {77}}}}}), "no error");
  EXPECT_NE(with_template({bos}, {{"<e>", {{"ids", {5}}}}}), "no error");
  EXPECT_NE(with_template({text, text}, J::object()), "no error");
  EXPECT_EQ(with_template({bos, text}, {{"<e>", {{"ids", {5}}}}}), "no error");
}

TEST(TokenizerTest, BoundsPatterns) {
  const auto with_pattern = [](size_t num_bytes) {
    return [num_bytes](ordered_json& spec) {
      spec["pre_tokenizer"] = {
          {"type", "Split"},
          {"pattern", {{"Regex", std::string(num_bytes, 'a')}}},
          {"behavior", "Isolated"}};
    };
  };
  EXPECT_EQ(ErrorAfter(with_pattern(kMaxRegexPatternBytes)), "no error");
  EXPECT_EQ(ErrorAfter(with_pattern(kMaxRegexPatternBytes + 1)),
            "tokenizer.json: pre_tokenizer.pattern.Regex: a pattern of 16385 "
            "bytes; at most 16384 are allowed");
}

TEST(TokenizerTest, EndsPatternsThatBacktrackForTooLong) {
  ordered_json spec = SmallSpec();
  spec["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers",
                            {{{"type", "Split"},
                              {"pattern", {{"Regex", "(a|aa)+[bc]"}}},
                              {"behavior", "Isolated"}},
                             {{"type", "ByteLevel"}}}}};
  const auto tokenizer = Make(spec);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto ids = (*tokenizer)->Encode(std::string(200, 'a'), {});
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(TokenizerTest, RefusesTruncatedAndDeeplyNestedFiles) {
  const std::string json = SmallSpec().dump();
  for (size_t size = 0; size < json.size(); ++size) {
    EXPECT_FALSE(FromJson(json.substr(0, size), "", "").ok());
  }
  const std::string deep(10 << 20, '[');
  EXPECT_FALSE(FromJson(deep, "", "").ok());
  EXPECT_FALSE(FromJson(deep + std::string(10 << 20, ']'), "", "").ok());
  EXPECT_FALSE(FromJson(json, deep.substr(9 << 20), "").ok());
  EXPECT_FALSE(FromJson(json, "", deep.substr(9 << 20)).ok());
  EXPECT_FALSE(FromJson("\xFF", "", "").ok());
  std::string sequences = R"({"type":"NFC"})";
  for (int i = 0; i < 1000; ++i) {
    sequences = R"({"type":"Sequence","normalizers":[)" + sequences + "]}";
  }
  EXPECT_FALSE(FromJson(R"({"normalizer":)" + sequences + "}", "", "").ok());
}

TEST(TokenizerTest, ReadsSpecialTokensOfTheConfig) {
  auto tokenizer = Make(
      SmallSpec(),
      R"({"bos_token": {"content": "a"}, "eos_token": "<e>", "pad_token": "?",
          "model_max_length": 1000000000000000019884624838656,
          "add_bos_token": true, "add_eos_token": true})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->eos_id(), 5);
  EXPECT_EQ((*tokenizer)->special_tokens(),
            (std::vector<std::pair<std::string, std::string>>{
                {"bos_token", "a"}, {"eos_token", "<e>"}, {"pad_token", "?"}}));
  EXPECT_EQ(*(*tokenizer)->Encode("b", {}), (std::vector<TokenId>{0, 1, 5}));
  const auto mapped =
      FromJson(SmallSpec().dump(), "", R"({"eos_token": "<e>"})");
  EXPECT_EQ((*mapped)->eos_id(), 5);
  for (const char* config :
       {R"({"bos_token": "nope"})", R"({"bos_token": 5})",
        R"({"eos_token": {"content": 5}})", R"({"add_bos_token": true})",
        R"({"bos_token": "a", "add_bos_token": 1})", "[]", "{"}) {
    EXPECT_EQ(Make(SmallSpec(), config).status().code(),
              absl::StatusCode::kInvalidArgument)
        << config;
  }
}

TEST(TokenizerTest, LoadSaysWhichFileIsMissing) {
  const TempDirectory directory;
  const auto status = Tokenizer::Load(directory.path()).status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_EQ(MessageOf(status),
            directory.path() +
                ": none of tokenizer.json, tokenizer.model and tekken.json is "
                "there; a model directory needs one of them");
}

// Unicode's own example of canonical ordering and composition, and what each
// form makes of it.
TEST(NormalizerTest, GivesTheFourForms) {
  const std::string text = "\u1E9B\u0323 \uFB01 \u212B \uAC01";
  EXPECT_EQ(NormalizeUnicode(text, UnicodeForm::kNfc),
            "\u1E9B\u0323 \uFB01 \u00C5 \uAC01");
  EXPECT_EQ(NormalizeUnicode(text, UnicodeForm::kNfd),
            "\u017F\u0323\u0307 \uFB01 A\u030A \u1100\u1161\u11A8");
  EXPECT_EQ(NormalizeUnicode(text, UnicodeForm::kNfkc),
            "\u1E69 fi \u00C5 \uAC01");
  EXPECT_EQ(NormalizeUnicode(text, UnicodeForm::kNfkd),
            "s\u0323\u0307 fi A\u030A \u1100\u1161\u11A8");
}

}  // namespace
}  // namespace witan
