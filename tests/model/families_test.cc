#include "model/families.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/status.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// The checkpoint of `written`, judged as one of `expected`.
std::string CheckAs(const ModelConfig& written, const ModelConfig& expected) {
  TinyModelOptions options;
  options.config = written;
  const TinyModel model(options);
  const auto checkpoint = Checkpoint::Open(model.directory());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  const absl::Status status = CheckCheckpoint(expected, **checkpoint);
  return status.ok() ? "accepted" : std::string(MessageOf(status));
}

// As Mistral AI's checkpoints name their tensors.
TEST(FamiliesTest, MixtralTensorsHaveTheNamesOfTheHub) {
  const ModelConfig config = TinyModelConfig();
  std::set<std::string> names;
  for (const TensorSlice& tensor : ExpectedTensors(config)) {
    names.insert(
        PlaceOf(config, tensor.role, tensor.layer, tensor.expert).name);
  }
  std::set<std::string> expected = {"model.embed_tokens.weight",
                                    "model.norm.weight", "lm_head.weight"};
  for (const std::string layer : {"0", "1"}) {
    const std::string prefix = "model.layers." + layer;
    for (const char* projection : {"q", "k", "v", "o"}) {
      expected.insert(prefix + ".self_attn." + projection + "_proj.weight");
    }
    expected.insert(prefix + ".input_layernorm.weight");
    expected.insert(prefix + ".post_attention_layernorm.weight");
    expected.insert(prefix + ".block_sparse_moe.gate.weight");
    for (int expert = 0; expert < 8; ++expert) {
      for (const char* w : {"w1", "w2", "w3"}) {
        expected.insert(fmt::format("{}.block_sparse_moe.experts.{}.{}.weight",
                                    prefix, expert, w));
      }
    }
  }
  EXPECT_EQ(names, expected);
  // w1 is the gate, w3 goes up and w2 down.
  EXPECT_EQ(PlaceOf(config, TensorRole::kExpertGate, 3, 5).name,
            "model.layers.3.block_sparse_moe.experts.5.w1.weight");
  EXPECT_EQ(PlaceOf(config, TensorRole::kExpertUp, 3, 5).name,
            "model.layers.3.block_sparse_moe.experts.5.w3.weight");
  EXPECT_EQ(PlaceOf(config, TensorRole::kExpertDown, 3, 5).name,
            "model.layers.3.block_sparse_moe.experts.5.w2.weight");
}

TEST(FamiliesTest, ATiedOutputTableIsTheEmbedding) {
  ModelConfig config = TinyModelConfig();
  EXPECT_EQ(PlaceOf(config, TensorRole::kLmHead, -1, -1).name,
            "lm_head.weight");
  const size_t num_untied = ExpectedTensors(config).size();
  EXPECT_EQ(NumTensors(config), static_cast<int64_t>(num_untied));
  config.tie_word_embeddings = true;
  EXPECT_EQ(PlaceOf(config, TensorRole::kLmHead, -1, -1).name,
            "model.embed_tokens.weight");
  EXPECT_EQ(ExpectedTensors(config).size(), num_untied - 1);
  EXPECT_EQ(NumTensors(config), static_cast<int64_t>(num_untied) - 1);
}

TEST(FamiliesTest, ACheckpointOfAnotherModelIsRefusedByName) {
  const ModelConfig tiny = TinyModelConfig();
  EXPECT_EQ(CheckAs(tiny, tiny), "accepted");

  ModelConfig other = tiny;
  other.tie_word_embeddings = true;
  // Some converters write a tied table twice.
  EXPECT_EQ(CheckAs(tiny, other), "accepted");
  EXPECT_THAT(CheckAs(other, tiny), HasSubstr("1 missing: lm_head.weight"));

  other = tiny;
  other.num_kv_heads = 4;
  EXPECT_THAT(
      CheckAs(tiny, other),
      AllOf(HasSubstr("4 of another shape"),
            HasSubstr("model.layers.1.self_attn.v_proj.weight is [32, 64], "
                      "not [64, 64]"),
            Not(HasSubstr("missing"))));

  other = tiny;
  other.weights = DType::kF16;
  EXPECT_THAT(CheckAs(tiny, other),
              AllOf(HasSubstr("65 of another dtype"),
                    HasSubstr("model.embed_tokens.weight is bfloat16, not "
                              "float16"),
                    HasSubstr("and 55 more")));

  other = tiny;
  other.num_layers = 3;
  const std::string missing = CheckAs(tiny, other);
  EXPECT_THAT(missing, AllOf(HasSubstr("31 missing: model.layers.2."),
                             HasSubstr("and 21 more")));
  EXPECT_THAT(CheckAs(other, tiny),
              AllOf(HasSubstr("31 unexpected"), HasSubstr("and 21 more")));
}

}  // namespace
}  // namespace witan
