#include "tests/testing/published_configs.h"

#include <nlohmann/json.hpp>

#include "base/check.h"

namespace witan {
namespace {

using Json = nlohmann::json;

// What all files of a family say; a model's own fields come on top.
Json FamilyFields(const std::string& architecture) {
  Json json = {{"architectures", {architecture}},
               {"hidden_act", "silu"},
               {"rms_norm_eps", 1e-5},
               {"tie_word_embeddings", false},
               {"torch_dtype", "bfloat16"},
               {"use_cache", true}};
  if (architecture == "LlamaForCausalLM") {
    json.update({{"attention_bias", false},
                 {"mlp_bias", false},
                 {"pretraining_tp", 1},
                 {"rope_scaling", nullptr},
                 {"rope_theta", 500000.0},
                 {"vocab_size", 128256}});
  } else if (architecture == "Qwen2ForCausalLM") {
    json.update({{"max_position_embeddings", 32768},
                 {"rms_norm_eps", 1e-6},
                 {"rope_theta", 1e6},
                 {"sliding_window", 131072},
                 {"use_sliding_window", false},
                 {"vocab_size", 151936}});
  } else if (architecture.starts_with("Qwen3")) {
    json.update({{"attention_bias", false},
                 {"head_dim", 128},
                 {"max_position_embeddings", 40960},
                 {"rms_norm_eps", 1e-6},
                 {"rope_scaling", nullptr},
                 {"rope_theta", 1e6},
                 {"sliding_window", nullptr},
                 {"use_sliding_window", false},
                 {"vocab_size", 151936}});
  }
  return json;
}

Json Llama3Scaling(double factor) {
  return {{"factor", factor},
          {"high_freq_factor", 4.0},
          {"low_freq_factor", 1.0},
          {"original_max_position_embeddings", 8192},
          {"rope_type", "llama3"}};
}

// The factors themselves do not change the number of weights.
Json LongRope(int size) {
  return {{"long_factor", std::vector<double>(size, 1.5)},
          {"short_factor", std::vector<double>(size, 1.05)},
          {"type", "longrope"}};
}

struct Entry {
  std::string name;
  std::string architecture;
  Json fields;
  int64_t num_parameters = 0;
  int64_t num_active_parameters = 0;  // 0: all
};

// hidden, FFN, layers, heads, KV heads, context.
Json Shape(int hidden, int ffn, int layers, int heads, int kv_heads,
           int context) {
  return {
      {"hidden_size", hidden},           {"intermediate_size", ffn},
      {"num_hidden_layers", layers},     {"num_attention_heads", heads},
      {"num_key_value_heads", kv_heads}, {"max_position_embeddings", context}};
}

Json With(Json json, const Json& more) {
  json.update(more);
  return json;
}

std::vector<Entry> LlamaModels() {
  const std::string llama = "LlamaForCausalLM";
  return {
      {"Meta-Llama-3-8B", llama, Shape(4096, 14336, 32, 32, 8, 8192),
       8'030'261'248},
      {"Meta-Llama-3-70B", llama, Shape(8192, 28672, 80, 64, 8, 8192),
       70'553'706'496},
      {"Llama-3.1-8B", llama,
       With(Shape(4096, 14336, 32, 32, 8, 131072),
            {{"rope_scaling", Llama3Scaling(8)}}),
       8'030'261'248},
      {"Llama-3.1-405B", llama,
       With(Shape(16384, 53248, 126, 128, 8, 131072),
            {{"rope_scaling", Llama3Scaling(8)}}),
       405'853'388'800},
      {"Llama-3.2-1B", llama,
       With(Shape(2048, 8192, 16, 32, 8, 131072),
            {{"rope_scaling", Llama3Scaling(32)},
             {"head_dim", 64},
             {"tie_word_embeddings", true}}),
       1'235'814'400},
      {"Llama-3.2-3B", llama,
       With(Shape(3072, 8192, 28, 24, 8, 131072),
            {{"rope_scaling", Llama3Scaling(32)},
             {"head_dim", 128},
             {"tie_word_embeddings", true}}),
       3'212'749'824},
  };
}

// Weights of one expert of every layer: gate, up and down. A token meets all
// weights but the experts that it does not choose.
constexpr int64_t Experts(int64_t num_layers, int64_t hidden, int64_t ffn) {
  return num_layers * 3 * hidden * ffn;
}

std::vector<Entry> MistralModels() {
  const std::string mistral = "MistralForCausalLM";
  const std::string mixtral = "MixtralForCausalLM";
  const Json experts = {{"num_local_experts", 8}, {"num_experts_per_tok", 2}};
  return {
      {"Mistral-7B-v0.1", mistral,
       With(Shape(4096, 14336, 32, 32, 8, 32768), {{"sliding_window", 4096},
                                                   {"rope_theta", 10000.0},
                                                   {"vocab_size", 32000}}),
       7'241'732'096},
      {"Mistral-7B-v0.2", mistral,
       With(Shape(4096, 14336, 32, 32, 8, 32768), {{"sliding_window", nullptr},
                                                   {"rope_theta", 1e6},
                                                   {"vocab_size", 32000}}),
       7'241'732'096},
      {"Mistral-7B-v0.3", mistral,
       With(Shape(4096, 14336, 32, 32, 8, 32768), {{"sliding_window", nullptr},
                                                   {"rope_theta", 1e6},
                                                   {"vocab_size", 32768}}),
       7'248'023'552},
      {"Mixtral-8x7B-v0.1", mixtral,
       With(With(Shape(4096, 14336, 32, 32, 8, 32768), experts),
            {{"sliding_window", nullptr},
             {"rope_theta", 1e6},
             {"vocab_size", 32000}}),
       46'702'792'704, 46'702'792'704 - 6 * Experts(32, 4096, 14336)},
      {"Mixtral-8x22B-v0.1", mixtral,
       With(With(Shape(6144, 16384, 56, 48, 8, 65536), experts),
            {{"sliding_window", nullptr},
             {"rope_theta", 1e6},
             {"vocab_size", 32000}}),
       140'620'634'112, 140'620'634'112 - 6 * Experts(56, 6144, 16384)},
  };
}

std::vector<Entry> PhiModels() {
  const std::string phi3 = "Phi3ForCausalLM";
  const Json original = {{"original_max_position_embeddings", 4096},
                         {"rope_theta", 10000.0}};
  Json moe_scaling = LongRope(64);
  moe_scaling.update({{"long_mscale", 1.243163121016122},
                      {"short_mscale", 1.243163121016122},
                      {"original_max_position_embeddings", 4096}});
  return {
      {"Phi-3-mini-4k-instruct", phi3,
       With(With(Shape(3072, 8192, 32, 32, 32, 4096), original),
            {{"rope_scaling", nullptr},
             {"sliding_window", 2047},
             {"vocab_size", 32064}}),
       3'821'079'552},
      {"Phi-3-mini-128k-instruct", phi3,
       With(With(Shape(3072, 8192, 32, 32, 32, 131072), original),
            {{"rope_scaling", LongRope(48)},
             {"sliding_window", 262144},
             {"vocab_size", 32064}}),
       3'821'079'552},
      {"Phi-3-medium-128k-instruct", phi3,
       With(With(Shape(5120, 17920, 40, 40, 10, 131072), original),
            {{"rope_scaling", LongRope(64)},
             {"sliding_window", 131072},
             {"vocab_size", 32064}}),
       13'960'238'080},
      {"Phi-3.5-MoE-instruct", "PhiMoEForCausalLM",
       With(Shape(4096, 6400, 32, 32, 8, 131072),
            {{"attention_bias", true},
             {"lm_head_bias", true},
             {"num_local_experts", 16},
             {"num_experts_per_tok", 2},
             {"router_jitter_noise", 0.01},
             {"rope_scaling", moe_scaling},
             {"rope_theta", 10000.0},
             {"sliding_window", 131072},
             {"vocab_size", 32064}}),
       41'873'153'344, 41'873'153'344 - 14 * Experts(32, 4096, 6400)},
  };
}

std::vector<Entry> QwenModels() {
  const std::string qwen2 = "Qwen2ForCausalLM";
  const std::string qwen3 = "Qwen3ForCausalLM";
  const std::string moe = "Qwen3MoeForCausalLM";
  const Json tied = {{"tie_word_embeddings", true}};
  const Json wide = {{"vocab_size", 152064}};
  const auto experts = [](int size) {
    return Json{{"decoder_sparse_step", 1},
                {"mlp_only_layers", Json::array()},
                {"moe_intermediate_size", size},
                {"norm_topk_prob", true},
                {"num_experts", 128},
                {"num_experts_per_tok", 8}};
  };
  return {
      {"Qwen2.5-0.5B", qwen2, With(Shape(896, 4864, 24, 14, 2, 32768), tied),
       494'032'768},
      {"Qwen2.5-1.5B", qwen2, With(Shape(1536, 8960, 28, 12, 2, 32768), tied),
       1'543'714'304},
      {"Qwen2.5-3B", qwen2, With(Shape(2048, 11008, 36, 16, 2, 32768), tied),
       3'085'938'688},
      {"Qwen2.5-7B", qwen2, With(Shape(3584, 18944, 28, 28, 4, 131072), wide),
       7'615'616'512},
      {"Qwen2.5-14B", qwen2, With(Shape(5120, 13824, 48, 40, 8, 131072), wide),
       14'770'033'664},
      {"Qwen2.5-32B", qwen2, With(Shape(5120, 27648, 64, 40, 8, 131072), wide),
       32'763'876'352},
      {"Qwen2.5-72B", qwen2, With(Shape(8192, 29568, 80, 64, 8, 131072), wide),
       72'706'203'648},
      {"Qwen3-0.6B", qwen3, With(Shape(1024, 3072, 28, 16, 8, 40960), tied),
       596'049'920},
      {"Qwen3-1.7B", qwen3, With(Shape(2048, 6144, 28, 16, 8, 40960), tied),
       1'720'574'976},
      {"Qwen3-4B", qwen3, With(Shape(2560, 9728, 36, 32, 8, 40960), tied),
       4'022'468'096},
      {"Qwen3-8B", qwen3, Shape(4096, 12288, 36, 32, 8, 40960), 8'190'735'360},
      {"Qwen3-14B", qwen3, Shape(5120, 17408, 40, 40, 8, 40960),
       14'768'307'200},
      {"Qwen3-32B", qwen3, Shape(5120, 25600, 64, 64, 8, 40960),
       32'762'123'264},
      {"Qwen3-30B-A3B", moe,
       With(Shape(2048, 6144, 48, 32, 4, 40960), experts(768)), 30'532'122'624,
       30'532'122'624 - 120 * Experts(48, 2048, 768)},
      {"Qwen3-235B-A22B", moe,
       With(Shape(4096, 12288, 94, 64, 4, 40960), experts(1536)),
       235'093'634'560, 235'093'634'560 - 120 * Experts(94, 4096, 1536)},
  };
}

}  // namespace

std::vector<PublishedModel> PublishedModels() {
  std::vector<PublishedModel> models;
  for (const auto& entries :
       {LlamaModels(), MistralModels(), PhiModels(), QwenModels()}) {
    for (const Entry& entry : entries) {
      models.push_back(
          {.name = entry.name,
           .architecture = entry.architecture,
           .config_json =
               With(FamilyFields(entry.architecture), entry.fields).dump(),
           .num_parameters = entry.num_parameters,
           .num_active_parameters = entry.num_active_parameters == 0
                                        ? entry.num_parameters
                                        : entry.num_active_parameters});
    }
  }
  return models;
}

PublishedModel FindPublishedModel(std::string_view name) {
  for (const PublishedModel& model : PublishedModels()) {
    if (model.name == name) return model;
  }
  WITAN_CHECK(false, "no published model {}", name);
}

ModelConfig PublishedConfig(std::string_view name) {
  const auto config = ParseModelConfig(FindPublishedModel(name).config_json);
  WITAN_CHECK(config.ok(), "{}: {}", name, config.status().ToString());
  return *config;
}

}  // namespace witan
