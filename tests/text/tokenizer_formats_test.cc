// tokenizer.model, tekken.json and Unigram vocabularies: equality with the
// reference libraries (data/make_other_tokenizers.py), errors, and work.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/base64.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/detokenizer.h"
#include "coordinator/text/precompiled_charsmap.h"
#include "coordinator/text/sentencepiece_model.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/unigram.h"

namespace witan {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::string ReadSource(const std::string& path) {
  std::ifstream file(WITAN_SOURCE_DIR "/" + path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

const json& Goldens() {
  static const json goldens =
      json::parse(ReadSource("tests/text/data/other_goldens.json"));
  return goldens;
}

std::string Detokenize(const Tokenizer& tokenizer,
                       const std::vector<TokenId>& ids) {
  Detokenizer detokenizer(tokenizer, {.skip_special = true});
  std::string text;
  for (TokenId id : ids) text += detokenizer.Push(id);
  return text + detokenizer.Finish();
}

TEST(TokenizerFormatsTest, EncodesAndDecodesAsTheReferencesDo) {
  ASSERT_EQ(Goldens()["tables"].size(), 6u);
  for (const json& table : Goldens()["tables"]) {
    const std::string path = table["path"];
    SCOPED_TRACE(path);
    const auto tokenizer =
        Tokenizer::Load(std::string(WITAN_SOURCE_DIR) + "/" + path);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    ASSERT_GE(table["cases"].size(), 200u);
    for (const json& entry : table["cases"]) {
      const std::string text = entry[0];
      SCOPED_TRACE(entry[0].dump());
      const auto ids = (*tokenizer)
                           ->Encode(text, {.add_special_tokens = false,
                                           .parse_special = false});
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ(*ids, entry[1].get<std::vector<TokenId>>());
      const auto decoded = (*tokenizer)->Decode(*ids, /*skip_special=*/true);
      ASSERT_TRUE(decoded.ok()) << decoded.status();
      EXPECT_EQ(*decoded, entry[2].get<std::string>());
      EXPECT_EQ(Detokenize(**tokenizer, *ids), *decoded);
    }
    for (const json& entry : table["decodes"]) {
      SCOPED_TRACE(entry[0].dump());
      EXPECT_EQ(*(*tokenizer)
                     ->Decode(entry[0].get<std::vector<TokenId>>(),
                              /*skip_special=*/true),
                entry[1].get<std::string>());
    }
  }
}

// --- Messages of the protobuf wire format, written by hand. ---

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out += static_cast<char>(value);
}

std::string NumberField(int field, uint64_t value) {
  return Varint(static_cast<uint64_t>(field) << 3) + Varint(value);
}

std::string BytesField(int field, const std::string& bytes) {
  return Varint(static_cast<uint64_t>(field) << 3 | 2) + Varint(bytes.size()) +
         bytes;
}

std::string Piece(const std::string& text, float score, int type = 1) {
  std::string message = BytesField(1, text) + Varint(2 << 3 | 5);
  message.append(reinterpret_cast<const char*>(&score), 4);
  return BytesField(1, message + NumberField(3, static_cast<uint64_t>(type)));
}

constexpr uint64_t kUnigramType = 1;
constexpr uint64_t kBpeType = 2;

std::string Trainer(uint64_t type, const std::string& more = "") {
  return BytesField(2, NumberField(3, type) + more);
}

// Neither a space before the text nor any taken out of it.
std::string PlainNormalizer() {
  return BytesField(3, NumberField(3, 0) + NumberField(4, 0));
}

const std::string kReserved =
    Piece("<unk>", 0, 2) + Piece("<s>", 0, 3) + Piece("</s>", 0, 3);

absl::StatusOr<std::unique_ptr<Tokenizer>> FromModel(
    const std::string& model, const std::string& config = "") {
  return Tokenizer::FromFiles({.format = TokenizerFiles::Format::kSentencePiece,
                               .tokenizer = model,
                               .tokenizer_config = config});
}

std::vector<TokenId> IdsOf(const std::string& model, const std::string& text,
                           const std::string& config = "") {
  const auto tokenizer = FromModel(model, config);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *(*tokenizer)->Encode(text, {});
}

TEST(SentencePieceTest, MergesTheHighestScoreFirstAndEqualOnesFromTheLeft) {
  const std::string model = Trainer(kBpeType) + PlainNormalizer() + kReserved +
                            Piece("a", -9) + Piece("b", -9) + Piece("ab", -1) +
                            Piece("ba", -1) + Piece("xa", 0);
  EXPECT_EQ(IdsOf(model, "aba"), (std::vector<TokenId>{1, 5, 3}));
  // x is no piece, yet takes part in a merge; unknown neighbours are one.
  EXPECT_EQ(IdsOf(model, "xaxxb"), (std::vector<TokenId>{1, 7, 0, 4}));
}

TEST(SentencePieceTest, PutsTheSpaceWhereLegacySays) {
  const std::string model = Trainer(kBpeType) +
                            BytesField(3, NumberField(4, 0)) + kReserved +
                            Piece("a", -1) + Piece("\xE2\x96\x81", -2);
  // Ids as LlamaTokenizer of transformers 4.57 gives them.
  EXPECT_EQ(IdsOf(model, "a</s>a"), (std::vector<TokenId>{1, 4, 3, 2, 4, 3}));
  const std::string config = R"({"legacy": false, "add_eos_token": true})";
  EXPECT_EQ(IdsOf(model, "a</s>a", config),
            (std::vector<TokenId>{1, 4, 3, 2, 3, 2}));
  EXPECT_EQ(IdsOf(model, "</s>a", config), (std::vector<TokenId>{1, 2, 3, 2}));
  EXPECT_EQ(IdsOf(model, "a", R"({"legacy": false, "add_bos_token": false,
                                  "add_prefix_space": false})"),
            (std::vector<TokenId>{3}));
}

TEST(SentencePieceTest, TakesTokensOfTheConfig) {
  const std::string model =
      Trainer(kBpeType) + PlainNormalizer() + kReserved + Piece("a", -1);
  const auto tokenizer = FromModel(model, R"({"added_tokens_decoder": {
          "4": {"content": "<new>", "special": true, "rstrip": true},
          "6": {"content": "later"}}, "eos_token": "<new>"})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode("a<new> \nalater", {}),
            (std::vector<TokenId>{1, 3, 4, 3, 6}));
  EXPECT_EQ((*tokenizer)->eos_id(), 4);
  EXPECT_EQ((*tokenizer)->vocab_size(), 7);
  EXPECT_EQ(*(*tokenizer)->Decode(std::vector<TokenId>{3, 4, 5, 6}, false),
            "a<new>later");
}

TEST(SentencePieceTest, NamesWhatIsDamaged) {
  const auto error = [](const std::string& model, const char* config = "") {
    const auto tokenizer = FromModel(model, config);
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(MessageOf(tokenizer.status()));
  };
  const std::string good = Trainer(kBpeType) + kReserved + Piece("a", -1);
  ASSERT_TRUE(FromModel(good).ok());
  EXPECT_EQ(error(""), "tokenizer.model: pieces: none has type UNKNOWN");
  EXPECT_EQ(error(good + "\x0A\x7F"),
            "tokenizer.model: field 1 claims 127 bytes; 0 are left");
  EXPECT_EQ(error(good + "\x0F"),
            "tokenizer.model: field 1 has the unknown wire type 7");
  EXPECT_EQ(error(good + std::string(11, '\xFF')),
            "tokenizer.model: holds a number of more than 10 bytes");
  EXPECT_EQ(error(good + NumberField(1, 5)),
            "tokenizer.model: pieces: got wire type 0; expected 2");
  EXPECT_EQ(error(good + Piece("a", -1)),
            "tokenizer.model: pieces[4]: 'a' is also pieces[3]");
  EXPECT_EQ(error(good + Piece("\xFF", 0)),
            "tokenizer.model: pieces[4]: piece: not UTF-8");
  EXPECT_EQ(error(good + Piece("", 0)),
            "tokenizer.model: pieces[4]: piece: 0 bytes; allowed: 1 to 1024");
  EXPECT_EQ(error(good + Piece("b", NAN)),
            "tokenizer.model: pieces[4]: score: got nan; expected a finite "
            "number");
  EXPECT_EQ(error(good + Piece("b", 0, 7)),
            "tokenizer.model: pieces[4]: type: got 7; expected 1 to 6");
  EXPECT_EQ(error(good + Piece("b", 0, 5)),
            "tokenizer.model: pieces[4]: type UNUSED is not supported in a BPE "
            "model");
  EXPECT_EQ(error(good + Piece("<0x41>", 0, 6)),
            "tokenizer.model: pieces: 1 of type BYTE, but "
            "trainer_spec.byte_fallback is false");
  EXPECT_EQ(error(Trainer(3) + good),
            "tokenizer.model: trainer_spec: model_type: got 3; expected 1 "
            "(UNIGRAM) or 2 (BPE)");
  EXPECT_THAT(error(good + BytesField(3, BytesField(2, "\x08"))),
              HasSubstr("normalizer_spec: precompiled_charsmap: 1 bytes"));
  EXPECT_THAT(error(good + BytesField(5, BytesField(2, "x"))),
              HasSubstr("denormalizer_spec: precompiled_charsmap: got 1"));
  EXPECT_THAT(
      error(good, R"({"added_tokens_decoder": {"3": {"content": "b"}}})"),
      HasSubstr("added_tokens_decoder.3: got 'b'; tokenizer.model has 'a'"));
  EXPECT_THAT(error(good, R"({"added_tokens_decoder": {"x": {}}})"),
              HasSubstr("added_tokens_decoder.x: expected a token id"));
  EXPECT_THAT(error(good, R"({"bos_token": "b"})"),
              HasSubstr("bos_token: 'b' is no token of tokenizer.model"));
}

// Every prefix of a model and every model with one byte changed loads or is
// refused.
TEST(SentencePieceTest, SurvivesAnyDamage) {
  const std::string model =
      ReadSource("tests/text/data/sentencepiece_unigram/tokenizer.model");
  for (size_t size = 0; size < model.size(); size += 7) {
    (void)FromModel(model.substr(0, size));
  }
  for (size_t i = 0; i < model.size(); i += 5) {
    std::string changed = model;
    changed[i] = static_cast<char>(changed[i] ^ (1 << (i % 8)));
    const auto tokenizer = FromModel(changed);
    if (!tokenizer.ok()) continue;
    EXPECT_TRUE((*tokenizer)->Encode("ﬁ the Ａ½ \t a\u0301<ud>", {}).ok());
  }
}

// The work of a text may grow with its length, times the logarithm of it for
// BPE, and with the longest piece for Unigram, never with its square.
TEST(TokenizerWorkTest, BpeLooksUpALinearNumberOfPairs) {
  std::vector<std::string> spellings;
  for (size_t size = 1; size <= 64; ++size) {
    spellings.push_back(std::string(size, 'a'));
  }
  std::vector<Bpe::RankedToken> tokens;
  for (size_t i = 0; i < spellings.size(); ++i) {
    // Longer ones first: the order in which merges overlap most.
    tokens.push_back({spellings[i], static_cast<TokenId>(i),
                      static_cast<uint32_t>(spellings.size() - i)});
  }
  const auto bpe = Bpe::FromRankedTokens(tokens, {.is_byte_level = true});
  ASSERT_TRUE(bpe.ok()) << bpe.status();
  for (const size_t size :
       {size_t{1} << 12, size_t{1} << 16, size_t{1} << 20}) {
    Bpe::Scratch scratch;
    std::vector<TokenId> ids;
    bpe->Encode(std::string(size, 'a'), &scratch, &ids);
    EXPECT_EQ(ids.size(), size / 64);
    EXPECT_LE(scratch.num_lookups(), static_cast<int64_t>(3 * size));
  }
}

TEST(TokenizerWorkTest, UnigramLooksUpNoMoreThanThePiecesAreLong) {
  constexpr size_t kLongest = 100;
  std::string message = Trainer(kUnigramType) + PlainNormalizer() + kReserved;
  for (size_t size = 1; size <= kLongest; ++size) {
    message += Piece(std::string(size, 'a'), -static_cast<float>(size));
  }
  const auto model = SentencePieceModel::Parse(message);
  ASSERT_TRUE(model.ok()) << model.status();
  const Unigram unigram = Unigram::FromSentencePiece(*model);
  for (const size_t size :
       {size_t{1} << 10, size_t{1} << 14, size_t{1} << 18}) {
    Unigram::Scratch scratch;
    std::vector<TokenId> ids;
    unigram.Encode(std::string(size, 'a'), &scratch, &ids);
    EXPECT_FALSE(ids.empty());
    EXPECT_LE(scratch.num_lookups(),
              static_cast<int64_t>((kLongest + 1) * size));
  }
}

// --- tekken.json ---

json SmallTekken() {
  return json::parse(ReadSource("tests/text/data/tekken_style/tekken.json"));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> FromTekken(const json& spec) {
  const std::string text = spec.dump();
  return Tokenizer::FromFiles(
      {.format = TokenizerFiles::Format::kTekken, .tokenizer = text});
}

TEST(TekkenTest, PutsSpecialTokensFirstAndParsesThem) {
  const auto tokenizer = FromTekken(SmallTekken());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode("A[INST]", {}),
            (std::vector<TokenId>{1, 30 + 'A', 3}));
  EXPECT_EQ((*tokenizer)->eos_id(), 2);
  EXPECT_EQ((*tokenizer)->IdOf("<SPECIAL_29>"), 29);
  json spec = SmallTekken();
  spec["special_tokens"] =
      json::array({{{"rank", 0}, {"token_str", "<odd>"}, {"is_control", true}},
                   {{"rank", 1}, {"token_str", "<s>"}, {"is_control", true}}});
  const auto listed = FromTekken(spec);
  ASSERT_TRUE(listed.ok()) << listed.status();
  EXPECT_EQ(*(*listed)->Encode("<odd>", {}), (std::vector<TokenId>{1, 0}));
  EXPECT_EQ((*listed)->eos_id(), std::nullopt);
}

TEST(TekkenTest, NamesWhatIsDamaged) {
  const auto error_after = [](const std::function<void(json&)>& change) {
    json spec = SmallTekken();
    change(spec);
    const auto tokenizer = FromTekken(spec);
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(MessageOf(tokenizer.status()));
  };
  EXPECT_THAT(error_after([](json& s) { s.erase("config"); }),
              HasSubstr("tekken.json: config.default_vocab_size: missing"));
  EXPECT_THAT(error_after([](json& s) { s["config"]["pattern"] = "("; }),
              HasSubstr("tekken.json: config.pattern: pattern '('"));
  EXPECT_THAT(
      error_after([](json& s) { s["config"]["default_vocab_size"] = 100000; }),
      HasSubstr("tekken.json: vocab: "));
  EXPECT_THAT(error_after([](json& s) { s["vocab"][5]["rank"] = 7; }),
              HasSubstr("tekken.json: vocab[5]: got"));
  EXPECT_THAT(error_after([](json& s) { s["vocab"][5]["token_bytes"] = "?"; }),
              HasSubstr("vocab[5].token_bytes: got \"?\""));
  EXPECT_THAT(
      error_after([](json& s) { s["vocab"][5]["token_bytes"] = "QQ=="; }),
      HasSubstr("vocab[5].token_bytes: got \"QQ==\"; expected byte 5"));
  EXPECT_THAT(error_after([](json& s) {
                s["vocab"][300]["token_bytes"] = s["vocab"][301]["token_bytes"];
              }),
              HasSubstr("expected bytes of its own"));
  EXPECT_THAT(error_after([](json& s) {
                s["special_tokens"] =
                    json::array({{{"rank", 0}, {"token_str", "a"}},
                                 {{"rank", 0}, {"token_str", "b"}}});
              }),
              HasSubstr("token 'a' has this one"));
}

TEST(Base64Test, ReadsWhatTheStandardSpells) {
  // RFC 4648, section 10.
  EXPECT_EQ(DecodeBase64(""), "");
  EXPECT_EQ(DecodeBase64("Zg=="), "f");
  EXPECT_EQ(DecodeBase64("Zm8="), "fo");
  EXPECT_EQ(DecodeBase64("Zm9v"), "foo");
  EXPECT_EQ(DecodeBase64("Zm9vYmFy"), "foobar");
  EXPECT_EQ(DecodeBase64("+/8="), "\xFB\xFF");
  for (const char* text : {"Z", "Zg", "Zg=", "Zh==", "====", "Z===", "Zg==Zg==",
                           "Zm9\n", "Zm 9"}) {
    EXPECT_EQ(DecodeBase64(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace witan
