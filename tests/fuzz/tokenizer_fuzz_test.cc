// Damaged tokenizer files and hostile text: whatever comes, an error or a
// result that keeps the promises of the headers, never a crash. Seeded and
// bounded; a failure prints the seed that repeats it.

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/detokenizer.h"
#include "coordinator/text/tokenizer.h"

namespace witan {
namespace {

constexpr int kNumDamagedFiles = 3000;
constexpr int kNumTexts = 2000;

std::string ReadData(const std::string& name) {
  std::ifstream file(
      WITAN_SOURCE_DIR "/tests/text/data/" + name + "/tokenizer.json",
      std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A file small enough that a random change often hits something that matters.
constexpr std::string_view kSmallFile = R"({
 "added_tokens":[{"id":7,"content":"<e>","special":true,"lstrip":true,
   "rstrip":false,"single_word":false,"normalized":false},
  {"id":8,"content":"w x","special":false,"normalized":true}],
 "normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},
   {"type":"Prepend","prepend":"_"},
   {"type":"Replace","pattern":{"String":" "},"content":"_"}]},
 "pre_tokenizer":{"type":"Sequence","pretokenizers":[
   {"type":"Split","pattern":{"Regex":"\\s+|[^\\s\\p{L}]+"},
    "behavior":"Isolated","invert":false},
   {"type":"Metaspace","replacement":"_","prepend_scheme":"first",
    "split":true}]},
 "post_processor":{"type":"TemplateProcessing","single":[
   {"SpecialToken":{"id":"<e>","type_id":0}},{"Sequence":{"id":"A"}}],
   "special_tokens":{"<e>":{"ids":[7]}}},
 "decoder":{"type":"Sequence","decoders":[
   {"type":"Replace","pattern":{"String":"_"},"content":" "},
   {"type":"ByteFallback"},{"type":"Fuse"},
   {"type":"Strip","content":" ","start":1,"stop":0}]},
 "model":{"type":"BPE","unk_token":"?","fuse_unk":true,"byte_fallback":true,
  "vocab":{"?":0,"a":1,"b":2,"ab":3,"_":4,"_a":5,"<0x41>":6},
  "merges":["a b",["_","a"]]}})";

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  size_t Below(size_t bound) { return random_() % bound; }

  std::string Damage(std::string text) {
    const size_t num_changes = 1 + Below(4);
    for (size_t i = 0; i < num_changes && !text.empty(); ++i) {
      const size_t at = Below(text.size());
      switch (Below(7)) {
        case 0:
          text[at] = static_cast<char>(Below(256));
          break;
        case 1:
          text.erase(at, 1 + Below(20));
          break;
        case 2:
          text.insert(at, Token());
          break;
        case 3:
          text.replace(at, 1, Token());
          break;
        case 4:
          text.insert(at, text.substr(Below(text.size()), Below(40)));
          break;
        case 5:
          text.resize(at);
          break;
        default:
          text[at] = "0123456789{}[]\",:"[Below(17)];
      }
    }
    return text;
  }

  std::string HostileText() {
    std::string text;
    for (size_t i = Below(20); i > 0; --i) text += Token();
    return text;
  }

 private:
  std::string_view Token() {
    static constexpr std::string_view kTokens[] = {"null",
                                                   "-1",
                                                   "99999999999999999999",
                                                   "1e999",
                                                   "\"\"",
                                                   "[]",
                                                   "{}",
                                                   "true",
                                                   "\\u0000",
                                                   "\\ud800",
                                                   "[[[[",
                                                   "\"type\"",
                                                   "\"Sequence\"",
                                                   "(a+)+$",
                                                   "\\\\p{L}",
                                                   "a",
                                                   "ab",
                                                   " ",
                                                   "\n",
                                                   "_",
                                                   "<e>",
                                                   "<e",
                                                   "w x",
                                                   "\xC3\xA9",
                                                   "e\xCC\x81",
                                                   "\xF0\x9F\x98\x80",
                                                   "\xFF",
                                                   "\xE4\xBD",
                                                   "\xEF\xBF\xBD",
                                                   "<0x41>",
                                                   "4194304",
                                                   "2147483647",
                                                   "\"ByteLevel\""};
    return kTokens[Below(std::size(kTokens))];
  }

  std::mt19937 random_;
};

void ExpectPromises(const Tokenizer& tokenizer, const std::string& text,
                    Mutator* mutator) {
  const EncodeOptions options = {.add_special_tokens = mutator->Below(2) == 0,
                                 .parse_special = mutator->Below(2) == 0};
  const auto ids = tokenizer.Encode(text, options);
  if (!IsValidUtf8(text)) {
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    return;
  }
  if (!ids.ok()) {
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kResourceExhausted);
    return;
  }
  std::string joined;
  Detokenizer detokenizer(tokenizer, {.skip_special = false});
  for (TokenId id : *ids) {
    ASSERT_GE(id, 0);
    ASSERT_LT(id, tokenizer.vocab_size());
    const std::string piece = detokenizer.Push(id);
    EXPECT_TRUE(IsValidUtf8(piece));
    joined += piece;
  }
  joined += detokenizer.Finish();
  EXPECT_EQ(joined, *tokenizer.Decode(*ids, /*skip_special=*/false));
}

TEST(TokenizerFuzzTest, DamagedFilesAreErrorsOrWork) {
  const auto undamaged = Tokenizer::FromJson(kSmallFile, "", "");
  ASSERT_TRUE(undamaged.ok()) << undamaged.status();
  int num_loaded = 0;
  for (uint32_t seed = 0; seed < kNumDamagedFiles; ++seed) {
    SCOPED_TRACE(seed);
    Mutator mutator(seed);
    const auto tokenizer =
        Tokenizer::FromJson(mutator.Damage(std::string(kSmallFile)), "", "");
    if (!tokenizer.ok()) {
      EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_TRUE(IsValidUtf8(MessageOf(tokenizer.status())));
      continue;
    }
    ++num_loaded;
    for (int i = 0; i < 5; ++i) {
      ExpectPromises(**tokenizer, mutator.HostileText(), &mutator);
    }
  }
  // Both outcomes are common, or the damage tries nothing.
  EXPECT_GT(num_loaded, kNumDamagedFiles / 50);
  EXPECT_LT(num_loaded, kNumDamagedFiles * 9 / 10);
}

TEST(TokenizerFuzzTest, HostileTextKeepsThePromises) {
  for (const char* name : {"llama3_style", "qwen_style", "gpt2_style",
                           "llama2_style", "unknown_style"}) {
    const auto tokenizer = Tokenizer::FromJson(ReadData(name), "", "");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (uint32_t seed = 0; seed < kNumTexts; ++seed) {
      SCOPED_TRACE(fmt::format("{} {}", name, seed));
      Mutator mutator(seed);
      ExpectPromises(**tokenizer, mutator.HostileText(), &mutator);
    }
  }
}

}  // namespace
}  // namespace witan
