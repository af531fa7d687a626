// config.json and generation_config.json. A config that is accepted keeps every
// promise that the rest of the system relies on, and written again and read
// again it is the same.

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "model/config_identity.h"
#include "model/families.h"
#include "model/generation_config.h"
#include "model/memory_plan.h"
#include "tests/fuzz/target.h"
#include "tests/testing/tiny_model.h"

namespace witan::fuzz {
namespace {

void CheckModel(const ModelConfig& config, Promises* promises) {
  const std::pair<int64_t, int64_t> sizes[] = {
      {config.hidden_size, kMaxHiddenSize},
      {config.intermediate_size, kMaxIntermediateSize},
      {config.num_layers, kMaxLayers},
      {config.num_heads, kMaxAttentionHeads},
      {config.num_kv_heads, config.num_heads},
      {config.head_dim, kMaxHeadDim},
      {config.num_experts, kMaxExperts},
      {config.experts_per_token,
       std::min(config.num_experts, kMaxExpertsPerToken)},
      {config.vocab_size, kMaxVocabSize},
      {config.max_context_tokens, kMaxContextTokens},
      {NumTensors(config), kMaxTensors}};
  for (const auto& [size, max] : sizes) {
    promises->Expect(size >= 1 && size <= max, "sizes are within limits");
  }
  promises->Expect(
      config.sliding_window >= 0 && config.sliding_window <= kMaxContextTokens,
      "the sliding window is within limits");
  promises->Expect(config.num_heads % config.num_kv_heads == 0,
                   "KV heads divide query heads");
  promises->Expect(config.head_dim % 2 == 0, "head_dim is even");
  promises->Expect(
      config.rope.theta >= kMinRopeTheta && config.rope.theta <= kMaxRopeTheta,
      "rope_theta is within limits");
  promises->Expect(
      config.norm_epsilon > 0 && config.norm_epsilon <= kMaxRmsNormEpsilon,
      "epsilon is within limits");
  const EngineLimits limits = {.max_context_tokens = config.max_context_tokens,
                               .max_step_tokens = kMaxStepTokens,
                               .max_sequences = kMaxStepSequences,
                               .num_blocks = kMaxBlocks};
  promises->Expect(
      MakeMemoryPlan(config, Layout{3, 2}, 5, limits, kMaxThreadsPerRank)
              .total_bytes() > 0,
      "the memory plan does not overflow");
  const auto again = ParseModelConfig(ConfigJson(config));
  promises->Expect(again.ok() && *again == config,
                   "what was read can be written and read again");
  const std::string text = ConfigText(config);
  promises->Expect(text.size() <= kMaxConfigTextBytes,
                   "a rank can report its config");
  promises->Expect(ConfigDifference(text, text).empty(),
                   "a config does not differ from itself");
}

void CheckGeneration(const absl::StatusOr<GenerationConfig>& config,
                     Promises* promises) {
  if (!config.ok()) {
    promises->Expect(config.status().message().size() < 1000,
                     "a refusal is short");
    const Outcome refused = Promises().Refused(config.status());
    promises->Expect(refused.broken.empty(), refused.broken);
    return;
  }
  for (const TokenId id : config->eos_token_ids) {
    promises->Expect(id >= 0 && id < kMaxVocabSize, "end tokens are tokens");
  }
  promises->Expect(config->temperature.value_or(0) >= 0, "temperature >= 0");
  promises->Expect(config->top_k.value_or(0) >= 0, "top_k >= 0");
  promises->Expect(config->top_p.value_or(1) > 0, "top_p > 0");
  promises->Expect(config->top_p.value_or(1) <= 1, "top_p <= 1");
  promises->Expect(config->min_p.value_or(0) >= 0, "min_p >= 0");
  promises->Expect(config->min_p.value_or(0) <= 1, "min_p <= 1");
  promises->Expect(config->repetition_penalty.value_or(1) > 0,
                   "repetition_penalty > 0");
}

}  // namespace

Outcome RunConfig(std::string_view input) {
  static const std::string good = ConfigJson(TinyModelConfig());
  Promises promises;
  const std::string text(input);
  CheckGeneration(ParseGenerationConfig("", text), &promises);
  CheckGeneration(ParseGenerationConfig(text, good), &promises);
  // Whatever a rank reports is compared with the coordinator's own.
  const std::string own = ConfigText(TinyModelConfig());
  promises.Expect(ConfigDifference(text, own).empty() == (text == own),
                  "another text is another config");
  const auto config = ParseModelConfig(text);
  if (!config.ok()) {
    promises.Expect(config.status().message().size() < 1000,
                    "a refusal is short");
    return promises.Refused(config.status());
  }
  CheckModel(*config, &promises);
  return promises.Accepted();
}

std::vector<std::string> ConfigSeeds() {
  ModelConfig other = TinyModelConfig();
  other.sliding_window = 64;
  other.windowed_layers = {true, true};
  other.tie_word_embeddings = true;
  other.weights = DType::kF16;
  other.rope.theta = 1e6;
  return {
      ConfigJson(TinyModelConfig()),
      ConfigJson(other),
      R"({"eos_token_id":[2,5],"do_sample":true,"temperature":0.7,"top_k":40,)"
      R"("top_p":0.9,"min_p":0.05,"repetition_penalty":1.1})",
      R"({"eos_token_id":null,"do_sample":false})",
      R"({"architectures":["MixtralForCausalLM"],"hidden_size":64,)"
      R"("intermediate_size":96,"num_hidden_layers":2,)"
      R"("num_attention_heads":8,"num_key_value_heads":2,)"
      R"("num_local_experts":8,"num_experts_per_tok":2,"vocab_size":320,)"
      R"("max_position_embeddings":512,"rms_norm_eps":1e-5,)"
      R"("dtype":"float32","rope_parameters":{"rope_type":"default",)"
      R"("rope_theta":10000.0},"hidden_act":"silu"})",
  };
}

void ReshapeConfig(std::string* input, uint64_t seed) {
  // Another value for one field, or one field less or more.
  static constexpr const char* kFields[] = {"attention_bias",
                                            "do_sample",
                                            "dtype",
                                            "eos_token_id",
                                            "head_dim",
                                            "min_p",
                                            "quantization_config",
                                            "repetition_penalty",
                                            "rope_parameters",
                                            "rope_scaling",
                                            "sliding_window",
                                            "temperature",
                                            "top_k",
                                            "top_p"};
  static constexpr const char* kValues[] = {"0",
                                            "1",
                                            "-1",
                                            "2",
                                            "3",
                                            "7",
                                            "64",
                                            "1024",
                                            "2147483648",
                                            "9223372036854775807",
                                            "9223372036854775808",
                                            "18446744073709551616",
                                            "0.5",
                                            "1e-5",
                                            "1e308",
                                            "-0.0",
                                            "null",
                                            "true",
                                            "false",
                                            "\"\"",
                                            "\"float32\"",
                                            "[]",
                                            "[1,2]",
                                            "[[[]]]",
                                            "{}",
                                            "{\"rope_theta\":5}"};
  using Json = nlohmann::ordered_json;
  if (input->size() > 4096) return;  // dump() recurses
  Json json = Json::parse(*input, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return;
  std::mt19937_64 random(seed);
  std::vector<std::string> names(std::begin(kFields), std::end(kFields));
  for (const auto& [name, value] : json.items()) names.push_back(name);
  const std::string& name = names[random() % names.size()];
  if (random() % 8 == 0) {
    json.erase(name);
  } else {
    json[name] = Json::parse(kValues[random() % std::size(kValues)]);
  }
  *input = json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace witan::fuzz
