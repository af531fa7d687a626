// The parts of tests/testing/tiny_model.h that write text: apart from the
// weights, since clang 14 has no type for half precision here.

#include <nlohmann/json.hpp>

#include "tests/testing/tiny_model.h"

namespace witan {

using Json = nlohmann::ordered_json;

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
  config.rms_norm_epsilon = 1e-5;
  config.rope_theta = 10000;
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
                     {"rms_norm_eps", config.rms_norm_epsilon},
                     {"rope_theta", config.rope_theta},
                     {"tie_word_embeddings", config.tie_word_embeddings},
                     {"torch_dtype", NameOf(config.weights)},
                     {"bos_token_id", kTinyBos},
                     {"eos_token_id", kTinyEnd},
                     {"pad_token_id", kTinyPad}};
  return json.dump(2);
}

}  // namespace witan
