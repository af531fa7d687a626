#include "model/adapter.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/testing/temp_directory.h"
#include "tests/testing/test_paths.h"
#include "tests/testing/tiny_adapter.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;

Json PlainConfig() {
  return {{"peft_type", "LORA"},
          {"r", 4},
          {"lora_alpha", 8},
          {"bias", "none"},
          {"use_dora", false}};
}

std::string ErrorOf(const Json& config) {
  const auto parsed = ParseAdapterConfig(config.dump());
  return parsed.ok() ? "" : std::string(parsed.status().message());
}

TEST(AdapterConfigTest, WhatChangesTheComputationAndIsNotServedIsRefused) {
  ASSERT_EQ(ErrorOf(PlainConfig()), "");
  const std::pair<std::string, Json> fields[] = {
      {"peft_type", "IA3"},
      {"peft_type", 7},
      {"r", 0},
      {"r", 513},
      {"r", "4"},
      {"lora_alpha", 0},
      {"lora_alpha", -1},
      {"lora_alpha", nullptr},
      {"bias", "all"},
      {"use_dora", true},
      {"use_rslora", "yes"},
      {"lora_bias", true},
      {"fan_in_fan_out", true},
      {"modules_to_save", {"lm_head"}},
      {"trainable_token_indices", {1, 2}},
      {"target_parameters", {"mlp.experts.down_proj"}},  // of which PEFT?
      {"target_parameters", "mlp.experts.down_proj"},
      {"target_parameters", {1}},
      {"layer_replication", Json::array({Json::array({0, 1})})},
      {"init_lora_weights", "pissa"},
      {"init_lora_weights", "olora"},
      {"alpha_pattern", {{"q_proj", 0}}},
      {"alpha_pattern", {{"q_proj", "x"}}},
      {"alpha_pattern", {{"layers.*.q_proj", 4}}},
      {"alpha_pattern", {"q_proj"}},
  };
  for (const auto& [field, value] : fields) {
    Json config = PlainConfig();
    config[field] = value;
    EXPECT_THAT(ErrorOf(config), AllOf(HasSubstr(field), HasSubstr("allowed")))
        << value;
  }
}

TEST(AdapterConfigTest, StackedExpertsOfAPeftThatTransposedThemAreRefused) {
  Json config = PlainConfig();
  config["target_parameters"] = {"mlp.experts.down_proj"};
  for (const Json& version :
       {Json("0.19.0"), Json("0.21.2"), Json("0.20.1.dev0@abc"), Json("1.0")}) {
    config["peft_version"] = version;
    EXPECT_EQ(ErrorOf(config), "") << version;
  }
  for (const Json& version :
       {Json("0.18.1"), Json("0.9"), Json(""), Json("new"), Json(21)}) {
    config["peft_version"] = version;
    EXPECT_THAT(ErrorOf(config),
                AllOf(HasSubstr("peft_version"), HasSubstr("0.19 or later")))
        << version;
  }
}

TEST(AdapterConfigTest, PatternsThatPeftWritesItselfAreNames) {
  Json config = PlainConfig();
  config["alpha_pattern"] = {{".*\\.gate_up_proj", 16}};
  const auto parsed = ParseAdapterConfig(config.dump());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->alpha_pattern.size(), 1u);
  EXPECT_EQ(parsed->alpha_pattern.front().first, "gate_up_proj");
}

TEST(AdapterConfigTest, WhatChangesNothingIsPassedOver) {
  Json config = PlainConfig();
  config["modules_to_save"] = nullptr;
  config["target_modules"] = {"q_proj"};
  config["task_type"] = "CAUSAL_LM";
  config["lora_dropout"] = 0.1;
  config["init_lora_weights"] = true;
  config["rank_pattern"] = Json::object();
  config["base_model_name_or_path"] = "somewhere/else";
  EXPECT_EQ(ErrorOf(config), "");
}

// The scale of the factors of one weight.
double ScaleOf(const Adapter& adapter, TensorRole role, int64_t layer) {
  for (const AdapterFactors& factors : adapter.factors()) {
    if (factors.role == role && factors.layer == layer) return factors.scale;
  }
  return 0;
}

TEST(AdapterTest, TheScaleIsAlphaByTheRankOrByItsRoot) {
  const ModelConfig base = TinyFamilyConfig("LlamaForCausalLM");
  const TinyAdapter plain(base, {.rank = 6, .alpha = 9});
  const TinyAdapter stabilised(
      base, {.rank = 6, .alpha = 9, .rank_stabilised = true});
  auto adapter = Adapter::Open(plain.directory(), base);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_EQ(ScaleOf(**adapter, TensorRole::kDown, 1), 1.5f);
  EXPECT_EQ((*adapter)->max_rank(), 6);
  adapter = Adapter::Open(stabilised.directory(), base);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_EQ(ScaleOf(**adapter, TensorRole::kDown, 1),
            static_cast<float>(9 / std::sqrt(6.0)));
}

TEST(AdapterTest, EveryAdaptableWeightIsFoundUnderItsName) {
  for (const std::string architecture :
       {"LlamaForCausalLM", "Phi3ForCausalLM", "MixtralForCausalLM",
        "Qwen3MoeForCausalLM", "PhiMoEForCausalLM"}) {
    const ModelConfig base = TinyFamilyConfig(architecture);
    const TinyAdapter directory(base, {.rank = 2});
    const auto adapter = Adapter::Open(directory.directory(), base);
    ASSERT_TRUE(adapter.ok()) << architecture << adapter.status();
    // Attention; gate, up and down, or a router and those of eight experts.
    const size_t per_layer = 4 + (base.has_experts() ? 1 + 3 * 8 : 3);
    EXPECT_EQ((*adapter)->factors().size(), 2 * per_layer) << architecture;
  }
}

TEST(AdapterTest, PartsOfAFusedWeightShareOneFactorAndDivideTheOther) {
  const ModelConfig base = TinyFamilyConfig("Phi3ForCausalLM");
  const TinyAdapter directory(base, {.rank = 2});
  const auto adapter = Adapter::Open(directory.directory(), base);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  std::map<TensorRole, AdapterFactors> first_layer;
  for (const AdapterFactors& factors : (*adapter)->factors()) {
    if (factors.layer == 0) first_layer[factors.role] = factors;
  }
  const AdapterFactors& query = first_layer.at(TensorRole::kQuery);
  const AdapterFactors& key = first_layer.at(TensorRole::kKey);
  const AdapterFactors& value = first_layer.at(TensorRole::kValue);
  EXPECT_EQ(query.a, key.a);
  EXPECT_EQ(key.b, value.b);
  EXPECT_EQ(query.first_row, 0);
  EXPECT_EQ(key.first_row, base.num_heads * base.head_dim);
  EXPECT_EQ(value.first_row,
            (base.num_heads + base.num_kv_heads) * base.head_dim);
}

TEST(AdapterTest, TheContentHashTellsAdaptersApart) {
  const ModelConfig base = TinyModelConfig();
  const TinyAdapter one(base, {.seed = 1}), same(base, {.seed = 1}),
      other(base, {.seed = 2}), scaled(base, {.alpha = 17, .seed = 1});
  const auto hash = [&base](const TinyAdapter& adapter) {
    return (*Adapter::Open(adapter.directory(), base))->content_hash();
  };
  EXPECT_EQ(hash(one), hash(same));
  EXPECT_NE(hash(one), hash(other));
  EXPECT_NE(hash(one), hash(scaled));
}

Json ConfigOfStackedExperts(const std::vector<std::string>& parameters) {
  Json config = PlainConfig();
  config["target_parameters"] = parameters;
  config["peft_version"] = "0.21.2";
  return config;
}

// Writes an adapter with these tensors; what Open says of it.
std::string ErrorOfTensors(
    const std::map<std::string, std::vector<int64_t>>& shapes,
    const Json& config = PlainConfig()) {
  const TempDirectory directory;
  std::map<std::string, StoredTensor> tensors;
  for (const auto& [name, shape] : shapes) {
    int64_t size = 1;
    for (const int64_t n : shape) size *= n;
    tensors[name] = {"F32", shape, std::string(4 * size, '\0')};
  }
  directory.Write("adapter_model.safetensors", SafetensorsFile(tensors));
  directory.Write("adapter_config.json", config.dump());
  const auto adapter = Adapter::Open(directory.path(), TinyModelConfig());
  return adapter.ok() ? "" : std::string(adapter.status().message());
}

TEST(AdapterTest, TensorsThatDoNotFitAreRefusedByName) {
  const std::string query = "base_model.model.model.layers.0.self_attn.q_proj";
  const std::string a = query + ".lora_A.weight", b = query + ".lora_B.weight";
  EXPECT_EQ(ErrorOfTensors({{a, {4, 64}}, {b, {128, 4}}}), "");
  EXPECT_THAT(ErrorOfTensors({{a, {4, 64}}}),
              AllOf(HasSubstr(b), HasSubstr("missing")));
  EXPECT_THAT(ErrorOfTensors({{a, {4, 63}}, {b, {128, 4}}}),
              AllOf(HasSubstr(a), HasSubstr("[4, 64]")));
  EXPECT_THAT(ErrorOfTensors({{a, {4, 64}}, {b, {4, 128}}}),
              AllOf(HasSubstr(b), HasSubstr("[128, 4]")));
  EXPECT_THAT(ErrorOfTensors({{a, {8, 64}}, {b, {128, 8}}}),
              AllOf(HasSubstr("rank 8"), HasSubstr("r of")));
  EXPECT_THAT(ErrorOfTensors({{a, {0, 64}}, {b, {128, 0}}}),
              HasSubstr("rank from 1"));
  EXPECT_THAT(ErrorOfTensors({}), HasSubstr("0 of 0"));
  for (const std::string name :
       {"model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight",
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude"}) {
    EXPECT_THAT(ErrorOfTensors({{a, {4, 64}}, {b, {128, 4}}, {name, {4, 64}}}),
                HasSubstr(name));
  }
}

TEST(AdapterTest, ExpertsOfAStackedTensorHaveRowsOfOneFactorAndColumns) {
  const std::string source =
      SourcePath("tests/goldens/adapters/mixtral-stacked");
  const auto base =
      ReadModelConfig(SourcePath("tests/goldens/families/mixtral"));
  ASSERT_TRUE(base.ok()) << base.status();
  const auto adapter = Adapter::Open(source, *base);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  int num_expert_factors = 0;
  for (const AdapterFactors& factors : (*adapter)->factors()) {
    EXPECT_EQ(factors.rank, 4);
    if (factors.expert < 0) {
      EXPECT_EQ(factors.b_column_step, 1);
      continue;
    }
    ++num_expert_factors;
    EXPECT_EQ(factors.a_first_row, 4 * factors.expert);
    EXPECT_EQ(factors.b_first_column, factors.expert);
    EXPECT_EQ(factors.b_column_step, base->num_experts);
    EXPECT_EQ(factors.first_row, factors.role == TensorRole::kExpertUp
                                     ? base->intermediate_size
                                     : 0);
  }
  EXPECT_EQ(num_expert_factors, 2 * 3 * base->num_experts);
}

TEST(AdapterTest, StackedExpertsThatDoNotFitAreRefusedByName) {
  const ModelConfig base = TinyModelConfig();
  const int64_t num_ranks = 4 * base.num_experts;
  const int64_t hidden = base.hidden_size, ffn = base.intermediate_size;
  const std::string experts = "base_model.model.model.layers.0.mlp.experts";
  const std::string a = experts + ".lora_A.weight";
  const std::string b = experts + ".lora_B.weight";
  const std::string inner_a = experts + ".base_layer.lora_A.weight";
  const std::string inner_b = experts + ".base_layer.lora_B.weight";
  const Json down = ConfigOfStackedExperts({"mlp.experts.down_proj"});
  const Json gate_up = ConfigOfStackedExperts({"mlp.experts.gate_up_proj"});
  const Json both = ConfigOfStackedExperts({"gate_up_proj", "down_proj"});
  EXPECT_EQ(
      ErrorOfTensors({{a, {num_ranks, ffn}}, {b, {hidden, num_ranks}}}, down),
      "");
  EXPECT_EQ(ErrorOfTensors(
                {{a, {num_ranks, hidden}}, {b, {2 * ffn, num_ranks}}}, gate_up),
            "");
  EXPECT_EQ(ErrorOfTensors({{a, {num_ranks, ffn}},
                            {b, {hidden, num_ranks}},
                            {inner_a, {num_ranks, hidden}},
                            {inner_b, {2 * ffn, num_ranks}}},
                           both),
            "");
  // Without the config's word nobody knows which parameter it is.
  EXPECT_THAT(ErrorOfTensors({{a, {num_ranks, ffn}}, {b, {hidden, num_ranks}}}),
              HasSubstr(a));
  // As PEFT before 0.19 had them.
  EXPECT_THAT(
      ErrorOfTensors({{a, {num_ranks, hidden}}, {b, {ffn, num_ranks}}}, down),
      AllOf(HasSubstr(a), HasSubstr(fmt::format("{}]", ffn))));
  EXPECT_THAT(
      ErrorOfTensors({{a, {num_ranks + 1, ffn}}, {b, {hidden, num_ranks + 1}}},
                     down),
      AllOf(HasSubstr(a), HasSubstr("experts")));
  EXPECT_THAT(ErrorOfTensors({{a, {0, ffn}}, {b, {hidden, 0}}}, down),
              HasSubstr("rank from 1"));
  // One weight changed in both forms.
  const std::string one =
      "base_model.model.model.layers.0.block_sparse_moe.experts.3.w2";
  EXPECT_THAT(ErrorOfTensors({{a, {num_ranks, ffn}},
                              {b, {hidden, num_ranks}},
                              {one + ".lora_A.weight", {4, ffn}},
                              {one + ".lora_B.weight", {hidden, 4}}},
                             down),
              HasSubstr("two pairs"));
}

TEST(AdapterTest, WithoutItsFilesThereIsNone) {
  const TempDirectory directory;
  EXPECT_TRUE(absl::IsNotFound(
      Adapter::Open(directory.path(), TinyModelConfig()).status()));
  directory.Write("adapter_config.json", PlainConfig().dump());
  EXPECT_TRUE(absl::IsNotFound(
      Adapter::Open(directory.path(), TinyModelConfig()).status()));
}

}  // namespace
}  // namespace witan
