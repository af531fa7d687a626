#include "tests/testing/tiny_model.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "model/families.h"
#include "tests/testing/random_elements.h"

namespace witan {
namespace {

using Json = nlohmann::ordered_json;

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
    case TensorRole::kQueryNorm:
    case TensorRole::kKeyNorm:
      mean = 1;
      deviation = 0.1f;
      break;
    case TensorRole::kAttentionNormBias:
    case TensorRole::kFfnNormBias:
    case TensorRole::kFinalNormBias:
    case TensorRole::kQueryBias:
    case TensorRole::kKeyBias:
    case TensorRole::kValueBias:
    case TensorRole::kOutputBias:
    case TensorRole::kLmHeadBias:
      deviation = 0.3f;
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
  std::map<std::string, size_t> files_of;
  for (size_t i = 0; i < expected.size(); ++i) {
    const TensorSlice& tensor = expected[i];
    const TensorPlace place =
        PlaceOf(options.config, tensor.role, tensor.layer, tensor.expert);
    // Parts of one tensor come one after the other.
    const size_t shard = i * num_shards / expected.size();
    StoredTensor stored = RandomTensor(options.config, tensor, normal);
    total_size += stored.bytes.size();
    stored.shape = place.stored_shape;
    const auto known = files_of.find(place.name);
    const size_t file = known == files_of.end() ? shard : known->second;
    files_of[place.name] = file;
    index["weight_map"][place.name] =
        fmt::format("model-{:05}-of-{:05}.safetensors", file + 1, num_shards);
    auto [it, is_new] = shards[file].try_emplace(place.name, stored);
    if (!is_new) it->second.bytes += stored.bytes;
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

ModelConfig TinyFamilyConfig(const std::string& architecture) {
  const FamilyTraits* const family = FindFamily(architecture);
  WITAN_CHECK(family != nullptr, "unknown architecture {}", architecture);
  ModelConfig config = TinyModelConfig();
  config.architecture = architecture;
  config.norm = family->norm;
  config.qk_norm = family->qk_norm;
  config.qkv_bias = family->attention_bias != AttentionBiasRule::kNone;
  config.output_bias =
      family->attention_bias == AttentionBiasRule::kAllIfConfigSays;
  config.lm_head_bias = family->may_have_lm_head_bias;
  config.routing.kind = family->routing;
  if (family->routing == RoutingKind::kSparseMixer)
    config.routing.jitter = 0.1f;
  if (family->num_experts_field.empty()) {
    config.num_experts = config.experts_per_token = 0;
    config.routing = {};
    // Units of 32 columns that do not divide evenly, the last one in part.
    config.intermediate_size = 336;
  }
  if (family->window == WindowRule::kEveryLayer) {
    config.sliding_window = 48;
    config.windowed_layers = {true, true};
  } else if (family->window == WindowRule::kUpperLayers) {
    config.sliding_window = 40;
    config.windowed_layers = {false, true};
  }
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

namespace {

Json RopeJson(const RopeParameters& rope) {
  Json json = {{"rope_theta", rope.theta}, {"rope_type", "default"}};
  if (rope.scaling == RopeScaling::kNone) return json;
  json["factor"] = rope.factor;
  json["original_max_position_embeddings"] = rope.original_context_tokens;
  switch (rope.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      json["rope_type"] = "linear";
      break;
    case RopeScaling::kLlama3:
      json["rope_type"] = "llama3";
      json["low_freq_factor"] = rope.low_freq_factor;
      json["high_freq_factor"] = rope.high_freq_factor;
      break;
    case RopeScaling::kYarn:
      json["rope_type"] = "yarn";
      json["beta_fast"] = rope.beta_fast;
      json["beta_slow"] = rope.beta_slow;
      json["truncate"] = rope.truncate;
      json["attention_factor"] = rope.attention_factor;
      break;
    case RopeScaling::kLongRope:
      json["rope_type"] = "longrope";
      json["short_factor"] = rope.short_factors;
      json["long_factor"] = rope.long_factors;
      json["short_mscale"] = rope.attention_factor;
      json["long_mscale"] = rope.long_attention_factor;
      break;
  }
  return json;
}

}  // namespace

std::string ConfigJson(const ModelConfig& config) {
  Json json = {{"architectures", Json::array({config.architecture})},
               {"hidden_act", "silu"},
               {"hidden_size", config.hidden_size},
               {"num_hidden_layers", config.num_layers},
               {"num_attention_heads", config.num_heads},
               {"num_key_value_heads", config.num_kv_heads},
               {"head_dim", config.head_dim},
               {"vocab_size", config.vocab_size},
               {"max_position_embeddings", config.max_context_tokens},
               {"sliding_window", config.sliding_window == 0
                                      ? Json(nullptr)
                                      : Json(config.sliding_window)},
               {"rms_norm_eps", config.norm_epsilon},
               {"tie_word_embeddings", config.tie_word_embeddings},
               {"torch_dtype", NameOf(config.weights)},
               {"bos_token_id", kTinyBos},
               {"eos_token_id", kTinyEnd},
               {"pad_token_id", kTinyPad}};
  if (config.rope.scaling == RopeScaling::kNone) {
    json["rope_theta"] = config.rope.theta;
  } else {
    json["rope_parameters"] = RopeJson(config.rope);
  }
  if (config.rope.rotary_dim != config.head_dim) {
    json["partial_rotary_factor"] =
        static_cast<double>(config.rope.rotary_dim) /
        static_cast<double>(config.head_dim);
  }
  if (config.output_bias) json["attention_bias"] = true;
  if (config.lm_head_bias) json["lm_head_bias"] = true;
  if (config.sliding_window > 0) {
    json["layer_types"] = Json::array();
    for (const bool windowed : config.windowed_layers) {
      json["layer_types"].push_back(windowed ? "sliding_attention"
                                             : "full_attention");
    }
  }
  const FamilyTraits* const family = FindFamily(config.architecture);
  if (!config.has_experts()) {
    json["intermediate_size"] = config.intermediate_size;
    return json.dump(2);
  }
  json[std::string(family->expert_size_field)] = config.intermediate_size;
  json[std::string(family->num_experts_field)] = config.num_experts;
  json["num_experts_per_tok"] = config.experts_per_token;
  if (family->routing == RoutingKind::kSoftmax) {
    json["norm_topk_prob"] =
        config.routing.kind == RoutingKind::kSoftmaxNormalised;
  }
  if (family->routing == RoutingKind::kSparseMixer) {
    json["router_jitter_noise"] = config.routing.jitter;
  }
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
