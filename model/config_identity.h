#ifndef WITAN_MODEL_CONFIG_IDENTITY_H_
#define WITAN_MODEL_CONFIG_IDENTITY_H_

// Whether two processes read the same config.json. Weights of equal shapes can
// be read with another epsilon, window, top-k or number of heads, and then give
// other tokens; so every rank reports its config, and the coordinator compares
// it with its own.

#include <string>
#include <string_view>

#include "model/config.h"

namespace witan {

// Every field as a line "name=value\n", named as config.json names it, in the
// order of ModelConfig. Two texts are equal exactly if the configs are.
std::string ConfigText(const ModelConfig& config);

// The first field in which two such texts differ: "rms_norm_eps is 1e-06 and
// 1e-05"; empty when they are equal. `theirs` may hold anything; what is quoted
// of it is short and printable.
std::string ConfigDifference(std::string_view theirs, std::string_view ours);

}  // namespace witan

#endif  // WITAN_MODEL_CONFIG_IDENTITY_H_
