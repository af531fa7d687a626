#ifndef WITAN_TESTS_TESTING_PUBLISHED_CONFIGS_H_
#define WITAN_TESTS_TESTING_PUBLISHED_CONFIGS_H_

// The config.json of published models, and the numbers of weights that their
// pages on the Hugging Face hub give ("Safetensors, N params", from the headers
// of the files). Active weights are these less the experts that a token does
// not choose, (E - top-k) * layers * 3 * hidden * size of one; the pages round
// them to 12.9 B (Mixtral 8x7B), 39 B (8x22B), 6.6 B (Phi-3.5-MoE), 3.3 B and
// 22 B (Qwen3).

#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace witan {

struct PublishedModel {
  std::string name;  // "Mixtral-8x7B-v0.1"
  std::string architecture;
  std::string config_json;
  int64_t num_parameters = 0;
  int64_t num_active_parameters = 0;  // of a dense model: all
  friend void PrintTo(const PublishedModel& model, std::ostream* out) {
    *out << model.name;
  }
};

std::vector<PublishedModel> PublishedModels();

// REQUIRES: there is a model of that name.
PublishedModel FindPublishedModel(std::string_view name);
ModelConfig PublishedConfig(std::string_view name);  // parsed

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_PUBLISHED_CONFIGS_H_
