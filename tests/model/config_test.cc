#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "base/status.h"
#include "model/families.h"
#include "model/generation_config.h"
#include "tests/testing/temp_directory.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using Json = nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// The values that Mistral AI published with Mixtral-8x7B-v0.1.
constexpr const char* kMixtral8x7B = R"({
  "architectures": ["MixtralForCausalLM"],
  "attention_dropout": 0.0,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "hidden_act": "silu",
  "hidden_size": 4096,
  "initializer_range": 0.02,
  "intermediate_size": 14336,
  "max_position_embeddings": 32768,
  "model_type": "mixtral",
  "num_attention_heads": 32,
  "num_experts_per_tok": 2,
  "num_hidden_layers": 32,
  "num_key_value_heads": 8,
  "num_local_experts": 8,
  "output_router_logits": false,
  "rms_norm_eps": 1e-05,
  "rope_theta": 1000000.0,
  "router_aux_loss_coef": 0.02,
  "sliding_window": null,
  "tie_word_embeddings": false,
  "torch_dtype": "bfloat16",
  "transformers_version": "4.36.0.dev0",
  "use_cache": true,
  "vocab_size": 32000
})";

Json TinyJson() { return Json::parse(ConfigJson(TinyModelConfig())); }

std::string ErrorOf(const std::string& text) {
  const auto config = ParseModelConfig(text);
  if (config.ok()) return "accepted";
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(MessageOf(config.status()));
}

int64_t NumParameters(const ModelConfig& config) {
  int64_t num_parameters = 0;
  for (const TensorSlice& tensor : ExpectedTensors(config)) {
    num_parameters += tensor.rows.size() * tensor.columns.size();
  }
  return num_parameters;
}

TEST(ConfigTest, ReadsMixtral8x7BAndCountsItsPublishedParameters) {
  const auto config = ParseModelConfig(kMixtral8x7B);
  ASSERT_TRUE(config.ok()) << config.status();
  ModelConfig expected;
  expected.architecture = "MixtralForCausalLM";
  expected.hidden_size = 4096;
  expected.intermediate_size = 14336;
  expected.num_layers = 32;
  expected.num_heads = 32;
  expected.num_kv_heads = 8;
  expected.head_dim = 128;
  expected.num_experts = 8;
  expected.experts_per_token = 2;
  expected.vocab_size = 32000;
  expected.max_context_tokens = 32768;
  expected.sliding_window = 0;
  expected.norm_epsilon = 1e-5;
  expected.rope.theta = 1e6;
  expected.rope.rotary_dim = 128;
  expected.tie_word_embeddings = false;
  expected.weights = DType::kBF16;
  EXPECT_EQ(*config, expected);
  EXPECT_EQ(NumParameters(*config), 46'702'792'704);
  EXPECT_EQ(ExpectedTensors(*config).size(), 995u);
  EXPECT_EQ(NumTensors(*config), 995);
}

TEST(ConfigTest, ReadsMixtral8x22BAndCountsItsPublishedParameters) {
  Json json = Json::parse(kMixtral8x7B);
  json.update({{"hidden_size", 6144},
               {"intermediate_size", 16384},
               {"max_position_embeddings", 65536},
               {"num_attention_heads", 48},
               {"num_hidden_layers", 56}});
  const auto config = ParseModelConfig(json.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(NumParameters(*config), 140'620'634'112);
}

TEST(ConfigTest, ReadsTheSpellingOfNewerWriters) {
  Json json = TinyJson();
  json.erase("torch_dtype");
  json.erase("rope_theta");
  json["dtype"] = "float16";
  json["head_dim"] = nullptr;
  json["num_attention_heads"] = 4;
  json["rope_parameters"] = {{"rope_theta", 25000}, {"rope_type", "default"}};
  json["rope_scaling"] = nullptr;
  json["quantization_config"] = nullptr;
  json["attention_bias"] = false;
  json["sliding_window"] = 128;
  const auto config = ParseModelConfig(json.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->weights, DType::kF16);
  EXPECT_EQ(config->rope.theta, 25000);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->sliding_window, 128);
}

TEST(ConfigTest, FieldsThatTheArchitectureHasADefaultForMayBeAbsent) {
  Json json = TinyJson();
  for (const char* field :
       {"hidden_act", "sliding_window", "tie_word_embeddings",
        "num_key_value_heads", "rope_theta"}) {
    json.erase(field);
  }
  const auto config = ParseModelConfig(json.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  ModelConfig expected = TinyModelConfig();
  expected.num_kv_heads = expected.num_heads;
  expected.rope.theta = 1e6;
  EXPECT_EQ(*config, expected);
}

TEST(ConfigTest, EveryFamilySaysInItsFileWhatItsLayersDo) {
  for (const std::string& architecture : KnownArchitectures()) {
    const ModelConfig config = TinyFamilyConfig(architecture);
    const auto read = ParseModelConfig(ConfigJson(config));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, config) << architecture;
  }
}

TEST(ConfigTest, TheUpperLayersOfQwenHaveAWindowIfItIsInUse) {
  Json json = Json::parse(ConfigJson(TinyFamilyConfig("Qwen2ForCausalLM")));
  json.erase("layer_types");
  json["num_hidden_layers"] = 4;
  json["max_window_layers"] = 3;
  json["use_sliding_window"] = true;
  auto config = ParseModelConfig(json.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->windowed_layers, ElementsAre(false, false, false, true));
  EXPECT_EQ(config->WindowOf(2), 0);
  EXPECT_EQ(config->WindowOf(3), 40);
  json["use_sliding_window"] = false;
  config = ParseModelConfig(json.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->sliding_window, 0);
  EXPECT_EQ(config->WindowOf(3), 0);
}

TEST(ConfigTest, ReadsScaledRotationsInBothSpellings) {
  const Json llama3 = {{"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 128},
                       {"rope_type", "llama3"}};
  RopeParameters expected = TinyModelConfig().rope;
  expected.scaling = RopeScaling::kLlama3;
  expected.factor = 8;
  expected.low_freq_factor = 1;
  expected.high_freq_factor = 4;
  expected.original_context_tokens = 128;
  Json json = TinyJson();
  json["rope_scaling"] = llama3;
  auto config = ParseModelConfig(json.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope, expected);
  json.erase("rope_scaling");
  json["rope_parameters"] = llama3;
  config = ParseModelConfig(json.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope, expected);
}

// The figures that Microsoft published with Phi-3-mini-128k.
TEST(ConfigTest, TheAttentionFactorOfLongRopeComesFromTheContexts) {
  Json json = TinyJson();
  json["max_position_embeddings"] = 131072;
  json["original_max_position_embeddings"] = 4096;
  json["rope_scaling"] = {{"type", "longrope"},
                          {"short_factor", std::vector<double>(8, 1.1)},
                          {"long_factor", std::vector<double>(8, 2.5)}};
  auto config = ParseModelConfig(json.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_NEAR(config->rope.attention_factor, 1.1902380714238083, 1e-15);
  EXPECT_EQ(config->rope.long_attention_factor, config->rope.attention_factor);
  EXPECT_EQ(config->rope.original_context_tokens, 4096);
  json["rope_scaling"]["long_mscale"] = 1.25;
  json["rope_scaling"]["short_mscale"] = 1.1;
  config = ParseModelConfig(json.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope.attention_factor, 1.1);
  EXPECT_EQ(config->rope.long_attention_factor, 1.25);
  json["rope_scaling"]["short_factor"] = {1, 2};
  EXPECT_THAT(ErrorOf(json.dump()),
              AllOf(HasSubstr("short_factor"), HasSubstr("a list of 8")));
}

TEST(ConfigTest, EveryRequiredFieldIsMissedByName) {
  for (const char* field :
       {"architectures", "hidden_size", "intermediate_size",
        "num_hidden_layers", "num_attention_heads", "num_local_experts",
        "num_experts_per_tok", "vocab_size", "max_position_embeddings",
        "rms_norm_eps", "torch_dtype"}) {
    Json json = TinyJson();
    json.erase(field);
    EXPECT_THAT(ErrorOf(json.dump()),
                AllOf(HasSubstr("config.json"), HasSubstr(field),
                      HasSubstr("absent"), HasSubstr("allowed is")));
    json[field] = nullptr;
    EXPECT_THAT(ErrorOf(json.dump()),
                AllOf(HasSubstr(field), HasSubstr("absent")));
  }
}

TEST(ConfigTest, EveryIntegerOfAnotherTypeOrRangeIsRefusedByNameAndValue) {
  const std::pair<const char*, int64_t> fields[] = {
      {"hidden_size", kMaxHiddenSize},
      {"intermediate_size", kMaxIntermediateSize},
      {"num_hidden_layers", kMaxLayers},
      {"num_attention_heads", kMaxAttentionHeads},
      {"num_key_value_heads", kMaxAttentionHeads},
      {"head_dim", kMaxHeadDim},
      {"num_local_experts", kMaxExperts},
      {"num_experts_per_tok", kMaxExpertsPerToken},
      {"vocab_size", kMaxVocabSize},
      {"max_position_embeddings", kMaxContextTokens},
      {"sliding_window", kMaxContextTokens},
  };
  for (const auto& [field, max] : fields) {
    const Json absurd[] = {0,
                           -1,
                           max + 1,
                           int64_t{1} << 31,
                           uint64_t{1} << 63,
                           std::numeric_limits<uint64_t>::max(),
                           std::numeric_limits<int64_t>::min(),
                           1.5,
                           64.0,
                           1e300,
                           "64",
                           true,
                           Json::array({64}),
                           Json::object()};
    for (const Json& value : absurd) {
      Json json = TinyJson();
      json[field] = value;
      const std::string shown = value.is_array()    ? "a list of 1 values"
                                : value.is_object() ? "an object of 0 fields"
                                                    : value.dump();
      EXPECT_THAT(
          ErrorOf(json.dump()),
          AllOf(HasSubstr(fmt::format("{} is {},", field, shown)),
                HasSubstr("allowed is an integer from"),
                HasSubstr(fmt::format("to {}", max)), HasSubstr("correct")));
    }
  }
}

TEST(ConfigTest, EveryNumberOfAnotherTypeOrRangeIsRefusedByNameAndValue) {
  for (const char* field : {"rms_norm_eps", "rope_theta"}) {
    for (const Json& value : {Json(0), Json(-1e-5), Json(1e300), Json("1e-5"),
                              Json(false), Json(Json::array())}) {
      Json json = TinyJson();
      json[field] = value;
      EXPECT_THAT(ErrorOf(json.dump()),
                  AllOf(HasSubstr(std::string(field) + " is "),
                        HasSubstr("allowed is a number above")));
    }
    // What Python writes for numbers that JSON does not have, and numbers that
    // no double holds.
    for (const char* value : {"NaN", "Infinity", "-Infinity", "1e999"}) {
      std::string text = TinyJson().dump();
      const std::string key = fmt::format("\"{}\":", field);
      const size_t begin = text.find(key) + key.size();
      text.replace(begin, text.find_first_of(",}", begin) - begin, value);
      EXPECT_THAT(ErrorOf(text), AllOf(HasSubstr("not valid JSON at line 1"),
                                       HasSubstr(field)));
    }
  }
}

TEST(ConfigTest, FieldsThatDisagreeAreRefused) {
  const auto error_with = [](const char* field, const Json& value) {
    Json json = TinyJson();
    json[field] = value;
    return ErrorOf(json.dump());
  };
  EXPECT_THAT(
      error_with("num_key_value_heads", 3),
      AllOf(HasSubstr("num_key_value_heads is 3"),
            HasSubstr("divisor of num_attention_heads"), HasSubstr("is 8")));
  EXPECT_THAT(error_with("num_experts_per_tok", 9),
              AllOf(HasSubstr("num_experts_per_tok is 9"),
                    HasSubstr("num_local_experts, which is 8")));
  EXPECT_THAT(error_with("head_dim", 15),
              AllOf(HasSubstr("head_dim is 15"), HasSubstr("even")));
  EXPECT_THAT(error_with("dtype", "float32"),
              AllOf(HasSubstr("dtype is \"float32\""),
                    HasSubstr("torch_dtype is \"bfloat16\"")));
  EXPECT_THAT(error_with("rope_parameters", {{"rope_theta", 5}}),
              AllOf(HasSubstr("rope_theta is 10000"),
                    HasSubstr("rope_parameters.rope_theta is 5")));
  Json json = TinyJson();
  json.erase("head_dim");
  json["num_attention_heads"] = 6;
  EXPECT_THAT(ErrorOf(json.dump()), AllOf(HasSubstr("head_dim is absent"),
                                          HasSubstr("64"), HasSubstr("6")));
  json["num_attention_heads"] = 64;
  EXPECT_THAT(ErrorOf(json.dump()),
              HasSubstr("head_dim is 1 (hidden_size / num_attention_heads)"));
  json = TinyJson();
  json["num_hidden_layers"] = 1024;
  json["num_local_experts"] = 1024;
  EXPECT_THAT(ErrorOf(json.dump()), AllOf(HasSubstr("num_hidden_layers 1024"),
                                          HasSubstr("num_local_experts 1024"),
                                          HasSubstr("at most 1048576")));
}

TEST(ConfigTest, FeaturesThatAreNotServedAreRefusedByName) {
  const std::pair<const char*, Json> fields[] = {
      {"hidden_act", "gelu"},
      {"hidden_act", 1},
      {"attention_bias", true},
      {"attention_bias", "no"},
      {"mlp_bias", true},
      {"decoder_sparse_step", 2},
      {"mlp_only_layers", {0}},
      {"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}},
      {"rope_scaling", {{"type", "linear"}, {"factor", 0.5}}},
      {"rope_scaling", "linear"},
      {"rope_parameters", {{"rope_theta", 1e4}, {"rope_type", "yarn"}}},
      {"rope_parameters", {{"rope_theta", 1e4}, {"factor", 2}}},
      {"rope_parameters", {{"rope_theta", "x"}}},
      {"partial_rotary_factor", 0.2},
      {"partial_rotary_factor", 1.5},
      {"layer_types", {"full_attention"}},
      {"layer_types", {"full_attention", "linear_attention"}},
      {"rope_parameters", 7},
      {"quantization_config", {{"quant_method", "awq"}}},
      {"tie_word_embeddings", 1},
      {"torch_dtype", "int8"},
      {"torch_dtype", 16},
      {"architectures", "MixtralForCausalLM"},
      {"architectures", Json::array()},
      {"architectures", {"MixtralForCausalLM", "MixtralForCausalLM"}},
      {"architectures", {7}},
  };
  for (const auto& [field, value] : fields) {
    Json json = TinyJson();
    json[field] = value;
    EXPECT_THAT(ErrorOf(json.dump()),
                AllOf(HasSubstr(field), HasSubstr("allowed")));
  }
}

TEST(ConfigTest, LayersWithAWindowNeedItsSize) {
  Json json = TinyJson();
  json["layer_types"] = {"full_attention", "sliding_attention"};
  json["sliding_window"] = nullptr;
  EXPECT_THAT(ErrorOf(json.dump()),
              AllOf(HasSubstr("sliding_window is absent"),
                    HasSubstr("because layers have a window")));
}

TEST(ConfigTest, AnUnknownArchitectureListsTheKnownOnes) {
  Json json = TinyJson();
  json["architectures"] = {"BloomForCausalLM"};
  EXPECT_THAT(ErrorOf(json.dump()),
              AllOf(HasSubstr("BloomForCausalLM"), HasSubstr("not known"),
                    HasSubstr("MixtralForCausalLM")));
  // A name from a file may not reach a terminal as it is.
  json["architectures"] = {"\x1b[2J" + std::string(5000, 'x')};
  const std::string error = ErrorOf(json.dump());
  EXPECT_THAT(error, HasSubstr("\\u001b[2J"));
  EXPECT_LT(error.size(), 500u);
}

TEST(ConfigTest, TextThatIsNoObjectIsRefused) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf("{}{}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf("{\"a\": \"\xff\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf(std::string("{\"a\": \"\0\"}", 10)),
              HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("must be a JSON object"));
  EXPECT_THAT(ErrorOf("7"), HasSubstr("must be a JSON object"));
  EXPECT_THAT(ErrorOf("{\n\"a\": 1,\n\"b\": }"),
              AllOf(HasSubstr("line 3"), HasSubstr("\"b\"")));
  EXPECT_THAT(ErrorOf(R"({"vocab_size": 1, "vocab_size": 2})"),
              AllOf(HasSubstr("vocab_size"), HasSubstr("twice")));
  EXPECT_THAT(ErrorOf(R"({"a": {"b": 1, "b": 2}})"), HasSubstr("\"b\" occurs"));
  EXPECT_THAT(ErrorOf("{\"a\":" + std::string(100000, '[')),
              HasSubstr("nested deeper than 64"));
  EXPECT_THAT(ErrorOf(std::string(kMaxConfigFileBytes + 1, ' ')),
              HasSubstr("at most 1048576"));
}

TEST(ConfigTest, ReadsFromADirectoryAndNamesItInErrors) {
  const TempDirectory directory;
  EXPECT_EQ(ReadModelConfig(directory.path()).status().code(),
            absl::StatusCode::kNotFound);
  directory.Write("config.json", kMixtral8x7B);
  ASSERT_TRUE(ReadModelConfig(directory.path()).ok());
  EXPECT_TRUE(ReadGenerationConfig(directory.path()).ok());
  directory.Write("config.json", "{");
  EXPECT_THAT(
      std::string(MessageOf(ReadModelConfig(directory.path()).status())),
      HasSubstr(directory.path()));
  directory.Write("config.json", kMixtral8x7B);
  directory.Write("generation_config.json", R"({"top_k": -5})");
  EXPECT_THAT(
      std::string(MessageOf(ReadGenerationConfig(directory.path()).status())),
      AllOf(HasSubstr(directory.path()), HasSubstr("top_k is -5")));
}

TEST(GenerationConfigTest, TokensComeFromTheModelWhenItNamesNone) {
  const auto config = ParseGenerationConfig("", kMixtral8x7B);
  ASSERT_TRUE(config.ok()) << config.status();
  GenerationConfig expected;
  expected.eos_token_ids = {2};
  EXPECT_EQ(*config, expected);
}

TEST(GenerationConfigTest, ReadsEveryField) {
  const auto config = ParseGenerationConfig(
      R"({"eos_token_id": [7, 9], "bos_token_id": 3,
          "do_sample": true, "temperature": 0.7, "top_k": 50, "top_p": 0.9,
          "min_p": 0.05, "repetition_penalty": 1.1, "max_length": 4096})",
      kMixtral8x7B);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->eos_token_ids, ElementsAre(7, 9));
  EXPECT_EQ(config->temperature, 0.7f);
  EXPECT_EQ(config->top_k, 50);
  EXPECT_EQ(config->top_p, 0.9f);
  EXPECT_EQ(config->min_p, 0.05f);
  EXPECT_EQ(config->repetition_penalty, 1.1f);
}

TEST(GenerationConfigTest, WithoutSamplingTheTemperatureIsZero) {
  const auto config = ParseGenerationConfig(
      R"({"do_sample": false, "temperature": 0.7, "eos_token_id": -1,
          "top_p": null})",
      kMixtral8x7B);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->temperature, 0.0f);
  EXPECT_THAT(config->eos_token_ids, IsEmpty());
  EXPECT_EQ(config->top_p, std::nullopt);
}

TEST(GenerationConfigTest, AbsurdFieldsAreRefusedByNameAndValue) {
  const std::pair<const char*, const char*> fields[] = {
      {"temperature", "-0.1"},
      {"temperature", "101"},
      {"temperature", "1e-05"},
      {"temperature", "\"hot\""},
      {"top_k", "-1"},
      {"top_k", "2.5"},
      {"top_k", "2147483648"},
      {"top_p", "0"},
      {"top_p", "1.01"},
      {"top_p", "1e-07"},
      {"min_p", "-1"},
      {"min_p", "true"},
      {"repetition_penalty", "0"},
      {"repetition_penalty", "0.0001"},
      {"do_sample", "1"},
      {"eos_token_id", "-2"},
      {"eos_token_id", "9223372036854775808"},
      {"eos_token_id", "\"2\""},
      {"eos_token_id", "1.5"},
  };
  for (const auto& [field, value] : fields) {
    const auto config = ParseGenerationConfig(
        fmt::format(R"({{"{}": {}}})", field, value), kMixtral8x7B);
    ASSERT_FALSE(config.ok()) << field << " " << value;
    EXPECT_THAT(std::string(MessageOf(config.status())),
                AllOf(HasSubstr("generation_config.json"),
                      HasSubstr(fmt::format("{} is {}", field, value)),
                      HasSubstr("allowed is")));
  }
  EXPECT_THAT(
      std::string(MessageOf(
          ParseGenerationConfig("", R"({"eos_token_id": "x"})").status())),
      HasSubstr("config.json: eos_token_id is \"x\""));
  const Json many = {{"eos_token_id", Json(std::vector<int>(129, 1))}};
  EXPECT_THAT(std::string(MessageOf(
                  ParseGenerationConfig(many.dump(), kMixtral8x7B).status())),
              HasSubstr("at most 128"));
}

}  // namespace
}  // namespace witan
