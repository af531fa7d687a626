// Equality with the reference implementation, see data/make_tokenizers.py.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "coordinator/text/detokenizer.h"
#include "coordinator/text/tokenizer.h"

namespace witan {
namespace {

using nlohmann::json;

const json& Goldens() {
  static const json goldens = [] {
    std::ifstream file(WITAN_SOURCE_DIR "/tests/text/data/goldens.json");
    return json::parse(file);
  }();
  return goldens;
}

std::unique_ptr<Tokenizer> LoadTokenizer(const std::string& path) {
  auto tokenizer = Tokenizer::Load(std::string(WITAN_SOURCE_DIR) + "/" + path);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::string Detokenize(const Tokenizer& tokenizer,
                       const std::vector<TokenId>& ids) {
  Detokenizer detokenizer(tokenizer, {.skip_special = false});
  std::string text;
  for (TokenId id : ids) {
    const std::string piece = detokenizer.Push(id);
    // A piece that json accepts is valid UTF-8.
    EXPECT_NO_THROW(json(piece).dump());
    text += piece;
  }
  return text + detokenizer.Finish();
}

TEST(TokenizerGoldenTest, EncodesAndDecodesAsTheReferenceDoes) {
  ASSERT_EQ(Goldens()["tables"].size(), 10u);
  for (const json& table : Goldens()["tables"]) {
    const std::string path = table["path"];
    SCOPED_TRACE(path);
    const auto tokenizer = LoadTokenizer(path);
    ASSERT_GE(table["cases"].size(), 300u);
    for (const json& entry : table["cases"]) {
      const std::string text = entry["text"];
      SCOPED_TRACE(json(text).dump());
      const auto ids = tokenizer->Encode(text, {.add_special_tokens = false});
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ(*ids, entry["ids"].get<std::vector<TokenId>>());
      const auto decoded = tokenizer->Decode(*ids, /*skip_special=*/false);
      ASSERT_TRUE(decoded.ok()) << decoded.status();
      EXPECT_EQ(*decoded, entry["decoded"].get<std::string>());
      EXPECT_EQ(Detokenize(*tokenizer, *ids), *decoded);
      if (!entry.contains("with_special")) continue;
      const auto with_special = tokenizer->Encode(text, {});
      EXPECT_EQ(*with_special,
                entry["with_special"].get<std::vector<TokenId>>());
      EXPECT_EQ(*tokenizer->Decode(*with_special, /*skip_special=*/true),
                entry["decoded_skip"].get<std::string>());
      EXPECT_EQ(*tokenizer->Encode(text, {.add_special_tokens = false,
                                          .parse_special = false}),
                entry["special_as_text"].get<std::vector<TokenId>>());
    }
  }
}

// Ids that no text encodes to, parts of characters among them.
TEST(TokenizerGoldenTest, DecodesIdsAtRandomAsTheReferenceDoes) {
  for (const json& table : Goldens()["tables"]) {
    const std::string path = table["path"];
    SCOPED_TRACE(path);
    const auto tokenizer = LoadTokenizer(path);
    ASSERT_GE(table["decodes"].size(), 200u);
    for (const json& entry : table["decodes"]) {
      SCOPED_TRACE(entry[0].dump());
      const auto ids = entry[0].get<std::vector<TokenId>>();
      const auto text = tokenizer->Decode(ids, /*skip_special=*/false);
      ASSERT_TRUE(text.ok()) << text.status();
      EXPECT_EQ(*text, entry[1].get<std::string>());
      const auto without_special =
          tokenizer->Decode(ids, /*skip_special=*/true);
      ASSERT_TRUE(without_special.ok()) << without_special.status();
      EXPECT_EQ(*without_special, entry[2].get<std::string>());
    }
  }
}

}  // namespace
}  // namespace witan
