#include "model/rope_config.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include "base/limits.h"
#include "base/status.h"
#include "model/json_fields.h"
#include "model/json_object.h"

namespace witan {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kTypes = "default, linear, llama3, yarn or longrope";

// Reads the object with the scaling, beside the whole file.
class RopeReader {
 public:
  RopeReader(const Json& config, std::string_view scaling_name,
             const Json& scaling, int64_t max_context_tokens)
      : file_("config.json", config),
        scaling_label_(fmt::format("config.json: {}", scaling_name)),
        scaling_(scaling_label_, scaling),
        max_context_tokens_(max_context_tokens) {}

  absl::Status status() const {
    RETURN_IF_ERROR(file_.status());
    return scaling_.status();
  }

  void ReadTheta(double default_theta, RopeParameters& rope) {
    const auto theta = file_.OptionalNumber("rope_theta", kMinRopeTheta,
                                            kMaxRopeTheta, /*above_min=*/true);
    const auto nested = scaling_.OptionalNumber(
        "rope_theta", kMinRopeTheta, kMaxRopeTheta, /*above_min=*/true);
    if (theta && nested && *theta != *nested) {
      file_.Fail(InvalidArgument(
          "config.json: rope_theta is {} but {}.rope_theta is {}; keep one",
          *theta, scaling_label_.substr(sizeof("config.json:")), *nested));
    }
    rope.theta = theta ? *theta : nested.value_or(default_theta);
  }

  void ReadRotaryDim(int64_t head_dim, RopeParameters& rope) {
    const auto outer =
        file_.OptionalNumber("partial_rotary_factor", 0, 1, true);
    const auto nested =
        scaling_.OptionalNumber("partial_rotary_factor", 0, 1, true);
    const double share = outer ? *outer : nested.value_or(1);
    rope.rotary_dim =
        static_cast<int64_t>(static_cast<double>(head_dim) * share);
    if (rope.rotary_dim < 2 || rope.rotary_dim % 2 != 0) {
      file_.Fail(InvalidArgument(
          "config.json: partial_rotary_factor {} of head_dim {} turns {} "
          "elements, allowed is an even number of at least 2",
          share, head_dim, rope.rotary_dim));
    }
  }

  void ReadScaling(RopeParameters& rope) {
    const std::string type = Type();
    if (type.empty() && scaling_.Has("factor")) {
      scaling_.Absent("rope_type", kTypes);
    }
    if (!status().ok() || type.empty() || type == "default") return;
    if (type == "linear") {
      rope.scaling = RopeScaling::kLinear;
      rope.factor = Factor();
    } else if (type == "llama3") {
      ReadLlama3(rope);
    } else if (type == "yarn") {
      ReadYarn(rope);
    } else if (type == "longrope" || type == "su") {
      ReadLongRope(rope);
    } else {
      scaling_.Fail(InvalidArgument(
          "{}.rope_type is {}, allowed is {}; other scalings are not served",
          scaling_label_, Quoted(type), kTypes));
    }
  }

 private:
  // Older files call it type.
  std::string Type() {
    const std::string name = scaling_.Has("rope_type") ? "rope_type" : "type";
    return scaling_.OptionalString(name);
  }
  double Factor() {
    return scaling_.Number("factor", 1, kMaxRopeFactor, /*above_min=*/false);
  }
  // Beside the scaling in newer files, of the model in older ones.
  std::optional<int64_t> OriginalContext() {
    constexpr std::string_view kName = "original_max_position_embeddings";
    const auto nested = scaling_.OptionalInteger(kName, 1, kMaxContextTokens);
    return nested ? nested : file_.OptionalInteger(kName, 1, kMaxContextTokens);
  }

  void ReadLlama3(RopeParameters& rope) {
    rope.scaling = RopeScaling::kLlama3;
    rope.factor = Factor();
    rope.low_freq_factor =
        scaling_.Number("low_freq_factor", 0, kMaxRopeFactor, true);
    rope.high_freq_factor =
        scaling_.Number("high_freq_factor", 0, kMaxRopeFactor, true);
    const auto original = OriginalContext();
    if (!original) {
      scaling_.Absent(
          "original_max_position_embeddings",
          fmt::format("an integer from 1 to {}", kMaxContextTokens));
    }
    rope.original_context_tokens = original.value_or(1);
    if (status().ok() && rope.high_freq_factor <= rope.low_freq_factor) {
      scaling_.Fail(InvalidArgument(
          "{}.high_freq_factor is {}, allowed is more than low_freq_factor, "
          "which is {}",
          scaling_label_, rope.high_freq_factor, rope.low_freq_factor));
    }
  }

  void ReadYarn(RopeParameters& rope) {
    rope.scaling = RopeScaling::kYarn;
    rope.factor = Factor();
    rope.original_context_tokens =
        OriginalContext().value_or(max_context_tokens_);
    rope.beta_fast =
        scaling_.OptionalNumber("beta_fast", 0, kMaxRopeFactor, true)
            .value_or(32);
    rope.beta_slow =
        scaling_.OptionalNumber("beta_slow", 0, kMaxRopeFactor, true)
            .value_or(1);
    rope.truncate = scaling_.Boolean("truncate", true);
    const auto magnitude = [&rope](double scale) {
      return rope.factor <= 1 ? 1 : 0.1 * scale * std::log(rope.factor) + 1;
    };
    const auto mscale = scaling_.OptionalNumber("mscale", 0, 100, false);
    const auto mscale_all =
        scaling_.OptionalNumber("mscale_all_dim", 0, 100, false);
    rope.attention_factor =
        mscale.value_or(0) != 0 && mscale_all.value_or(0) != 0
            ? magnitude(*mscale) / magnitude(*mscale_all)
            : magnitude(1);
    ReadAttentionFactor(rope);
  }

  void ReadLongRope(RopeParameters& rope) {
    rope.scaling = RopeScaling::kLongRope;
    rope.original_context_tokens =
        OriginalContext().value_or(max_context_tokens_);
    const int64_t size = rope.rotary_dim / 2;
    rope.short_factors = scaling_.PositiveNumbers(
        "short_factor", size, 1 / kMaxRopeFactor, kMaxRopeFactor);
    rope.long_factors = scaling_.PositiveNumbers(
        "long_factor", size, 1 / kMaxRopeFactor, kMaxRopeFactor);
    const auto original = static_cast<double>(rope.original_context_tokens);
    const double factor =
        scaling_.OptionalNumber("factor", 1, kMaxRopeFactor, false)
            .value_or(static_cast<double>(max_context_tokens_) / original);
    rope.attention_factor =
        factor <= 1 || original <= 1
            ? 1
            : std::sqrt(1 + std::log(factor) / std::log(original));
    ReadAttentionFactor(rope);
    // Phi-3.5-MoE names the two itself.
    rope.long_attention_factor =
        scaling_.OptionalNumber("long_mscale", 0, 100, true)
            .value_or(rope.attention_factor);
    rope.attention_factor =
        scaling_.OptionalNumber("short_mscale", 0, 100, true)
            .value_or(rope.attention_factor);
  }

  void ReadAttentionFactor(RopeParameters& rope) {
    rope.attention_factor =
        scaling_.OptionalNumber("attention_factor", 0, 100, true)
            .value_or(rope.attention_factor);
  }

  JsonFields file_;
  const std::string scaling_label_;
  JsonFields scaling_;
  const int64_t max_context_tokens_;
};

}  // namespace

absl::StatusOr<RopeParameters> ReadRope(const Json& config,
                                        double default_theta, int64_t head_dim,
                                        int64_t max_context_tokens) {
  JsonFields fields("config.json", config);
  const bool is_new = fields.Has("rope_parameters");
  if (is_new && fields.Has("rope_scaling") &&
      *fields.Find("rope_scaling") != *fields.Find("rope_parameters")) {
    return InvalidArgument(
        "config.json: rope_scaling is {} beside rope_parameters; keep one",
        DescribeJson(*fields.Find("rope_scaling")));
  }
  const std::string_view name = is_new ? "rope_parameters" : "rope_scaling";
  const Json empty = Json::object();
  const Json* scaling = fields.Find(name);
  if (scaling == nullptr) scaling = &empty;
  if (!scaling->is_object()) {
    fields.Refuse(name, *scaling, "an object");
    return fields.status();
  }
  RopeParameters rope;
  RopeReader reader(config, name, *scaling, max_context_tokens);
  reader.ReadTheta(default_theta, rope);
  reader.ReadRotaryDim(head_dim, rope);
  RETURN_IF_ERROR(reader.status());
  reader.ReadScaling(rope);
  RETURN_IF_ERROR(reader.status());
  return rope;
}

}  // namespace witan
