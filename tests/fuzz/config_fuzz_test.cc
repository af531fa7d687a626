// Seeded mutations of config.json and generation_config.json. Whatever the
// text, the parser answers; a config that it accepts keeps every promise that
// the rest of the system relies on. To replay a failure, run the one seed that
// the message names.

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "base/limits.h"
#include "model/families.h"
#include "model/memory_plan.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kNumSeeds = 20000;

constexpr const char* kValues[] = {"0",
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
                                   "1e999",
                                   "-0.0",
                                   "NaN",
                                   "null",
                                   "true",
                                   "\"\"",
                                   "\"float32\"",
                                   "\"\\u0000\"",
                                   "\"\\ud800\"",
                                   "\"\xc3\"",
                                   "[]",
                                   "[1,2]",
                                   "[[[]]]",
                                   "{}",
                                   "{\"rope_theta\":5}",
                                   "{",
                                   "]",
                                   ""};

constexpr const char* kExtraFields[] = {
    "rope_parameters", "rope_scaling",
    "dtype",           "quantization_config",
    "attention_bias",  "generation_missing",
    "do_sample",       "temperature",
    "top_k",           "top_p",
    "min_p",           "repetition_penalty"};

// Replaces or adds the values of one to three fields, as text.
std::string MutateFields(const std::string& good, std::mt19937_64& random) {
  const Json json = Json::parse(good);
  std::map<std::string, std::string> fields;
  std::vector<std::string> names;
  for (const auto& [name, value] : json.items()) {
    fields[name] = value.dump();
    names.push_back(name);
  }
  names.insert(names.end(), std::begin(kExtraFields), std::end(kExtraFields));
  const uint64_t num_mutations = 1 + random() % 3;
  for (uint64_t i = 0; i < num_mutations; ++i) {
    const std::string& name = names[random() % names.size()];
    if (random() % 8 == 0) {
      fields.erase(name);
    } else {
      fields[name] = kValues[random() % std::size(kValues)];
    }
  }
  std::string text = "{";
  for (const auto& [name, value] : fields) {
    if (text.size() > 1) text += ",";
    text += "\"" + name + "\":" + value;
  }
  return text + "}";
}

std::string MutateBytes(std::string text, std::mt19937_64& random) {
  const uint64_t num_mutations = 1 + random() % 4;
  for (uint64_t i = 0; i < num_mutations && !text.empty(); ++i) {
    const size_t at = random() % text.size();
    switch (random() % 4) {
      case 0:
        text[at] = static_cast<char>(random());
        break;
      case 1:
        text.erase(at, random() % 32);
        break;
      case 2:
        text.insert(at, text.substr(random() % text.size(), random() % 32));
        break;
      default:
        text.insert(at, kValues[random() % std::size(kValues)]);
    }
  }
  return text;
}

// What users of an accepted config take for granted.
void CheckPromises(const ModelConfig& config) {
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
    EXPECT_GE(size, 1);
    EXPECT_LE(size, max);
  }
  EXPECT_GE(config.sliding_window, 0);
  EXPECT_LE(config.sliding_window, kMaxContextTokens);
  EXPECT_EQ(config.num_heads % config.num_kv_heads, 0);
  EXPECT_EQ(config.head_dim % 2, 0);
  EXPECT_TRUE(std::isfinite(config.rope_theta) && config.rope_theta > 0);
  EXPECT_TRUE(std::isfinite(config.rms_norm_epsilon) &&
              config.rms_norm_epsilon > 0);
  const EngineLimits limits = {.max_context_tokens = config.max_context_tokens,
                               .max_step_tokens = 512,
                               .max_sequences = 16,
                               .num_blocks = 100};
  EXPECT_GT(MakeMemoryPlan(config, Layout{3, 2}, 5, limits, 2).total_bytes(),
            0);
}

void CheckGeneration(const GenerationConfig& config) {
  for (const TokenId id : config.eos_token_ids) {
    EXPECT_GE(id, 0);
    EXPECT_LT(id, kMaxVocabSize);
  }
  EXPECT_GE(config.temperature.value_or(0), 0);
  EXPECT_GE(config.top_k.value_or(0), 0);
  EXPECT_GT(config.top_p.value_or(1), 0);
  EXPECT_LE(config.top_p.value_or(1), 1);
  EXPECT_GE(config.min_p.value_or(0), 0);
  EXPECT_LE(config.min_p.value_or(0), 1);
  EXPECT_GT(config.repetition_penalty.value_or(1), 0);
}

TEST(ConfigFuzzTest, NoTextCrashesTheParsersOrSlipsThroughThem) {
  const std::string good = ConfigJson(TinyModelConfig());
  int num_accepted = 0;
  for (uint64_t seed = 0; seed < kNumSeeds; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const std::string text =
        seed % 2 == 0 ? MutateFields(good, random) : MutateBytes(good, random);
    const auto config = ParseModelConfig(text);
    if (config.ok()) {
      ++num_accepted;
      CheckPromises(*config);
    } else {
      EXPECT_LT(config.status().message().size(), 1000u);
    }
    for (const auto& generation :
         {ParseGenerationConfig("", text), ParseGenerationConfig(text, good)}) {
      if (generation.ok()) {
        CheckGeneration(*generation);
      } else {
        EXPECT_LT(generation.status().message().size(), 1000u);
      }
    }
    if (HasFailure()) return;
  }
  EXPECT_GT(num_accepted, 100);
  EXPECT_LT(num_accepted, static_cast<int>(kNumSeeds) / 2);
}

}  // namespace
}  // namespace witan
