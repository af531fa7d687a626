#include "coordinator/text/detokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <regex>
#include <string>
#include <utility>
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

// --- What tokens decode to, worked out from the whole at once ----------------

bool IsCharacter(std::string_view bytes) {
  if (bytes.empty() || bytes.size() > 4) return false;
  uint32_t code = static_cast<uint8_t>(bytes[0]);
  if (bytes.size() == 1) return code < 0x80;
  constexpr uint32_t kLeadOf[] = {0, 0, 0xC0, 0xE0, 0xF0};
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const size_t size = bytes.size();
  const uint32_t payload_mask = 0x7Fu >> size;
  if ((code & ~payload_mask) != kLeadOf[size]) return false;
  code &= payload_mask;
  for (char byte : bytes.substr(1)) {
    if ((byte & 0xC0) != 0x80) return false;
    code = code << 6 | (byte & 0x3F);
  }
  return code >= kLeast[size] && code <= 0x10FFFF &&
         (code < 0xD800 || code > 0xDFFF);
}

// Whether a character begins so; these bytes, appended, reach every one.
bool BeginsCharacter(std::string bytes) {
  if (IsCharacter(bytes)) return true;
  if (bytes.size() == 4) return false;
  for (const char* next : {"\x80", "\x90", "\xA0"}) {
    if (BeginsCharacter(bytes + next)) return true;
  }
  return false;
}

enum class Replaced { kMaximalParts, kBytes };

std::string Repair(std::string_view bytes, Replaced replaced) {
  std::string text;
  while (!bytes.empty()) {
    size_t size = std::min<size_t>(bytes.size(), 4);
    while (size > 1 && !BeginsCharacter(std::string(bytes.substr(0, size)))) {
      --size;
    }
    if (IsCharacter(bytes.substr(0, size))) {
      text += bytes.substr(0, size);
    } else {
      text += "\uFFFD";
      if (replaced == Replaced::kBytes) size = 1;
    }
    bytes.remove_prefix(size);
  }
  return text;
}

// The vocabulary of a tokenizer.json, by id.
std::map<TokenId, std::string> ReadSpellings(const std::string& name) {
  std::ifstream file(WITAN_SOURCE_DIR "/tests/text/data/" + name +
                     "/tokenizer.json");
  const nlohmann::json spec = nlohmann::json::parse(file);
  std::map<TokenId, std::string> spellings;
  for (const auto& [spelling, id] : spec["model"]["vocab"].items()) {
    spellings[id] = spelling;
  }
  return spellings;
}

// U+2581 is a space, the first of the text is none; <0x0A> is a byte.
std::string DecodeByteFallback(const std::vector<std::string>& spellings) {
  std::string text;
  std::string run;
  const std::regex byte_token("<0x([0-9A-F]{2})>");
  for (const std::string& spelling : spellings) {
    std::smatch match;
    if (std::regex_match(spelling, match, byte_token)) {
      run += static_cast<char>(std::stoi(match[1], nullptr, 16));
      continue;
    }
    text += Repair(std::exchange(run, ""), Replaced::kBytes);
    text += std::regex_replace(spelling, std::regex("\u2581"), " ");
  }
  text += Repair(run, Replaced::kBytes);
  return text.starts_with(' ') ? text.substr(1) : text;
}

// Each character is a byte: printable Latin-1 itself, the others in order from
// U+0100 on.
std::string DecodeByteLevel(const std::vector<std::string>& spellings) {
  std::map<std::string, char> byte_of;
  int next = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool is_printable = (byte > 0x20 && byte < 0x7F) ||
                              (byte > 0xA0 && byte < 0x100 && byte != 0xAD);
    const int code = is_printable ? byte : 0x100 + next++;
    std::string character;
    if (code >= 0x80) character += static_cast<char>(0xC0 | code >> 6);
    character += static_cast<char>(code < 0x80 ? code : 0x80 | (code & 0x3F));
    byte_of[character] = static_cast<char>(byte);
  }
  std::string bytes;
  for (const std::string& spelling : spellings) {
    for (size_t i = 0; i < spelling.size();) {
      const size_t size = (spelling[i] & 0x80) == 0 ? 1 : 2;
      bytes += byte_of.at(spelling.substr(i, size));
      i += size;
    }
  }
  return Repair(bytes, Replaced::kMaximalParts);
}

// Random ids make every kind of broken byte sequence.
TEST(DetokenizerTest, PiecesOfRandomTokensAreValidAndJoinToTheWhole) {
  using Decode = std::string (*)(const std::vector<std::string>&);
  for (const auto& [name, decode] : std::map<std::string, Decode>{
           {"llama3_style", DecodeByteLevel},
           {"llama2_style", DecodeByteFallback},
           {"metaspace_first_style", DecodeByteFallback}}) {
    SCOPED_TRACE(name);
    const auto tokenizer = LoadTokenizer(name);
    const auto spellings = ReadSpellings(name);
    std::mt19937 random(7);
    for (int round = 0; round < 1000; ++round) {
      std::vector<TokenId> ids(random() % 40);
      std::vector<std::string> spelled;
      Detokenizer detokenizer(*tokenizer, {.skip_special = false});
      std::string joined;
      for (TokenId& id : ids) {
        // Low ids are bytes in every one of these vocabularies.
        id = static_cast<TokenId>(random() %
                                  (random() % 4 != 0 ? 260 : spellings.size()));
        spelled.push_back(spellings.at(id));
        const std::string piece = detokenizer.Push(id);
        EXPECT_TRUE(IsValidUtf8(piece));
        joined += piece;
      }
      joined += detokenizer.Finish();
      ASSERT_EQ(joined, decode(spelled));
      EXPECT_EQ(*tokenizer->Decode(ids, /*skip_special=*/false), joined);
    }
  }
}

}  // namespace
}  // namespace witan
