#include "coordinator/text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "base/utf8.h"

namespace witan {
namespace {

std::unique_ptr<Tokenizer> LoadTokenizer(const std::string& name) {
  auto tokenizer = Tokenizer::Load(WITAN_SOURCE_DIR "/tests/text/data/" + name);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TokenId ByteToken(const Tokenizer& tokenizer, uint8_t byte) {
  constexpr const char* kDigits = "0123456789ABCDEF";
  const std::string spelling = {
      '<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
  return tokenizer.IdOf(spelling).value();
}

// The tokens of single bytes in a byte-level vocabulary, by asking it.
std::vector<TokenId> ByteLevelTokens(const Tokenizer& tokenizer,
                                     std::string_view character) {
  return *tokenizer.Encode(character, {.add_special_tokens = false});
}

TEST(DetokenizerTest, HoldsHalfCharactersBack) {
  const auto tokenizer = LoadTokenizer("llama2_style");
  Detokenizer detokenizer(*tokenizer, {});
  // 😀 is F0 9F 98 80.
  EXPECT_EQ(detokenizer.Push(ByteToken(*tokenizer, 0xF0)), "");
  EXPECT_EQ(detokenizer.Push(ByteToken(*tokenizer, 0x9F)), "");
  EXPECT_EQ(detokenizer.Push(ByteToken(*tokenizer, 0x98)), "");
  EXPECT_EQ(detokenizer.Push(ByteToken(*tokenizer, 0x80)), "😀");
  EXPECT_EQ(detokenizer.Finish(), "");
}

TEST(DetokenizerTest, HoldsHalfCharactersOfByteLevelTokensBack) {
  const auto tokenizer = LoadTokenizer("llama3_style");
  const std::vector<TokenId> ids = ByteLevelTokens(*tokenizer, "\U000F1234");
  ASSERT_EQ(ids.size(), 4u);  // no merge knows this character
  Detokenizer detokenizer(*tokenizer, {});
  EXPECT_EQ(detokenizer.Push(ids[0]), "");
  EXPECT_EQ(detokenizer.Push(ids[1]), "");
  EXPECT_EQ(detokenizer.Push(ids[2]), "");
  EXPECT_EQ(detokenizer.Push(ids[3]), "\U000F1234");
  EXPECT_EQ(detokenizer.Push(ids[0]), "");
  EXPECT_EQ(detokenizer.Push(ids[1]), "");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD");
}

TEST(DetokenizerTest, ReplacesBytesThatCanNoLongerBecomeACharacter) {
  const auto tokenizer = LoadTokenizer("llama2_style");
  const TokenId letter = tokenizer->IdOf("a").value();
  Detokenizer detokenizer(*tokenizer, {});
  EXPECT_EQ(detokenizer.Push(ByteToken(*tokenizer, 0xE4)), "");
  EXPECT_EQ(detokenizer.Push(ByteToken(*tokenizer, 0xBD)), "");
  // One for each byte token, as the SentencePiece library does.
  EXPECT_EQ(detokenizer.Push(letter), "\uFFFD\uFFFDa");
  EXPECT_EQ(detokenizer.Push(ByteToken(*tokenizer, 0xFF)), "\uFFFD");
  EXPECT_EQ(detokenizer.Push(ByteToken(*tokenizer, 0xF0)), "");
  EXPECT_EQ(detokenizer.Push(ByteToken(*tokenizer, 0x9F)), "");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD\uFFFD");
}

TEST(DetokenizerTest, KeepsTheFirstSpaceOfTextThatContinues) {
  for (const char* name : {"llama2_style", "metaspace_style"}) {
    const auto tokenizer = LoadTokenizer(name);
    const auto ids =
        *tokenizer->Encode("the house", {.add_special_tokens = false});
    std::string fresh;
    std::string continued;
    Detokenizer a(*tokenizer, {});
    Detokenizer b(*tokenizer, {.continues_text = true});
    for (TokenId id : ids) {
      fresh += a.Push(id);
      continued += b.Push(id);
    }
    EXPECT_EQ(fresh + a.Finish(), "the house") << name;
    EXPECT_EQ(continued + b.Finish(), " the house") << name;
  }
}

TEST(DetokenizerTest, SkipsSpecialTokensOnlyWhenAsked) {
  const auto tokenizer = LoadTokenizer("llama3_style");
  const TokenId end = tokenizer->IdOf("<|end|>").value();
  const TokenId think = tokenizer->IdOf("<think>").value();
  Detokenizer skipping(*tokenizer, {});
  EXPECT_EQ(skipping.Push(end), "");
  EXPECT_EQ(skipping.Push(think), "<think>");
  Detokenizer keeping(*tokenizer, {.skip_special = false});
  EXPECT_EQ(keeping.Push(end), "<|end|>");
}

TEST(DetokenizerTest, IdsWithoutATokenAddNothing) {
  const auto tokenizer = LoadTokenizer("llama2_style");
  Detokenizer detokenizer(*tokenizer, {});
  for (TokenId id : {-1, 1 << 20, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(detokenizer.Push(id), "");
  }
  // Not even the end of a run of bytes.
  detokenizer.Push(ByteToken(*tokenizer, 0xC3));
  detokenizer.Push(1 << 20);
  EXPECT_EQ(detokenizer.Push(ByteToken(*tokenizer, 0xA9)), "é");
}

// Random ids make every kind of broken byte sequence.
TEST(DetokenizerTest, PiecesOfRandomTokensAreValidAndJoinToTheWhole) {
  for (const char* name : {"llama3_style", "qwen_style", "llama2_style",
                           "metaspace_style", "metaspace_first_style"}) {
    SCOPED_TRACE(name);
    const auto tokenizer = LoadTokenizer(name);
    std::mt19937 random(7);
    for (int round = 0; round < 300; ++round) {
      std::vector<TokenId> ids(random() % 40);
      for (TokenId& id : ids) {
        // Low ids are bytes in every one of these vocabularies.
        const int64_t size = random() % 2 == 0 ? 260 : tokenizer->vocab_size();
        id = static_cast<TokenId>(random() % size);
      }
      const bool skip_special = random() % 2 == 0;
      Detokenizer detokenizer(*tokenizer, {.skip_special = skip_special});
      std::string joined;
      for (TokenId id : ids) {
        const std::string piece = detokenizer.Push(id);
        EXPECT_TRUE(IsValidUtf8(piece));
        joined += piece;
      }
      const std::string rest = detokenizer.Finish();
      EXPECT_TRUE(IsValidUtf8(rest));
      EXPECT_EQ(joined + rest, *tokenizer->Decode(ids, skip_special));
    }
  }
}

}  // namespace
}  // namespace witan
