#include "model/gguf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "model/gguf_tokenizer.h"
#include "model/json_object.h"

namespace witan {
namespace {

using Json = nlohmann::json;

// Architectures and what their config.json calls the same things.
struct Architecture {
  std::string_view name;  // general.architecture
  std::string_view hugging_face;
  // Of models with experts; empty: not of this architecture.
  std::string_view num_experts_field = "";
  std::string_view expert_size_key = "";
  std::string_view expert_size_field = "";
};
constexpr Architecture kArchitectures[] = {
    {"llama", "LlamaForCausalLM"},  // Mistral and Mixtral too
    {"phi3", "Phi3ForCausalLM"},
    {"phimoe", "PhiMoEForCausalLM", "num_local_experts", "feed_forward_length",
     "intermediate_size"},
    {"qwen2", "Qwen2ForCausalLM"},
    {"qwen3", "Qwen3ForCausalLM"},
    {"qwen3moe", "Qwen3MoeForCausalLM", "num_experts",
     "expert_feed_forward_length", "moe_intermediate_size"},
};
constexpr Architecture kMixtral = {"llama", "MixtralForCausalLM",
                                   "num_local_experts", "feed_forward_length",
                                   "intermediate_size"};

// Keys of other models, which change what is computed unless they are 0.
constexpr std::string_view kUnserved[] = {
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.scale",
    "attention.sliding_window_pattern",
    "attn_logit_softcapping",
    "embedding_scale",
    "expert_shared_count",
    "expert_shared_feed_forward_length",
    "final_logit_softcapping",
    "leading_dense_block_count",
    "logit_scale",
    "residual_scale",
};

// The number that a person wrote before it was rounded to float32: the shortest
// decimal that is this float. Numbers of more digits stay.
double Written(double value) {
  if (!(std::abs(value) <= std::numeric_limits<float>::max()) ||
      static_cast<double>(static_cast<float>(value)) != value) {
    return value;
  }
  return std::strtod(fmt::format("{}", static_cast<float>(value)).c_str(),
                     nullptr);
}

// Reads "ARCHITECTURE.name".
class ConfigWriter {
 public:
  explicit ConfigWriter(const GgufModel& model)
      : model_(model), fields_(model.metadata()) {}

  absl::StatusOr<std::string> Write() {
    ReadArchitecture();
    if (fields_.status().ok()) RefuseUnserved();
    if (fields_.status().ok()) {
      WriteShape();
      WriteHeads();
      WriteExperts();
      WriteSwitches();
      WriteRope();
      WriteDType();
    }
    RETURN_IF_ERROR(fields_.status());
    return config_.dump();
  }

 private:
  std::string Key(std::string_view name) const {
    return fmt::format("{}.{}", architecture_.name, name);
  }
  std::optional<int64_t> Integer(std::string_view name) {
    return fields_.Integer(Key(name));
  }
  std::optional<double> Number(std::string_view name) {
    const auto number = fields_.Number(Key(name));
    return number ? std::optional(Written(*number)) : std::nullopt;
  }
  int64_t Needed(std::string_view name) {
    const auto value = Integer(name);
    if (!value) fields_.Absent(Key(name), "an integer");
    return value.value_or(0);
  }
  bool HasTensor(std::string_view name) const {
    return model_.FindTensor(name) != nullptr;
  }

  void ReadArchitecture() {
    constexpr std::string_view kKey = "general.architecture";
    const auto name = fields_.String(kKey);
    std::vector<std::string_view> known;
    for (const Architecture& architecture : kArchitectures) {
      known.push_back(architecture.name);
      if (name == architecture.name) architecture_ = architecture;
    }
    if (!architecture_.name.empty()) {
      if (name == kMixtral.name && Integer("expert_count").value_or(0) > 0) {
        architecture_ = kMixtral;
      }
      return;
    }
    fields_.Fail(InvalidArgument(
        "metadata: {} is {}, which is not known; known are: {}; serve a model "
        "of one of these",
        kKey, name ? Quoted(*name) : "absent", fmt::join(known, ", ")));
  }

  void RefuseUnserved() {
    for (const std::string_view name : kUnserved) {
      const GgufValue* value = model_.metadata().Find(Key(name));
      if (value == nullptr || *value == GgufValue(uint64_t{0}) ||
          *value == GgufValue(int64_t{0}) || *value == GgufValue(0.0)) {
        continue;
      }
      fields_.Fail(InvalidArgument(
          "metadata: {} is {}, allowed is 0; a model with it is not served",
          Key(name), DescribeGguf(*value)));
    }
  }

  void WriteShape() {
    config_["architectures"] = {std::string(architecture_.hugging_face)};
    config_["hidden_size"] = Needed("embedding_length");
    config_["num_hidden_layers"] = Needed("block_count");
    config_["max_position_embeddings"] = Needed("context_length");
    const GgufTensor* embedding = model_.FindTensor("token_embd.weight");
    if (embedding == nullptr) {
      fields_.Fail(InvalidArgument("there is no tensor token_embd.weight"));
      return;
    }
    config_["vocab_size"] = embedding->shape.front();
    auto epsilon = Number("attention.layer_norm_rms_epsilon");
    if (!epsilon) epsilon = Number("attention.layer_norm_epsilon");
    if (!epsilon) {
      fields_.Absent(Key("attention.layer_norm_rms_epsilon"), "a number");
    }
    config_["rms_norm_eps"] = epsilon.value_or(0);
    // Those of Qwen do not say which layers have a window, and llama.cpp gives
    // them none.
    const int64_t window = Integer("attention.sliding_window").value_or(0);
    if (window <= 0 || architecture_.name.starts_with("qwen")) return;
    config_["sliding_window"] = window;
    if (architecture_.hugging_face == "LlamaForCausalLM") {
      config_["architectures"] = {"MistralForCausalLM"};
    }
  }

  void WriteHeads() {
    const int64_t num_heads = Needed("attention.head_count");
    config_["num_attention_heads"] = num_heads;
    config_["num_key_value_heads"] =
        Integer("attention.head_count_kv").value_or(num_heads);
    const auto key = Integer("attention.key_length");
    const auto value = Integer("attention.value_length");
    if (key && value && *key != *value) {
      fields_.Fail(InvalidArgument(
          "metadata: {} is {} and {} is {}; allowed are equal ones",
          Key("attention.key_length"), *key, Key("attention.value_length"),
          *value));
    }
    if (key) config_["head_dim"] = *key;
    if (num_heads <= 0) return;  // refused by whoever reads it
    head_dim_ = key.value_or(config_["hidden_size"].get<int64_t>() / num_heads);
    rotary_dim_ = Integer("rope.dimension_count").value_or(head_dim_);
    if (rotary_dim_ != head_dim_ && head_dim_ > 0) {
      const auto turned = static_cast<double>(rotary_dim_);
      double share = turned / static_cast<double>(head_dim_);
      // Who reads it multiplies and cuts off what is behind the point.
      if (share * static_cast<double>(head_dim_) < turned) {
        share = std::nextafter(share, 2);
      }
      config_["partial_rotary_factor"] = share;
    }
  }

  void WriteExperts() {
    if (architecture_.num_experts_field.empty()) {
      config_["intermediate_size"] = Needed("feed_forward_length");
      return;
    }
    config_[std::string(architecture_.expert_size_field)] =
        Needed(architecture_.expert_size_key);
    config_[std::string(architecture_.num_experts_field)] =
        Needed("expert_count");
    config_["num_experts_per_tok"] = Needed("expert_used_count");
    if (architecture_.name == "qwen3moe") config_["norm_topk_prob"] = true;
    if (architecture_.name == "phimoe") config_["router_jitter_noise"] = 0.01;
  }

  void WriteSwitches() {
    config_["tie_word_embeddings"] = !HasTensor("output.weight");
    config_["lm_head_bias"] = HasTensor("output.bias");
    // A Qwen 2 has biases without saying so.
    if (architecture_.name != "qwen2") {
      config_["attention_bias"] = HasTensor("blk.0.attn_q.bias");
    }
  }

  void WriteDType() {
    bool has_half = false;
    for (const Gguf& part : model_.parts()) {
      for (const GgufTensor& tensor : part.tensors) {
        if (tensor.shape.size() < 2) continue;
        if (tensor.type == GgmlType::kF16) {
          has_half = true;
        } else if (tensor.type != GgmlType::kF32) {
          config_["dtype"] = "bfloat16";
          return;
        }
      }
    }
    config_["dtype"] = has_half ? "float16" : "float32";
  }

  // A vector of divisors of the frequencies; empty without one.
  std::vector<double> Factors(std::string_view name) {
    const GgufTensor* tensor = model_.FindTensor(name);
    if (tensor == nullptr) return {};
    if (tensor->shape != std::vector<int64_t>{rotary_dim_ / 2} ||
        tensor->type != GgmlType::kF32) {
      fields_.Fail(InvalidArgument(
          "tensor {} is {} [{}]; allowed is F32 [{}], half of the elements "
          "that are turned",
          name, TraitsOf(tensor->type).name, fmt::join(tensor->shape, ", "),
          rotary_dim_ / 2));
      return {};
    }
    std::vector<float> numbers(static_cast<size_t>(tensor->shape.front()));
    DequantizeBlocks(tensor->type, tensor->data.data(), tensor->shape.front(),
                     numbers.data());
    std::vector<double> factors;
    for (const float number : numbers) factors.push_back(Written(number));
    return factors;
  }

  void WriteRope() {
    theta_ = Number("rope.freq_base").value_or(10000);
    config_["rope_theta"] = theta_;
    const auto original = Integer("rope.scaling.original_context_length");
    const auto attention_factor = Number("rope.scaling.attn_factor");
    const auto type = fields_.String(Key("rope.scaling.type"));
    const std::vector<double> long_factors =
        Factors("rope_factors_long.weight");
    const std::vector<double> short_factors =
        Factors("rope_factors_short.weight");
    const std::vector<double> factors = Factors("rope_freqs.weight");
    if (!fields_.status().ok()) return;
    Json scaling;
    if (!long_factors.empty() || !short_factors.empty()) {
      scaling = {{"rope_type", "longrope"},
                 {"long_factor", long_factors},
                 {"short_factor", short_factors}};
      if (attention_factor) scaling["attention_factor"] = *attention_factor;
    } else if (!factors.empty()) {
      scaling = ScalingOfFactors(factors);
    } else if (type == "linear") {
      scaling = {{"rope_type", "linear"}};
    } else if (type == "yarn") {
      scaling = {{"rope_type", "yarn"}};
      WriteYarn(attention_factor, scaling);
    } else if (type && *type != "none") {
      fields_.Fail(InvalidArgument(
          "metadata: {} is {}; allowed is none, linear, yarn, or longrope with "
          "its factors",
          Key("rope.scaling.type"), Quoted(*type)));
    }
    if (scaling.is_null()) return;
    if (original && !scaling.contains("original_max_position_embeddings")) {
      scaling["original_max_position_embeddings"] = *original;
    }
    if (const auto factor = Number("rope.scaling.factor");
        factor && (type == "linear" || type == "yarn")) {
      scaling["factor"] = *factor;
    }
    config_["rope_scaling"] = scaling;
  }

  void WriteYarn(std::optional<double> attention_factor, Json& scaling) {
    for (const std::string_view name : {"beta_fast", "beta_slow"}) {
      if (const auto beta = Number(fmt::format("rope.scaling.yarn_{}", name))) {
        scaling[std::string(name)] = *beta;
      }
    }
    // ggml multiplies with 0.1 ln(factor) + 1 besides.
    const double factor = Number("rope.scaling.factor").value_or(1);
    if (attention_factor && *attention_factor != 1 && factor >= 1) {
      scaling["attention_factor"] =
          *attention_factor * (0.1 * std::log(factor) + 1);
    }
  }

  // Llama 3.1's formula (modeling_rope_utils.py of transformers), of which the
  // file has the result.
  std::vector<double> Llama3Factors(double factor, double original) const {
    std::vector<double> factors;
    for (int64_t i = 0; i < rotary_dim_ / 2; ++i) {
      const double frequency =
          std::pow(theta_, -2.0 * static_cast<double>(i) /
                               static_cast<double>(rotary_dim_));
      const double turns = original * frequency / (2 * std::numbers::pi);
      const double smooth = std::clamp(
          (turns - kLowFreqFactor) / (kHighFreqFactor - kLowFreqFactor), 0.0,
          1.0);
      factors.push_back(1 / ((1 - smooth) / factor + smooth));
    }
    return factors;
  }

  // Llama 3.1's parameters if they make these factors, so that the model has
  // the bits that it has as a Hugging Face directory; else the factors as they
  // are, for sequences of any length.
  Json ScalingOfFactors(const std::vector<double>& factors) const {
    constexpr double kTolerance = 1e-4;
    const double factor = *std::max_element(factors.begin(), factors.end());
    std::vector<int64_t> originals = {8192};  // of all published ones
    for (int64_t power = 16; power <= kMaxContextTokens; power *= 2) {
      originals.push_back(power);
    }
    for (const int64_t original : originals) {
      const std::vector<double> made =
          Llama3Factors(factor, static_cast<double>(original));
      if (std::equal(made.begin(), made.end(), factors.begin(), factors.end(),
                     [](double a, double b) {
                       return std::abs(a - b) <= kTolerance * std::abs(b);
                     })) {
        return {{"rope_type", "llama3"},
                {"factor", factor},
                {"low_freq_factor", kLowFreqFactor},
                {"high_freq_factor", kHighFreqFactor},
                {"original_max_position_embeddings", original}};
      }
    }
    return {{"rope_type", "longrope"},
            {"long_factor", factors},
            {"short_factor", factors},
            {"attention_factor", 1},
            {"original_max_position_embeddings",
             config_["max_position_embeddings"]}};
  }

  static constexpr double kLowFreqFactor = 1;
  static constexpr double kHighFreqFactor = 4;

  const GgufModel& model_;
  GgufFields fields_;
  Architecture architecture_ = {};
  int64_t head_dim_ = 0;
  int64_t rotary_dim_ = 0;
  double theta_ = 0;
  Json config_ = Json::object();
};

}  // namespace

absl::StatusOr<std::string> ConfigOfGguf(const GgufModel& model) {
  return ConfigWriter(model).Write();
}

absl::StatusOr<std::string> GenerationConfigOfGguf(const GgufModel& model) {
  // Ends of a turn in templates of families that are served. Files name the
  // end of a text in their place.
  constexpr std::string_view kEndsOfTurns[] = {"<|eot_id|>", "<|im_end|>",
                                               "<|end|>"};
  GgufFields fields(model.metadata());
  std::vector<int64_t> ids;
  const auto add = [&ids](int64_t id) {
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  };
  for (const std::string_view role : {"eos", "eot", "eom"}) {
    if (const auto id =
            fields.Integer(fmt::format("tokenizer.ggml.{}_token_id", role))) {
      add(*id);
    }
  }
  RETURN_IF_ERROR(fields.status());
  for (const std::string_view text : kEndsOfTurns) {
    if (const auto id = ControlTokenOfGguf(model, text)) add(*id);
  }
  Json config = Json::object();
  if (!ids.empty()) config["eos_token_id"] = ids;
  return config.dump();
}

}  // namespace witan
