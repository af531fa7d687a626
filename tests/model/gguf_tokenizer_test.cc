// Tokenizers of GGUF files against SentencePiece and tokenizers, which made the
// goldens (tests/goldens/make_gguf_goldens.py).

#include "model/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/status.h"
#include "coordinator/text/tokenizer.h"
#include "tests/testing/gguf_file.h"
#include "tests/testing/temp_directory.h"
#include "tests/testing/test_paths.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Golden(const std::string& name) {
  std::ifstream in(SourcePath("tests/goldens/gguf/" + name), std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

class GgufTokenizerTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& file) {
    ASSIGN_OR_RETURN(const auto texts, ReadTokenizerOfGguf(directory_.Write(
                                           "tokenizer.gguf", file)));
    if (!texts) return absl::NotFoundError("no GGUF file");
    return Tokenizer::FromFiles({.tokenizer = texts->tokenizer,
                                 .tokenizer_config = texts->tokenizer_config});
  }
  std::string ErrorOf(const std::string& file) {
    const auto tokenizer = Load(file);
    return tokenizer.ok() ? "accepted"
                          : std::string(MessageOf(tokenizer.status()));
  }

  TempDirectory directory_;
};

TEST_F(GgufTokenizerTest, EncodesAsSentencePieceDoes) {
  const auto tokenizer = Load(Golden("sentencepiece.gguf"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const auto& golden :
       nlohmann::json::parse(Golden("sentencepiece.json"))) {
    const std::string text = golden["text"];
    const auto expected = golden["ids"].get<std::vector<TokenId>>();
    EXPECT_EQ((*tokenizer)->Encode(text, {.add_special_tokens = false}).value(),
              expected)
        << text;
    EXPECT_EQ((*tokenizer)->Decode(expected, false).value(), golden["decoded"]);
  }
  // A begin of the text unless the file says no.
  EXPECT_EQ((*tokenizer)->Encode("a", {}).value().front(), 1);
}

TEST_F(GgufTokenizerTest, SpellingsOfControlTokensAreTextUnlessAskedFor) {
  const auto tokenizer = Load(Golden("sentencepiece.gguf"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto ids = [&](bool parse_special) {
    return (*tokenizer)
        ->Encode("</s>",
                 {.add_special_tokens = false, .parse_special = parse_special})
        .value();
  };
  EXPECT_THAT(ids(true), ElementsAre(2));
  EXPECT_THAT(ids(false), testing::Not(testing::Contains(2)));
}

// The golden's name of the pre-tokenizer, replaced.
std::string ByteLevelFile(const std::string& pre) {
  const std::string placeholder = GgufString("PRETOKENIZER");
  std::string file = Golden("byte_level.gguf");
  const size_t at = file.find(placeholder);
  EXPECT_NE(at, std::string::npos);
  return file.replace(at, placeholder.size(), GgufString(pre));
}

TEST_F(GgufTokenizerTest, CutsTextAsThePublishedTokenizersDo) {
  const auto goldens = nlohmann::json::parse(Golden("byte_level.json"));
  for (const auto& [pre, cases] : goldens.items()) {
    const auto tokenizer = Load(ByteLevelFile(pre));
    ASSERT_TRUE(tokenizer.ok()) << pre << tokenizer.status();
    for (const auto& golden : cases) {
      const std::string text = golden["text"];
      EXPECT_EQ(
          (*tokenizer)->Encode(text, {.add_special_tokens = false}).value(),
          golden["ids"].get<std::vector<TokenId>>())
          << pre << ": " << text;
    }
  }
}

TEST_F(GgufTokenizerTest, UnknownKindsAreRefusedByName) {
  EXPECT_THAT(ErrorOf(ByteLevelFile("poro-chat")),
              AllOf(HasSubstr("tokenizer.ggml.pre is \"poro-chat\""),
                    HasSubstr("llama-bpe")));
  GgufFile file;
  file.Texts("tokenizer.ggml.tokens", {"a"})
      .Text("tokenizer.ggml.model", "bert");
  EXPECT_THAT(ErrorOf(file.Bytes()),
              AllOf(HasSubstr("tokenizer.ggml.model is \"bert\""),
                    HasSubstr("\"gpt2\"")));
}

GgufFile Llama(const std::vector<std::string>& tokens) {
  GgufFile file;
  file.Text("tokenizer.ggml.model", "llama")
      .Texts("tokenizer.ggml.tokens", tokens);
  return file;
}

TEST_F(GgufTokenizerTest, UglyVocabulariesAreRefusedByKey) {
  EXPECT_THAT(ErrorOf(GgufFile().Bytes()),
              HasSubstr("tokenizer.ggml.tokens is absent"));
  EXPECT_THAT(ErrorOf(Llama({}).Bytes()),
              HasSubstr("tokenizer.ggml.tokens is a list of 0"));
  EXPECT_THAT(
      ErrorOf(
          Llama({"a", "\xff"}).Floats("tokenizer.ggml.scores", {0, 0}).Bytes()),
      HasSubstr("tokenizer.ggml.tokens[1]"));
  EXPECT_THAT(ErrorOf(Llama({std::string(2000, 'a')}).Bytes()),
              HasSubstr("at most 1024 bytes"));
  EXPECT_THAT(ErrorOf(Llama({"a", "b"}).Bytes()),
              HasSubstr("tokenizer.ggml.scores is absent"));
  EXPECT_THAT(
      ErrorOf(Llama({"a", "b"}).Floats("tokenizer.ggml.scores", {0}).Bytes()),
      HasSubstr("each of 2 tokens"));
  EXPECT_THAT(
      ErrorOf(Llama({"a"}).Floats("tokenizer.ggml.scores", {NAN}).Bytes()),
      HasSubstr("tokenizer.ggml.scores[0] is nan"));
  EXPECT_THAT(
      ErrorOf(
          Llama({"a"}).Integers("tokenizer.ggml.token_type", {1, 1}).Bytes()),
      HasSubstr("tokenizer.ggml.token_type"));
  EXPECT_THAT(ErrorOf(Llama({"a", "b", "a"})
                          .Floats("tokenizer.ggml.scores", {0, 0, 0})
                          .Bytes()),
              HasSubstr("tokenizer.ggml.tokens[2] is \"a\""));
  EXPECT_THAT(ErrorOf(Llama({"a"})
                          .Floats("tokenizer.ggml.scores", {0})
                          .Integer("tokenizer.ggml.eos_token_id", 1)
                          .Bytes()),
              HasSubstr("tokenizer.ggml.eos_token_id is 1"));
  GgufFile byte_level;
  byte_level.Text("tokenizer.ggml.model", "gpt2")
      .Texts("tokenizer.ggml.tokens", {"a", "b"});
  EXPECT_THAT(ErrorOf(byte_level.Bytes()),
              HasSubstr("tokenizer.ggml.merges is absent"));
  EXPECT_THAT(
      ErrorOf(byte_level.Texts("tokenizer.ggml.merges", {"a c"}).Bytes()),
      HasSubstr("merges"));
}

TEST_F(GgufTokenizerTest, TheChatTemplateComesAlong) {
  const auto texts =
      ReadTokenizerOfGguf(SourcePath("tests/goldens/gguf/sentencepiece.gguf"));
  ASSERT_TRUE(texts.ok()) << texts.status();
  EXPECT_EQ((*texts)->chat_template,
            "{{ bos_token }}{{ messages[0].content }}");
  EXPECT_FALSE(ReadTokenizerOfGguf(directory_.path()).value().has_value());
}

}  // namespace
}  // namespace witan
