#include "tests/testing/tiny_model.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numbers>

#include "model/families.h"
#include "tests/testing/half.h"

namespace witan {
namespace {

using Json = nlohmann::ordered_json;

// Standard normal numbers, the same on every machine (splitmix64 and
// Box-Muller, rounded to float so that the last bit of libm does not matter).
class NormalNumbers {
 public:
  explicit NormalNumbers(uint64_t seed) : state_(seed) {}
  float Next() {
    const double u = (static_cast<double>(NextBits() >> 11) + 0.5) * 0x1p-53;
    const double v = static_cast<double>(NextBits() >> 11) * 0x1p-53;
    return static_cast<float>(std::sqrt(-2 * std::log(u)) *
                              std::cos(2 * std::numbers::pi * v));
  }

 private:
  uint64_t NextBits() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

void AppendElement(std::string& bytes, DType dtype, float value) {
  char raw[4];
  switch (dtype) {
    case DType::kF32:
      std::memcpy(raw, &value, 4);
      break;
    case DType::kF16: {
      const uint16_t half = HalfOf(value);
      std::memcpy(raw, &half, 2);
      break;
    }
    case DType::kBF16: {
      const uint32_t bits = std::bit_cast<uint32_t>(value);
      const uint16_t rounded =
          static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
      std::memcpy(raw, &rounded, 2);
      break;
    }
    case DType::kI32:
      WITAN_CHECK(false, "weights are not integers");
  }
  bytes.append(raw, SizeOf(dtype));
}

std::string FormatName(DType dtype) {
  return dtype == DType::kF32 ? "F32" : dtype == DType::kF16 ? "F16" : "BF16";
}

// Norm weights lie around 1. Everything else keeps the scale of its input:
// 1 / sqrt(inputs); the output projection makes logits of about 2.
StoredTensor RandomTensor(const ModelConfig& config, const TensorSlice& tensor,
                          NormalNumbers& normal) {
  float mean = 0;
  float deviation = 0;
  switch (tensor.role) {
    case TensorRole::kAttentionNorm:
    case TensorRole::kFfnNorm:
    case TensorRole::kFinalNorm:
      mean = 1;
      deviation = 0.1f;
      break;
    case TensorRole::kEmbedding:
    case TensorRole::kLmHead: {
      const bool is_head =
          tensor.role == TensorRole::kLmHead || config.tie_word_embeddings;
      deviation =
          is_head ? 2 / std::sqrt(static_cast<float>(config.hidden_size)) : 1;
      break;
    }
    default:
      deviation = 1 / std::sqrt(static_cast<float>(tensor.columns.size()));
  }
  StoredTensor stored;
  stored.dtype = FormatName(config.weights);
  stored.shape = StoredShape(tensor);
  const int64_t num_elements = tensor.rows.size() * tensor.columns.size();
  stored.bytes.reserve(static_cast<size_t>(num_elements) *
                       SizeOf(config.weights));
  for (int64_t i = 0; i < num_elements; ++i) {
    AppendElement(stored.bytes, config.weights,
                  mean + deviation * normal.Next());
  }
  return stored;
}

void WriteWeights(const TinyModelOptions& options,
                  const TempDirectory& directory) {
  NormalNumbers normal(options.seed);
  const std::vector<TensorSlice> expected = ExpectedTensors(options.config);
  const auto num_shards = static_cast<size_t>(options.num_shards);
  std::vector<std::map<std::string, StoredTensor>> shards(num_shards);
  Json index = {{"metadata", {{"total_size", 0}}},
                {"weight_map", Json::object()}};
  size_t total_size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const TensorSlice& tensor = expected[i];
    const std::string name =
        PlaceOf(options.config, tensor.role, tensor.layer, tensor.expert).name;
    const size_t shard = i * num_shards / expected.size();
    StoredTensor stored = RandomTensor(options.config, tensor, normal);
    total_size += stored.bytes.size();
    index["weight_map"][name] =
        fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, num_shards);
    shards[shard].emplace(name, std::move(stored));
  }
  if (num_shards == 1) {
    directory.Write("model.safetensors", SafetensorsFile(shards[0]));
    return;
  }
  index["metadata"]["total_size"] = total_size;
  directory.Write("model.safetensors.index.json", index.dump(2));
  for (size_t i = 0; i < num_shards; ++i) {
    directory.Write(
        fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, num_shards),
        SafetensorsFile(shards[i]));
  }
}

void AppendUtf8(std::string& text, uint32_t code_point) {
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else {
    text += static_cast<char>(0xc0 | (code_point >> 6));
    text += static_cast<char>(0x80 | (code_point & 0x3f));
  }
}

// How byte-level BPE writes each byte as a character: printable ones as
// themselves, the others from U+0100 on.
std::vector<std::string> ByteCharacters() {
  std::vector<std::string> characters(256);
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') ||
                           (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    AppendUtf8(characters[byte], printable ? byte : next++);
  }
  return characters;
}

constexpr const char* kSpecialTokens[] = {
    "<|pad|>", "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"};
static_assert(std::size(kSpecialTokens) == kTinyFirstByteToken);

std::string TokenizerJson() {
  Json vocab = Json::object();
  Json added = Json::array();
  for (int id = 0; id < kTinyFirstByteToken; ++id) {
    vocab[kSpecialTokens[id]] = id;
    added.push_back({{"id", id},
                     {"content", kSpecialTokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const std::vector<std::string> characters = ByteCharacters();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[characters[static_cast<size_t>(byte)]] = kTinyFirstByteToken + byte;
  }
  const Json bos = {{"SpecialToken", {{"id", "<|bos|>"}, {"type_id", 0}}}};
  const auto sequence = [](const char* id) {
    return Json{{"Sequence", {{"id", id}, {"type_id", 0}}}};
  };
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", false}};
  const Json tokenizer = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", Json::array({bos, sequence("A")})},
        {"pair", Json::array({bos, sequence("A"), bos, sequence("B")})},
        {"special_tokens",
         {{"<|bos|>",
           {{"id", "<|bos|>"},
            {"ids", Json::array({kTinyBos})},
            {"tokens", Json::array({"<|bos|>"})}}}}}}},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", false},
        {"vocab", vocab},
        {"merges", Json::array()}}}};
  return tokenizer.dump();
}

std::string TokenizerConfigJson(const ModelConfig& config) {
  constexpr const char* kChatTemplate =
      "{{- bos_token -}}\n"
      "{%- for message in messages -%}\n"
      "  {{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' "
      "-}}\n"
      "{%- endfor -%}\n"
      "{%- if add_generation_prompt -%}\n"
      "  {{- '<|assistant|>' -}}\n"
      "{%- endif -%}\n";
  const Json tokenizer_config = {
      {"tokenizer_class", "PreTrainedTokenizerFast"},
      {"add_bos_token", true},
      {"add_eos_token", false},
      {"clean_up_tokenization_spaces", false},
      {"model_max_length", config.max_context_tokens},
      {"bos_token", "<|bos|>"},
      {"eos_token", "<|end|>"},
      {"pad_token", "<|pad|>"},
      {"chat_template", kChatTemplate}};
  return tokenizer_config.dump(2);
}

}  // namespace

ModelConfig TinyModelConfig() {
  ModelConfig config;
  config.architecture = "MixtralForCausalLM";
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.num_layers = 2;
  config.num_heads = 8;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.num_experts = 8;
  config.experts_per_token = 2;
  config.vocab_size = 320;
  config.max_context_tokens = 512;
  config.norm_epsilon = 1e-5;
  config.rope.theta = 10000;
  config.rope.rotary_dim = config.head_dim;
  config.weights = DType::kBF16;
  return config;
}

std::string SafetensorsFile(
    const std::map<std::string, StoredTensor>& tensors) {
  Json header = Json::object();
  size_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {
        {"dtype", tensor.dtype},
        {"shape", tensor.shape},
        {"data_offsets", Json::array({offset, offset + tensor.bytes.size()})}};
    offset += tensor.bytes.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string file;
  for (int i = 0; i < 8; ++i) {
    file += static_cast<char>((text.size() >> (8 * i)) & 0xff);
  }
  file += text;
  for (const auto& [name, tensor] : tensors) file += tensor.bytes;
  return file;
}

std::string ConfigJson(const ModelConfig& config) {
  const Json json = {{"architectures", Json::array({config.architecture})},
                     {"model_type", "mixtral"},
                     {"hidden_act", "silu"},
                     {"hidden_size", config.hidden_size},
                     {"intermediate_size", config.intermediate_size},
                     {"num_hidden_layers", config.num_layers},
                     {"num_attention_heads", config.num_heads},
                     {"num_key_value_heads", config.num_kv_heads},
                     {"head_dim", config.head_dim},
                     {"num_local_experts", config.num_experts},
                     {"num_experts_per_tok", config.experts_per_token},
                     {"vocab_size", config.vocab_size},
                     {"max_position_embeddings", config.max_context_tokens},
                     {"sliding_window", config.sliding_window == 0
                                            ? Json(nullptr)
                                            : Json(config.sliding_window)},
                     {"rms_norm_eps", config.norm_epsilon},
                     {"rope_theta", config.rope.theta},
                     {"tie_word_embeddings", config.tie_word_embeddings},
                     {"torch_dtype", NameOf(config.weights)},
                     {"bos_token_id", kTinyBos},
                     {"eos_token_id", kTinyEnd},
                     {"pad_token_id", kTinyPad}};
  return json.dump(2);
}

TinyModel::TinyModel(const TinyModelOptions& options)
    : config_(options.config) {
  directory_.Write("config.json", ConfigJson(config_));
  const Json generation = {{"bos_token_id", kTinyBos},
                           {"eos_token_id", options.eos_token_ids},
                           {"pad_token_id", kTinyPad}};
  directory_.Write("generation_config.json", generation.dump(2));
  WriteWeights(options, directory_);
  if (config_.vocab_size < kTinyTokenizerSize) return;
  directory_.Write("tokenizer.json", TokenizerJson());
  directory_.Write("tokenizer_config.json", TokenizerConfigJson(config_));
}

}  // namespace witan
