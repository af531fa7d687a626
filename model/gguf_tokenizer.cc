#include "model/gguf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "model/json_object.h"

namespace witan {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kTypes = "tokenizer.ggml.token_type";
constexpr std::string_view kScores = "tokenizer.ggml.scores";
constexpr std::string_view kMerges = "tokenizer.ggml.merges";
constexpr std::string_view kWordStart = "\u2581";

// enum llama_token_type of llama.h.
enum TokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// Patterns of published tokenizer.json files: how a text is cut into words.
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4oPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// What llama.cpp takes for files that do not say.
constexpr std::string_view kDefaultPunctuation = R"([\p{P}$+<=>^~|]+)";
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)"
    R"(|\s+(?!\S)|\s+)";

constexpr std::string_view kGpt2Stages[] = {kGpt2Pattern};
constexpr std::string_view kLlama3Stages[] = {kLlama3Pattern};
constexpr std::string_view kQwen2Stages[] = {kQwen2Pattern};
constexpr std::string_view kTekkenStages[] = {kTekkenPattern};
constexpr std::string_view kGpt4oStages[] = {kGpt4oPattern};
constexpr std::string_view kDigitStages[] = {R"(\p{N})", kGpt2Pattern};
constexpr std::string_view kDefaultStages[] = {
    kDefaultPunctuation, kGpt2Pattern, R"(\p{N}+)", "[0-9][0-9][0-9]"};

struct PreTokenizerRule {
  std::string_view name;  // tokenizer.ggml.pre
  // Each cuts what those before it left into its matches and what is between.
  std::span<const std::string_view> stages;
  // A word that is a token stays whole.
  bool ignore_merges = false;
  bool adds_bos = false;  // where the file does not say
  bool is_nfc = false;
};
constexpr PreTokenizerRule kRules[] = {
    {"default", kDefaultStages},
    {"gpt-2", kGpt2Stages},
    {"llama-bpe", kLlama3Stages, true, true},
    {"llama3", kLlama3Stages, true, true},
    {"llama-v3", kLlama3Stages, true, true},
    {"falcon3", kLlama3Stages, true, true},
    {"pixtral", kLlama3Stages, true, true},
    {"dbrx", kLlama3Stages},
    {"smaug-bpe", kLlama3Stages},
    {"qwen2", kQwen2Stages, false, false, true},
    {"deepseek-r1-qwen", kQwen2Stages, false, false, true},
    {"smollm", kDigitStages},
    {"starcoder", kDigitStages},
    {"refact", kDigitStages},
    {"command-r", kDigitStages},
    {"tekken", kTekkenStages, true, true},
    {"gpt-4o", kGpt4oStages},
};

absl::StatusOr<const PreTokenizerRule*> RuleOf(std::string_view name) {
  std::vector<std::string_view> known;
  for (const PreTokenizerRule& rule : kRules) {
    if (rule.name == name) return &rule;
    known.push_back(rule.name);
  }
  return InvalidArgument(
      "metadata: tokenizer.ggml.pre is {}, which is not known; known are: {}; "
      "serve the model's Hugging Face directory",
      Quoted(name), fmt::join(known, ", "));
}

template <typename T>
const std::vector<T>* FindList(const Gguf& gguf, std::string_view key) {
  const GgufValue* value = gguf.Find(key);
  return value == nullptr ? nullptr : std::get_if<std::vector<T>>(value);
}

class TokenizerWriter {
 public:
  explicit TokenizerWriter(const Gguf& gguf) : gguf_(gguf), fields_(gguf) {}

  absl::StatusOr<TokenizerTexts> Write() {
    RETURN_IF_ERROR(ReadTokens());
    const auto model = fields_.String("tokenizer.ggml.model");
    RETURN_IF_ERROR(fields_.status());
    if (model == "gpt2") {
      RETURN_IF_ERROR(WriteByteLevel());
    } else if (model == "llama") {
      RETURN_IF_ERROR(WriteSentencePiece());
    } else {
      return InvalidArgument(
          "metadata: tokenizer.ggml.model is {}; allowed is \"gpt2\" or "
          "\"llama\"; serve the model's Hugging Face directory",
          model ? Quoted(*model) : "absent");
    }
    RETURN_IF_ERROR(WriteVocabulary());
    WriteRoles();
    TokenizerTexts texts;
    if (const auto text = fields_.String("tokenizer.chat_template")) {
      texts.chat_template = *text;
    }
    RETURN_IF_ERROR(fields_.status());
    texts.tokenizer = tokenizer_.dump();
    texts.tokenizer_config = config_.dump();
    return texts;
  }

 private:
  absl::Status ReadTokens() {
    tokens_ = FindList<std::string_view>(gguf_, kTokens);
    if (tokens_ == nullptr || tokens_->empty() ||
        static_cast<int64_t>(tokens_->size()) > kMaxVocabSize) {
      const GgufValue* value = gguf_.Find(kTokens);
      return InvalidArgument(
          "metadata: {} is {}; allowed is a list of 1 to {} strings", kTokens,
          value == nullptr ? "absent" : DescribeGguf(*value), kMaxVocabSize);
    }
    size_t num_bytes = 0;
    for (size_t id = 0; id < tokens_->size(); ++id) {
      const std::string_view text = (*tokens_)[id];
      num_bytes += text.size();
      if (text.size() > kMaxGgufTokenBytes || !IsValidUtf8(text)) {
        return InvalidArgument(
            "metadata: {}[{}] is {}; allowed is UTF-8 of at most {} bytes",
            kTokens, id, Quoted(text), kMaxGgufTokenBytes);
      }
    }
    if (num_bytes > kMaxGgufVocabularyBytes) {
      return InvalidArgument(
          "metadata: {} has {} bytes, at most {} are allowed", kTokens,
          num_bytes, kMaxGgufVocabularyBytes);
    }
    types_ = FindList<int64_t>(gguf_, kTypes);
    if (gguf_.Find(kTypes) != nullptr &&
        (types_ == nullptr || types_->size() != tokens_->size())) {
      return InvalidArgument(
          "metadata: {} is {}; allowed is an integer for each of {} tokens",
          kTypes, DescribeGguf(*gguf_.Find(kTypes)), tokens_->size());
    }
    return absl::OkStatus();
  }

  int64_t TypeOf(size_t id) const {
    return types_ == nullptr ? int64_t{kNormal} : (*types_)[id];
  }
  // Whether text is searched for it as it is, before words are.
  bool IsAdded(size_t id) const {
    return TypeOf(id) == kControl || TypeOf(id) == kUserDefined ||
           TypeOf(id) == kUnknown;
  }

  absl::Status WriteByteLevel() {
    const auto name = fields_.String("tokenizer.ggml.pre");
    RETURN_IF_ERROR(fields_.status());
    ASSIGN_OR_RETURN(const PreTokenizerRule* rule,
                     RuleOf(name.value_or("default")));
    Json stages = Json::array();
    for (const std::string_view pattern : rule->stages) {
      stages.push_back({{"type", "Split"},
                        {"pattern", {{"Regex", pattern}}},
                        {"behavior", "Isolated"},
                        {"invert", false}});
    }
    const Json byte_level = {{"type", "ByteLevel"},
                             {"add_prefix_space", false},
                             {"use_regex", false}};
    stages.push_back(byte_level);
    tokenizer_["pre_tokenizer"] = {{"type", "Sequence"},
                                   {"pretokenizers", stages}};
    tokenizer_["decoder"] = byte_level;
    if (rule->is_nfc) tokenizer_["normalizer"] = {{"type", "NFC"}};
    model_["ignore_merges"] = rule->ignore_merges;
    adds_bos_ = rule->adds_bos;
    return CopyMerges();
  }

  absl::Status CopyMerges() {
    const auto* merges = FindList<std::string_view>(gguf_, kMerges);
    if (merges == nullptr || merges->size() > kMaxTokenizerMerges) {
      const GgufValue* value = gguf_.Find(kMerges);
      return InvalidArgument(
          "metadata: {} is {}; allowed is a list of at most {} strings",
          kMerges, value == nullptr ? "absent" : DescribeGguf(*value),
          kMaxTokenizerMerges);
    }
    Json list = Json::array();
    for (const std::string_view merge : *merges) {
      if (!IsValidUtf8(merge)) {
        return InvalidArgument("metadata: {} has {}; allowed is UTF-8", kMerges,
                               Quoted(merge));
      }
      list.push_back(merge);
    }
    model_["merges"] = std::move(list);
    return absl::OkStatus();
  }

  absl::Status WriteSentencePiece() {
    const bool has_prefix =
        fields_.Boolean("tokenizer.ggml.add_space_prefix").value_or(true);
    Json normalizers = Json::array();
    if (has_prefix) {
      normalizers.push_back({{"type", "Prepend"}, {"prepend", kWordStart}});
    }
    normalizers.push_back({{"type", "Replace"},
                           {"pattern", {{"String", " "}}},
                           {"content", kWordStart}});
    tokenizer_["normalizer"] = {{"type", "Sequence"},
                                {"normalizers", normalizers}};
    Json decoders = {{{"type", "Replace"},
                      {"pattern", {{"String", kWordStart}}},
                      {"content", " "}},
                     {{"type", "ByteFallback"}},
                     {{"type", "Fuse"}}};
    if (has_prefix) {
      decoders.push_back(
          {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    }
    tokenizer_["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
    model_["byte_fallback"] = true;
    model_["fuse_unk"] = true;
    for (size_t id = 0; id < tokens_->size(); ++id) {
      if (TypeOf(id) == kUnknown) {
        model_["unk_token"] = (*tokens_)[id];
        break;
      }
    }
    adds_bos_ = true;
    return MakeMerges();
  }

  // Of each token all pairs of tokens that make it; tokens by falling score,
  // pairs of one token by their ids.
  absl::Status MakeMerges() {
    const auto* scores = FindList<double>(gguf_, kScores);
    if (scores == nullptr || scores->size() != tokens_->size()) {
      const GgufValue* value = gguf_.Find(kScores);
      return InvalidArgument(
          "metadata: {} is {}; allowed is a number for each of {} tokens",
          kScores, value == nullptr ? "absent" : DescribeGguf(*value),
          tokens_->size());
    }
    std::unordered_map<std::string_view, size_t> ids;
    std::vector<size_t> order;
    for (size_t id = 0; id < tokens_->size(); ++id) {
      if (!std::isfinite((*scores)[id])) {
        return InvalidArgument("metadata: {}[{}] is {}; allowed is a number",
                               kScores, id, (*scores)[id]);
      }
      if (TypeOf(id) != kNormal) continue;
      ids.emplace((*tokens_)[id], id);
      order.push_back(id);
    }
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return (*scores)[a] > (*scores)[b];
    });
    Json merges = Json::array();
    for (const size_t id : order) {
      const std::string_view text = (*tokens_)[id];
      std::vector<std::pair<size_t, size_t>> pairs;
      for (size_t cut = 1; cut < text.size(); ++cut) {
        const auto left = ids.find(text.substr(0, cut));
        if (left == ids.end()) continue;
        const auto right = ids.find(text.substr(cut));
        if (right == ids.end()) continue;
        pairs.emplace_back(left->second, right->second);
      }
      std::sort(pairs.begin(), pairs.end());
      if (merges.size() + pairs.size() > kMaxTokenizerMerges) {
        return InvalidArgument(
            "metadata: {} make more than {} merges; that is no vocabulary of "
            "a language",
            kTokens, kMaxTokenizerMerges);
      }
      for (const auto& [left, right] : pairs) {
        merges.push_back({(*tokens_)[left], (*tokens_)[right]});
      }
    }
    model_["merges"] = std::move(merges);
    return absl::OkStatus();
  }

  // Whitespace behind the markers of a Phi 3 belongs to them, which only its
  // tokenizer.json says.
  bool TakesWhitespace(std::string_view text) const {
    constexpr std::string_view kPlain[] = {"<unk>", "<s>", "<|endoftext|>"};
    const GgufValue* name = gguf_.Find("general.architecture");
    const bool is_phi3 =
        name != nullptr && (*name == GgufValue(std::string_view("phi3")) ||
                            *name == GgufValue(std::string_view("phimoe")));
    return is_phi3 && model_.contains("byte_fallback") &&
           std::find(std::begin(kPlain), std::end(kPlain), text) ==
               std::end(kPlain);
  }

  // Control tokens are kept out of the vocabulary of words, where text that
  // merely spells one must not find it.
  absl::Status WriteVocabulary() {
    Json vocabulary = Json::object();
    Json added = Json::array();
    for (size_t id = 0; id < tokens_->size(); ++id) {
      const std::string_view text = (*tokens_)[id];
      if (TypeOf(id) == kUnused) continue;
      if (IsAdded(id)) {
        added.push_back({{"id", id},
                         {"content", text},
                         {"special", TypeOf(id) != kUserDefined},
                         {"normalized", false},
                         {"lstrip", false},
                         {"rstrip", TakesWhitespace(text)},
                         {"single_word", false}});
      }
      if (TypeOf(id) == kControl) continue;
      const auto [known, is_new] =
          vocabulary.emplace(std::string(text), static_cast<int64_t>(id));
      if (!is_new) {
        return InvalidArgument(
            "metadata: {}[{}] is {}, as {}[{}] is; allowed "
            "are distinct tokens",
            kTokens, id, Quoted(text), kTokens, known->get<int64_t>());
      }
    }
    model_["type"] = "BPE";
    model_["vocab"] = std::move(vocabulary);
    tokenizer_["model"] = std::move(model_);
    tokenizer_["added_tokens"] = std::move(added);
    return absl::OkStatus();
  }

  // "bos" and "bos_token".
  bool WriteRole(std::string_view key, const std::string& role) {
    const std::string name = fmt::format("tokenizer.ggml.{}_token_id", key);
    const auto id = fields_.Integer(name);
    if (!id) return false;
    if (*id < 0 || *id >= static_cast<int64_t>(tokens_->size())) {
      fields_.Fail(InvalidArgument("metadata: {} is {}; allowed is 0 to {}",
                                   name, *id, tokens_->size() - 1));
      return false;
    }
    config_[role] = (*tokens_)[static_cast<size_t>(*id)];
    return true;
  }

  void WriteRoles() {
    const bool has_bos = WriteRole("bos", "bos_token");
    WriteRole("eos", "eos_token");
    WriteRole("unknown", "unk_token");
    WriteRole("padding", "pad_token");
    config_["add_bos_token"] = fields_.Boolean("tokenizer.ggml.add_bos_token")
                                   .value_or(adds_bos_ && has_bos);
    config_["add_eos_token"] =
        fields_.Boolean("tokenizer.ggml.add_eos_token").value_or(false);
  }

  const Gguf& gguf_;
  GgufFields fields_;
  const std::vector<std::string_view>* tokens_ = nullptr;
  const std::vector<int64_t>* types_ = nullptr;
  bool adds_bos_ = false;
  Json model_ = Json::object();
  Json tokenizer_ = Json::object();
  Json config_ = Json::object();
};

}  // namespace

absl::StatusOr<TokenizerTexts> TokenizerOfGguf(const GgufModel& model) {
  return TokenizerWriter(model.metadata()).Write();
}

absl::StatusOr<std::optional<TokenizerTexts>> ReadTokenizerOfGguf(
    const std::string& model) {
  ASSIGN_OR_RETURN(const auto files, FindGgufFiles(model));
  if (files.empty()) return std::optional<TokenizerTexts>();
  ASSIGN_OR_RETURN(const GgufModel gguf, GgufModel::Open(files));
  absl::StatusOr<TokenizerTexts> texts = TokenizerOfGguf(gguf);
  if (!texts.ok()) return Annotate(texts.status(), files.front());
  return std::optional(*std::move(texts));
}

std::optional<int64_t> ControlTokenOfGguf(const GgufModel& model,
                                          std::string_view text) {
  const auto* tokens = FindList<std::string_view>(model.metadata(), kTokens);
  const auto* types = FindList<int64_t>(model.metadata(), kTypes);
  if (tokens == nullptr || types == nullptr ||
      types->size() != tokens->size()) {
    return std::nullopt;
  }
  for (size_t id = 0; id < tokens->size(); ++id) {
    if ((*types)[id] == kControl && (*tokens)[id] == text) {
      return static_cast<int64_t>(id);
    }
  }
  return std::nullopt;
}

}  // namespace witan
