#include "model/config_identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

#include "base/limits.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

struct Change {
  std::string name;  // in config.json
  std::function<void(ModelConfig&)> apply;
};

// One change for each field. A field that is added to ModelConfig does not
// compile until it is here.
std::vector<Change> ChangeOfEveryField() {
  ModelConfig unused;
  [[maybe_unused]] const auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p,
                                q, r, s, t, u, v, w] = unused;
  [[maybe_unused]] const auto& [ra, rb, rc, rd, re, rf, rg, rh, ri, rj, rk, rl,
                                rm, rn] = unused.rope;
  return {
      {"architectures", [](auto& x) { x.architecture += "2"; }},
      {"hidden_size", [](auto& x) { ++x.hidden_size; }},
      {"intermediate_size", [](auto& x) { ++x.intermediate_size; }},
      {"num_hidden_layers", [](auto& x) { ++x.num_layers; }},
      {"num_attention_heads", [](auto& x) { ++x.num_heads; }},
      {"num_key_value_heads", [](auto& x) { ++x.num_kv_heads; }},
      {"head_dim", [](auto& x) { ++x.head_dim; }},
      {"num_local_experts", [](auto& x) { ++x.num_experts; }},
      {"num_experts_per_tok", [](auto& x) { ++x.experts_per_token; }},
      {"vocab_size", [](auto& x) { ++x.vocab_size; }},
      {"max_position_embeddings", [](auto& x) { ++x.max_context_tokens; }},
      {"sliding_window", [](auto& x) { x.sliding_window = 7; }},
      {"rms_norm_eps",
       [](auto& x) { x.norm_epsilon = std::nextafter(x.norm_epsilon, 1); }},
      {"rope_theta",
       [](auto& x) { x.rope.theta = std::nextafter(x.rope.theta, 1e12); }},
      {"layers with a window",
       [](auto& x) {
         x.windowed_layers = {false, true};
       }},
      {"rope_type", [](auto& x) { x.rope.scaling = RopeScaling::kYarn; }},
      {"rotary dimensions", [](auto& x) { x.rope.rotary_dim -= 2; }},
      {"rope factor", [](auto& x) { x.rope.factor = 2; }},
      {"original_max_position_embeddings",
       [](auto& x) { ++x.rope.original_context_tokens; }},
      {"low_freq_factor", [](auto& x) { x.rope.low_freq_factor = 2; }},
      {"high_freq_factor", [](auto& x) { x.rope.high_freq_factor = 2; }},
      {"beta_fast", [](auto& x) { x.rope.beta_fast = 2; }},
      {"beta_slow", [](auto& x) { x.rope.beta_slow = 2; }},
      {"truncate", [](auto& x) { x.rope.truncate = !x.rope.truncate; }},
      {"short_factor",
       [](auto& x) {
         x.rope.short_factors = {1, 2.5};
       }},
      {"long_factor",
       [](auto& x) {
         x.rope.long_factors = {1, 2.5};
       }},
      {"attention_factor", [](auto& x) { x.rope.attention_factor = 2; }},
      {"long attention_factor",
       [](auto& x) { x.rope.long_attention_factor = 2; }},
      {"routing", [](auto& x) { x.routing.kind = RoutingKind::kSoftmax; }},
      {"router_jitter_noise", [](auto& x) { x.routing.jitter = 0.5; }},
      {"kind of norm", [](auto& x) { x.norm = NormKind::kLayer; }},
      {"biases of query, key and value", [](auto& x) { x.qkv_bias = true; }},
      {"bias of the attention's output", [](auto& x) { x.output_bias = true; }},
      {"norms of query and key", [](auto& x) { x.qk_norm = true; }},
      {"lm_head_bias", [](auto& x) { x.lm_head_bias = true; }},
      {"tie_word_embeddings",
       [](auto& x) { x.tie_word_embeddings = !x.tie_word_embeddings; }},
      {"dtype", [](auto& x) { x.weights = DType::kF16; }},
  };
}

TEST(ConfigIdentityTest, EveryFieldChangesTheTextAndIsNamed) {
  const std::string text = ConfigText(TinyModelConfig());
  EXPECT_EQ(ConfigDifference(text, text), "");
  EXPECT_LT(text.size(), kMaxConfigTextBytes);
  std::set<std::string> texts = {text};
  for (const Change& change : ChangeOfEveryField()) {
    ModelConfig config = TinyModelConfig();
    change.apply(config);
    const std::string changed = ConfigText(config);
    EXPECT_TRUE(texts.insert(changed).second) << change.name;
    EXPECT_THAT(ConfigDifference(changed, text),
                HasSubstr(change.name + " is "))
        << changed;
  }
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'),
            static_cast<long>(ChangeOfEveryField().size()));
}

TEST(ConfigIdentityTest, TheTextIsTheSameOnEveryMachine) {
  EXPECT_EQ(ConfigText(TinyModelConfig()),
            "architectures=MixtralForCausalLM\n"
            "hidden_size=64\n"
            "intermediate_size=96\n"
            "num_hidden_layers=2\n"
            "num_attention_heads=8\n"
            "num_key_value_heads=2\n"
            "head_dim=16\n"
            "num_local_experts=8\n"
            "num_experts_per_tok=2\n"
            "vocab_size=320\n"
            "max_position_embeddings=512\n"
            "sliding_window=0\n"
            "layers with a window=\n"
            "rms_norm_eps=1e-05\n"
            "rope_theta=10000\n"
            "rope_type=default\n"
            "rotary dimensions=16\n"
            "rope factor=1\n"
            "original_max_position_embeddings=0\n"
            "low_freq_factor=1\n"
            "high_freq_factor=1\n"
            "beta_fast=32\n"
            "beta_slow=1\n"
            "truncate=true\n"
            "short_factor=\n"
            "long_factor=\n"
            "attention_factor=1\n"
            "long attention_factor=1\n"
            "routing=normalised softmax\n"
            "router_jitter_noise=0\n"
            "kind of norm=rms\n"
            "biases of query, key and value=false\n"
            "bias of the attention's output=false\n"
            "norms of query and key=false\n"
            "lm_head_bias=false\n"
            "tie_word_embeddings=false\n"
            "dtype=bfloat16\n");
}

TEST(ConfigIdentityTest, ADifferenceNamesTheFieldAndBothValues) {
  ModelConfig other = TinyModelConfig();
  other.norm_epsilon = 1e-6;
  EXPECT_EQ(ConfigDifference(ConfigText(other), ConfigText(TinyModelConfig())),
            "rms_norm_eps is 1e-06 and 1e-05");
}

TEST(ConfigIdentityTest, WhatAStrangerSaysIsQuotedAndShort) {
  const std::string ours = ConfigText(TinyModelConfig());
  EXPECT_EQ(ConfigDifference("", ours),
            "architectures is absent and MixtralForCausalLM");
  EXPECT_EQ(ConfigDifference("architectures=a\xff\x01\n", ours),
            "architectures is \"a\\ufffd\\u0001\" and MixtralForCausalLM");
  EXPECT_EQ(ConfigDifference("nonsense", ours),
            "architectures is \"nonsense\" and MixtralForCausalLM");
  EXPECT_THAT(ConfigDifference(ours + "colour=red\n", ours),
              HasSubstr("\"colour\" is red and absent"));
  EXPECT_LT(ConfigDifference(std::string(4000, 'x'), ours).size(), 300u);
  EXPECT_EQ(ConfigDifference("\n\n\n" + ours, ours).find('\n'),
            std::string::npos);
}

}  // namespace
}  // namespace witan
