// Models in the GGUF format against the Hugging Face directories that they are
// made of. The files are put together here of recipes that gguf-py's writer
// left (tests/goldens/make_gguf_goldens.py), and are its files byte for byte.

#include "model/gguf_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "base/status.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/families.h"
#include "model/generation_config.h"
#include "model/gguf_config.h"
#include "model/manifest.h"
#include "tests/testing/gguf_file.h"
#include "tests/testing/temp_directory.h"
#include "tests/testing/test_paths.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string BytesOfHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

std::string DirectoryOf(const std::string& family) {
  return SourcePath("tests/goldens/families/" + family);
}

// The file of tests/goldens/gguf/FAMILY.json.
std::string FileOf(const std::string& family) {
  std::ifstream in(SourcePath("tests/goldens/gguf/" + family + ".json"));
  const nlohmann::json recipe = nlohmann::json::parse(in);
  const auto source = Checkpoint::Open(DirectoryOf(family)).value();
  std::string file = BytesOfHex(recipe["header"]);
  for (const auto& pieces : recipe["tensors"]) {
    for (const auto& piece : pieces) {
      const std::string name = piece[0];
      if (name.empty()) {
        file += BytesOfHex(piece[1]);
        continue;
      }
      const auto* bits =
          reinterpret_cast<const char*>(source->Find(name)->data.data()) +
          piece[1].get<size_t>() * 2;
      if (!piece[3].get<bool>()) {
        file.append(bits, piece[2].get<size_t>() * 2);
        continue;
      }
      for (size_t i = 0; i < piece[2].get<size_t>(); ++i) {
        file += std::string(2, '\0') + std::string(bits + i * 2, 2);
      }
    }
    file.resize((file.size() + 31) / 32 * 32);
  }
  Sha256 hash;
  hash.Update(file.data(), file.size());
  EXPECT_EQ(hash.Finish(), recipe["sha256"]) << family;
  return file;
}

std::string WeightsIdOf(const ModelConfig& config, const Checkpoint& checkpoint,
                        Layout layout) {
  Manifest manifest(config);
  for (int rank = 0; rank < layout.num_ranks(); ++rank) {
    const auto hashes =
        HashPieces(config, checkpoint, MakeRankShard(config, layout, rank),
                   /*num_threads=*/2, {});
    EXPECT_TRUE(manifest.Add(rank, *hashes).ok());
  }
  return manifest.WeightsId().value();
}

class FamilyTest : public testing::TestWithParam<std::string> {
 protected:
  TempDirectory directory_;
  const std::string path_ = directory_.Write("tiny.gguf", FileOf(GetParam()));
  const ModelConfig hugging_face_ =
      ReadModelConfig(DirectoryOf(GetParam())).value();
};

// `expected` without what the format does not keep.
ModelConfig KeptBy(ModelConfig expected) {
  if (expected.architecture == "Qwen2ForCausalLM") {
    expected.sliding_window = 0;
    expected.windowed_layers.clear();
  }
  if (expected.architecture == "Qwen3MoeForCausalLM") {
    expected.routing.kind = RoutingKind::kSoftmaxNormalised;
  }
  if (expected.architecture == "PhimoeForCausalLM") {
    expected.architecture = "PhiMoEForCausalLM";
    expected.routing.jitter = 0.01F;
  }
  return expected;
}

TEST_P(FamilyTest, HasTheConfigOfItsDirectory) {
  auto config = ReadModelConfig(path_);
  ASSERT_TRUE(config.ok()) << config.status();
  ModelConfig expected = KeptBy(hugging_face_);
  if (expected.architecture == "PhiMoEForCausalLM") {
    // short_mscale and long_mscale: the converter computes another factor.
    expected.rope.attention_factor = config->rope.attention_factor;
    expected.rope.long_attention_factor = config->rope.long_attention_factor;
  }
  // Kept as float32, of which as many digits as needed are shown.
  EXPECT_NEAR(config->rope.attention_factor, expected.rope.attention_factor,
              1e-6);
  config->rope.attention_factor = expected.rope.attention_factor;
  config->rope.long_attention_factor = expected.rope.long_attention_factor;
  for (auto* factors :
       {&config->rope.short_factors, &config->rope.long_factors,
        &expected.rope.short_factors, &expected.rope.long_factors}) {
    for (double& factor : *factors) factor = static_cast<float>(factor);
  }
  EXPECT_EQ(*config, expected)
      << ReadConfigText(path_).value() << "\n"
      << ReadConfigText(DirectoryOf(GetParam())).value();
}

TEST_P(FamilyTest, HasTheElementsOfItsDirectory) {
  const auto config = ReadModelConfig(path_);
  const auto checkpoint = Checkpoint::Open(path_);
  ASSERT_TRUE(config.ok() && checkpoint.ok())
      << config.status() << checkpoint.status();
  EXPECT_TRUE(CheckCheckpoint(*config, **checkpoint).ok())
      << CheckCheckpoint(*config, **checkpoint);
  const auto expected = Checkpoint::Open(DirectoryOf(GetParam())).value();
  ASSERT_EQ((*checkpoint)->tensors().size(), expected->tensors().size());
  for (const auto& [name, tensor] : expected->tensors()) {
    const MappedTensor* found = (*checkpoint)->Find(name);
    ASSERT_NE(found, nullptr) << name;
    ASSERT_EQ(found->shape, tensor.shape) << name;
    ASSERT_EQ(found->dtype, tensor.dtype) << name;
    const IndexRange rows = {0, tensor.shape.size() == 1 ? 1 : tensor.shape[0]};
    std::vector<std::byte> elements(tensor.data.size());
    ReadElements(*found, rows, {0, tensor.row_elements()}, elements.data());
    EXPECT_TRUE(std::equal(elements.begin(), elements.end(),
                           tensor.data.begin(), tensor.data.end()))
        << name;
    // A rectangle inside it, too.
    const IndexRange columns = {tensor.row_elements() / 3,
                                tensor.row_elements() - 1};
    const auto width = static_cast<size_t>(columns.size()) * 2;
    std::vector<std::byte> last(width);
    ReadElements(*found, {rows.end - 1, rows.end}, columns, last.data());
    EXPECT_TRUE(std::equal(last.begin(), last.end(),
                           tensor.data.end() - 2 - static_cast<long>(width)))
        << name;
  }
}

TEST_P(FamilyTest, HasTheWeightsIdOfItsDirectoryInEveryLayout) {
  const auto expected = Checkpoint::Open(DirectoryOf(GetParam())).value();
  const auto checkpoint = Checkpoint::Open(path_).value();
  const std::string id = WeightsIdOf(hugging_face_, *expected, Layout{});
  for (const int tp : {1, 2, 3}) {
    EXPECT_EQ(WeightsIdOf(ReadModelConfig(path_).value(), *checkpoint,
                          {.tp = tp, .ep = 1}),
              id)
        << tp;
  }
}

INSTANTIATE_TEST_SUITE_P(All, FamilyTest,
                         testing::Values("llama", "llama-3.1", "llama-linear",
                                         "mistral", "mixtral", "phi3",
                                         "phi3-long", "phi3-partial",
                                         "phi3.5-moe", "qwen2", "qwen3",
                                         "qwen3-moe", "qwen3-moe-raw"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name)
                             c = c == '-' || c == '.' ? '_' : c;
                           return name;
                         });

constexpr auto kF32 = static_cast<uint32_t>(GgmlType::kF32);
constexpr auto kF16 = static_cast<uint32_t>(GgmlType::kF16);
constexpr auto kQ8_0 = static_cast<uint32_t>(GgmlType::kQ8_0);

// A llama of one layer, 32 wide, whose matrices are of `type`; `change` adds to
// it or replaces keys, which come before its own.
GgufFile Llama(uint32_t type = kF32) {
  GgufFile file;
  file.Text("general.architecture", "llama")
      .Integer("llama.embedding_length", 32)
      .Integer("llama.block_count", 1)
      .Integer("llama.context_length", 128)
      .Integer("llama.feed_forward_length", 32)
      .Integer("llama.attention.head_count", 2)
      .Integer("llama.attention.head_count_kv", 2)
      .Float("llama.attention.layer_norm_rms_epsilon", 1e-5F)
      .Float("llama.rope.freq_base", 5e5F);
  const size_t row_bytes = type == kF32 ? 128 : type == kF16 ? 64 : 34;
  for (const char* name :
       {"token_embd", "blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v",
        "blk.0.attn_output", "blk.0.ffn_gate", "blk.0.ffn_up",
        "blk.0.ffn_down"}) {
    file.Tensor(std::string(name) + ".weight", type, {32, 32},
                std::string(32 * row_bytes, '\0'));
  }
  for (const char* name :
       {"blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"}) {
    file.Tensor(std::string(name) + ".weight", kF32, {32},
                std::string(128, '\0'));
  }
  return file;
}

class GgufModelTest : public testing::Test {
 protected:
  std::string ConfigError(const GgufFile& file) {
    const std::string path = directory_.Write("m.gguf", file.Bytes());
    const auto config = ReadModelConfig(path);
    if (config.ok()) return "accepted";
    return std::string(MessageOf(config.status()));
  }
  std::string OpenError(const std::string& path) {
    const auto checkpoint = Checkpoint::Open(path);
    if (!checkpoint.ok()) return std::string(MessageOf(checkpoint.status()));
    const auto config = ReadModelConfig(path);
    if (!config.ok()) return std::string(MessageOf(config.status()));
    const absl::Status status = CheckCheckpoint(*config, **checkpoint);
    return status.ok() ? "accepted" : std::string(MessageOf(status));
  }
  std::string TensorError(const GgufFile& file) {
    return OpenError(directory_.Write("m.gguf", file.Bytes()));
  }

  TempDirectory directory_;
};

TEST_F(GgufModelTest, TheDTypeFollowsTheMatrices) {
  EXPECT_EQ(TensorError(Llama(kF32)), "accepted");
  const auto dtype_of = [this](uint32_t type) {
    return ReadModelConfig(directory_.Write("m.gguf", Llama(type).Bytes()))
        .value()
        .weights;
  };
  EXPECT_EQ(dtype_of(kF32), DType::kF32);
  EXPECT_EQ(dtype_of(kF16), DType::kF16);
  EXPECT_EQ(dtype_of(kQ8_0), DType::kBF16);
}

TEST_F(GgufModelTest, WhatIsComputedWithAsItIsStaysMapped) {
  const auto checkpoint =
      Checkpoint::Open(directory_.Write("m.gguf", Llama(kF32).Bytes())).value();
  EXPECT_FALSE(checkpoint->Find("model.layers.0.self_attn.v_proj.weight")
                   ->conversion.has_value());
  EXPECT_TRUE(checkpoint->Find("model.layers.0.self_attn.q_proj.weight")
                  ->conversion.has_value());
}

TEST_F(GgufModelTest, AbsentAndAbsurdKeysAreNamed) {
  GgufFile none;
  EXPECT_THAT(ConfigError(none),
              AllOf(HasSubstr("general.architecture is absent"),
                    HasSubstr("qwen3moe"), HasSubstr("m.gguf")));
  EXPECT_THAT(ConfigError(GgufFile().Text("general.architecture", "gpt-j")),
              HasSubstr("\"gpt-j\""));
  GgufFile bare;
  bare.Text("general.architecture", "qwen2");
  EXPECT_THAT(ConfigError(bare), HasSubstr("qwen2.embedding_length is absent"));
  GgufFile text;
  text.Text("general.architecture", "llama")
      .Text("llama.embedding_length", "many");
  EXPECT_THAT(ConfigError(text),
              HasSubstr("llama.embedding_length is \"many\""));
  GgufFile different;
  different.Text("general.architecture", "llama")
      .Integers("llama.embedding_length", {32, 64});
  EXPECT_THAT(ConfigError(different), HasSubstr("the same for every layer"));
  EXPECT_THAT(ConfigError(Llama().Float("llama.logit_scale", 2)),
              AllOf(HasSubstr("llama.logit_scale"), HasSubstr("not served")));
  EXPECT_EQ(ConfigError(Llama().Float("llama.logit_scale", 0)), "accepted");
  EXPECT_THAT(ConfigError(Llama()
                              .Float("llama.rope.scaling.factor", NAN)
                              .Text("llama.rope.scaling.type", "linear")),
              HasSubstr("llama.rope.scaling.factor is nan"));
  EXPECT_THAT(ConfigError(Llama().Text("llama.rope.scaling.type", "odd")),
              HasSubstr("\"odd\""));
  EXPECT_THAT(ConfigError(Llama()
                              .Integer("llama.attention.key_length", 16)
                              .Integer("llama.attention.value_length", 8)),
              HasSubstr("llama.attention.value_length is 8"));
}

TEST_F(GgufModelTest, FactorsThatAreNotLlama3sAreKeptAsTheyAre) {
  std::string factors;
  for (const float factor : {1.0F, 1.5F, 9.0F, 2.0F, 1.0F, 1.0F, 1.0F, 7.5F}) {
    factors += GgufBytes(factor);
  }
  const auto config = ReadModelConfig(directory_.Write(
      "m.gguf",
      Llama().Tensor("rope_freqs.weight", kF32, {8}, factors).Bytes()));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->rope.short_factors,
              ElementsAre(1, 1.5, 9, 2, 1, 1, 1, 7.5));
  EXPECT_EQ(config->rope.long_factors, config->rope.short_factors);
  EXPECT_EQ(config->rope.attention_factor, 1);
  EXPECT_EQ(config->rope.original_context_tokens, 128);
  EXPECT_THAT(ConfigError(Llama().Tensor("rope_freqs.weight", kF32, {4},
                                         std::string(16, '\0'))),
              HasSubstr("rope_freqs.weight is F32 [4]"));
}

TEST_F(GgufModelTest, TensorsThatDoNotBelongAreNamed) {
  const std::string row(128, '\0');
  EXPECT_THAT(
      TensorError(Llama().Tensor("blk.1.attn_norm.weight", kF32, {32}, row)),
      HasSubstr("blk.1.attn_norm.weight"));
  EXPECT_THAT(
      TensorError(Llama().Tensor("blk.0.attn_q_norm.weight", kF32, {32}, row)),
      HasSubstr("blk.0.attn_q_norm.weight"));
  EXPECT_THAT(
      TensorError(Llama().Tensor("blk.x.attn_norm.weight", kF32, {32}, row)),
      HasSubstr("blk.x.attn_norm.weight"));
  EXPECT_THAT(
      TensorError(Llama().Tensor("blk.0.attn_qkv.weight", kF32, {32}, row)),
      HasSubstr("one of two"));
  EXPECT_THAT(TensorError(Llama().Tensor("output.weight", kF32, {32}, row)),
              HasSubstr("lm_head.weight is [32]"));
}

TEST_F(GgufModelTest, ExpertsMustBeAsManyAsTheConfigSays) {
  GgufFile file = Llama();
  file.Integer("llama.expert_count", 4).Integer("llama.expert_used_count", 2);
  file.Tensor("blk.0.ffn_gate_exps.weight", kF32, {32, 32, 2},
              std::string(8192, '\0'));
  EXPECT_THAT(TensorError(file),
              AllOf(HasSubstr("[2, 32, 32]"), HasSubstr("each of 4 experts")));
}

TEST_F(GgufModelTest, ADirectoryWithOneModelIsThatModel) {
  const std::string path = directory_.Write("m.gguf", Llama().Bytes());
  EXPECT_THAT(FindGgufFiles(path).value(), ElementsAre(path));
  EXPECT_THAT(FindGgufFiles(directory_.path()).value(), ElementsAre(path));
  EXPECT_EQ(OpenError(directory_.path()), "accepted");
  directory_.Write("n.gguf", "");
  EXPECT_THAT(
      OpenError(directory_.path()),
      AllOf(HasSubstr("2 models"), HasSubstr("m.gguf"), HasSubstr("n.gguf")));
  directory_.Write("config.json", "{}");
  EXPECT_THAT(FindGgufFiles(directory_.path()).value(), IsEmpty());
  EXPECT_THAT(OpenError(directory_.path() + "/none.gguf"),
              HasSubstr("cannot be opened"));
}

TEST_F(GgufModelTest, PartsMakeOneModelWhicheverIsNamed) {
  GgufFile first;
  GgufFile second;
  first.Text("general.architecture", "llama")
      .Integer("split.no", 0)
      .Integer("split.count", 2)
      .Tensor("a", kF32, {1}, "1234");
  second.Integer("split.no", 1)
      .Integer("split.count", 2)
      .Tensor("b", kF32, {1}, "5678");
  const std::string one =
      directory_.Write("m-00001-of-00002.gguf", first.Bytes());
  EXPECT_THAT(OpenError(one), HasSubstr("m-00002-of-00002.gguf: is not there"));
  const std::string two =
      directory_.Write("m-00002-of-00002.gguf", second.Bytes());
  EXPECT_THAT(FindGgufFiles(two).value(), ElementsAre(one, two));
  EXPECT_THAT(FindGgufFiles(directory_.path()).value(), ElementsAre(one, two));
  const auto model = GgufModel::Open({one, two});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_NE(model->FindTensor("a"), nullptr);
  EXPECT_NE(model->FindTensor("b"), nullptr);

  directory_.Write("m-00002-of-00002.gguf", first.Bytes());
  EXPECT_THAT(OpenError(two), HasSubstr("split.no"));
  second.Tensor("a", kF32, {1}, "1234");
  directory_.Write("m-00002-of-00002.gguf", second.Bytes());
  EXPECT_THAT(OpenError(two), HasSubstr("\"a\" is also in an earlier part"));
}

TEST_F(GgufModelTest, ModelsAreNamedWithoutTheEndOfTheirFiles) {
  EXPECT_EQ(NameOfModel("models/witling/"), "witling");
  EXPECT_EQ(NameOfModel("models/witling"), "witling");
  EXPECT_EQ(NameOfModel("a/m.Q4_K_M.gguf"), "m.Q4_K_M");
  EXPECT_EQ(NameOfModel("a/m-00001-of-00003.gguf"), "m");
}

TEST_F(GgufModelTest, EndsOfTurnsEndAnAnswer) {
  const auto ids = [this](const GgufFile& file) {
    return ReadGenerationConfig(directory_.Write("m.gguf", file.Bytes()))
        .value()
        .eos_token_ids;
  };
  EXPECT_THAT(ids(Llama()), IsEmpty());
  EXPECT_THAT(ids(Llama()
                      .Integer("tokenizer.ggml.eos_token_id", 2)
                      .Integer("tokenizer.ggml.eot_token_id", 1)
                      .Texts("tokenizer.ggml.tokens",
                             {"a", "<|im_end|>", "b", "<|end|>", "<|eot_id|>"})
                      .Integers("tokenizer.ggml.token_type", {1, 3, 3, 3, 1})),
              ElementsAre(2, 1, 3));
}

}  // namespace
}  // namespace witan
