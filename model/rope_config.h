#ifndef WITAN_MODEL_ROPE_CONFIG_H_
#define WITAN_MODEL_ROPE_CONFIG_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <nlohmann/json.hpp>

#include "base/rope.h"

namespace witan {

// The rotary embedding that a config.json describes: rope_theta, rope_scaling
// (older files) or rope_parameters (newer ones), partial_rotary_factor,
// original_max_position_embeddings. Errors name the field, its value and what
// is allowed; types of scaling that are not in base/rope.h are refused.
absl::StatusOr<RopeParameters> ReadRope(const nlohmann::json& config,
                                        double default_theta, int64_t head_dim,
                                        int64_t max_context_tokens);

}  // namespace witan

#endif  // WITAN_MODEL_ROPE_CONFIG_H_
