// tokenizer.json, tokenizer.model or tekken.json with its companions, and a
// text. A tokenizer that loads encodes every text into tokens of its
// vocabulary, and a stream of them says what decoding them at once says.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/detokenizer.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/tokenizer_config.h"
#include "tests/fuzz/sections.h"
#include "tests/fuzz/target.h"

namespace witan::fuzz {
namespace {

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

constexpr std::string_view kText =
    "ab a<e>b w x\n 12 e\xCC\x81 \xF0\x9F\x98\x80";

std::string TextOf(const Tokenizer& tokenizer, const std::vector<TokenId>& ids,
                   bool skip_special, Promises* promises) {
  std::string joined;
  Detokenizer detokenizer(tokenizer, {.skip_special = skip_special});
  for (const TokenId id : ids) {
    const std::string piece = detokenizer.Push(id);
    promises->Expect(IsValidUtf8(piece), "a piece of a stream is UTF-8");
    joined += piece;
  }
  joined += detokenizer.Finish();
  const auto decoded = tokenizer.Decode(ids, skip_special);
  promises->Expect(decoded.ok() && *decoded == joined,
                   "a stream says what decoding at once says");
  return joined;
}

void CheckText(const Tokenizer& tokenizer, const std::string& text,
               const EncodeOptions& options, Promises* promises) {
  const auto ids = tokenizer.Encode(text, options);
  if (!ids.ok()) {
    const Outcome refused = promises->Refused(
        ids.status(), {IsValidUtf8(text) ? absl::StatusCode::kResourceExhausted
                                         : absl::StatusCode::kInvalidArgument});
    promises->Expect(refused.broken.empty(), refused.broken);
    return;
  }
  promises->Expect(IsValidUtf8(text), "only UTF-8 is encoded");
  for (const TokenId id : *ids) {
    promises->Expect(id >= 0 && id < tokenizer.vocab_size(),
                     "tokens are of the vocabulary");
  }
  for (const bool skip_special : {false, true}) {
    TextOf(tokenizer, *ids, skip_special, promises);
  }
}

// Of a tokenizer of the tests: its rules with every vocabulary entry that the
// text does not need left out.
std::string Shortened(const std::string& path) {
  nlohmann::ordered_json json = nlohmann::ordered_json::parse(ReadSource(path));
  auto& model = json["model"];
  nlohmann::ordered_json vocab = nlohmann::ordered_json::object();
  int64_t next = 0;
  // One character each, then what the first merges make of them.
  std::set<std::string> kept;
  for (const auto& [token, id] : model["vocab"].items()) {
    if (CountUtf8(token) == 1 || token.starts_with("<")) kept.insert(token);
  }
  nlohmann::ordered_json merges = nlohmann::ordered_json::array();
  for (const auto& merge : model["merges"]) {
    if (merges.size() == 12) break;
    std::string left;
    std::string right;
    if (merge.is_array()) {
      left = merge[0];
      right = merge[1];
    } else {
      const std::string both = merge;
      left = both.substr(0, both.find(' '));
      right = both.substr(both.find(' ') + 1);
    }
    merges.push_back(merge);
    kept.insert({left, right, left + right});
  }
  int64_t num_added = 0;
  for (const auto& added : json["added_tokens"]) {
    num_added = std::max<int64_t>(num_added, added["id"].get<int64_t>() + 1);
  }
  next = num_added;
  for (const auto& [token, id] : model["vocab"].items()) {
    if (!kept.contains(token)) continue;
    vocab[token] = id.get<int64_t>() < num_added ? id.get<int64_t>() : next++;
  }
  model["vocab"] = vocab;
  model["merges"] = merges;
  return json.dump();
}

Outcome RunFiles(const TokenizerFiles& files, const std::string& text) {
  Promises promises;
  const auto tokenizer = Tokenizer::FromFiles(files);
  // The file that all readers share.
  const auto config =
      TokenizerConfig::Parse(files.tokenizer_config, files.special_tokens_map);
  promises.Expect(config.ok() || !tokenizer.ok(),
                  "a tokenizer whose companions are wrong does not load");
  if (!tokenizer.ok()) return promises.Refused(tokenizer.status());
  promises.Expect((*tokenizer)->vocab_size() >= 0 &&
                      (*tokenizer)->vocab_size() <= kMaxVocabSize,
                  "the vocabulary is within limits");
  for (const bool add_special_tokens : {false, true}) {
    for (const bool parse_special : {false, true}) {
      CheckText(**tokenizer, text,
                {.add_special_tokens = add_special_tokens,
                 .parse_special = parse_special},
                &promises);
    }
  }
  // Ids need not come from a text.
  std::vector<TokenId> ids;
  for (const char byte : text) {
    const auto id = static_cast<unsigned char>(byte);
    if (id < (*tokenizer)->vocab_size()) ids.push_back(id);
  }
  TextOf(**tokenizer, ids, /*skip_special=*/false, &promises);
  return promises.Accepted();
}

}  // namespace

Outcome RunTokenizer(std::string_view input) {
  const std::vector<std::string> sections = SectionsOf(input, 4);
  return RunFiles({.tokenizer = sections[0],
                   .tokenizer_config = sections[1],
                   .special_tokens_map = sections[2]},
                  sections[3]);
}

Outcome RunTekken(std::string_view input) {
  const std::vector<std::string> sections = SectionsOf(input, 3);
  return RunFiles({.format = TokenizerFiles::Format::kTekken,
                   .tokenizer = sections[0],
                   .tokenizer_config = sections[1]},
                  sections[2]);
}

// The model comes last: it holds zero bytes of its own.
Outcome RunSentencePiece(std::string_view input) {
  const std::vector<std::string> sections = SectionsOf(input, 3);
  const size_t model_begin =
      std::min(input.size(), sections[0].size() + sections[1].size() + 2);
  return RunFiles({.format = TokenizerFiles::Format::kSentencePiece,
                   .tokenizer = input.substr(model_begin),
                   .tokenizer_config = sections[0]},
                  sections[1]);
}

std::vector<std::string> TekkenSeeds() {
  nlohmann::ordered_json json = nlohmann::ordered_json::parse(
      ReadSource("tests/text/data/tekken_style/tekken.json"));
  auto& vocab = json["vocab"];
  while (vocab.size() > 270) vocab.erase(vocab.size() - 1);
  json["config"]["default_vocab_size"] = 280;
  json["config"]["default_num_special_tokens"] = 12;
  const std::string plain = json.dump();
  json["special_tokens"] = nlohmann::ordered_json::parse(
      R"([{"rank":0,"token_str":"<s>","is_control":true},)"
      R"({"rank":1,"token_str":"</s>","is_control":true}])");
  return {JoinSections({plain, "", std::string(kText)}),
          JoinSections({json.dump(), R"({"add_bos_token":false})", "a<s>b"})};
}

std::vector<std::string> SentencePieceSeeds() {
  const std::string config =
      R"({"legacy":false,"unk_token":"<unk>","added_tokens_decoder":)"
      R"({"1":{"content":"<s>","special":true,"lstrip":true}}})";
  std::vector<std::string> seeds;
  for (const char* name : {"sentencepiece_bpe", "sentencepiece_unigram",
                           "sentencepiece_unigram_bytes"}) {
    const std::string model =
        ReadSource(std::string("tests/text/data/") + name + "/tokenizer.model");
    for (const std::string& companion : {std::string(), config}) {
      std::string seed = JoinSections({companion, std::string(kText), ""});
      seeds.push_back(seed + model);
    }
  }
  return seeds;
}

std::vector<std::string> TokenizerSeeds() {
  const std::string config =
      R"({"bos_token":"<e>","eos_token":{"content":"<e>"},)"
      R"("add_bos_token":true,"chat_template":"{{ messages }}"})";
  std::vector<std::string> seeds = {
      JoinSections({std::string(kSmallFile), "", "", std::string(kText)}),
      JoinSections(
          {std::string(kSmallFile), config, R"({"unk_token":"?"})", "a<e>b"}),
  };
  for (const char* name : {"unigram_style", "unigram_bytes_style"}) {
    const std::string folder = std::string("tests/text/data/") + name;
    seeds.push_back(JoinSections(
        {ReadSource(folder + "/tokenizer.json"), "", "", std::string(kText)}));
  }
  for (const char* style : {"gpt2", "llama2", "llama3", "metaspace",
                            "metaspace_first", "nfkc", "qwen", "unknown"}) {
    const std::string folder =
        std::string("tests/text/data/") + style + "_style/";
    seeds.push_back(JoinSections({Shortened(folder + "tokenizer.json"),
                                  ReadSource(folder + "tokenizer_config.json"),
                                  "", std::string(kText)}));
  }
  return seeds;
}

}  // namespace witan::fuzz
