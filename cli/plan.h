#ifndef WITAN_CLI_PLAN_H_
#define WITAN_CLI_PLAN_H_

// What `witan plan` answers, before anything is printed: which layouts of a
// model fit on given GPUs (model/layout_plan.h says what is counted). Only
// config.json is read, and nothing is sent anywhere.

#include <absl/status/statusor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "model/families.h"
#include "model/layout_plan.h"

namespace witan {

struct PlanOptions {
  std::string model;  // a directory with config.json, or that file
  int64_t num_gpus = 0;
  std::string gpu_memory;  // of each, as ParseMemorySize reads it
  std::optional<int> tp;
  std::optional<int> ep;
  std::optional<int64_t> context_tokens;  // default: the model's
  int64_t max_step_tokens = 512;          // as `witan serve` has it
  // Both or none: for what a million tokens cost.
  std::optional<double> gpu_hour_price;
  std::optional<double> tokens_per_second;  // of all GPUs together
  bool json = false;
};

struct PlanReport {
  std::string model;  // as it was given
  ModelConfig config;
  ParameterCount parameters;
  LayoutQuestion question;
  std::vector<LayoutPlan> layouts;
  std::optional<size_t> best;  // index of the best one, if any fits
  std::optional<double> gpu_hour_price;
  std::optional<double> tokens_per_second;
  std::optional<double> cost_per_million_tokens;
};

// Bytes of "80GiB", "80 GB" or "81920MiB"; a number alone is GiB, as for
// --memory. MB, GB and TB are powers of 1000. INVALID_ARGUMENT for anything
// else and for sizes that are not in [1, kMaxMemoryBytes].
absl::StatusOr<int64_t> ParseMemorySize(std::string_view text);

// The config.json of a directory, or the file itself.
absl::StatusOr<ModelConfig> ReadPlannedModel(const std::string& model);

// INVALID_ARGUMENT names the option, its value and what is allowed.
absl::StatusOr<PlanReport> MakePlanReport(const PlanOptions& options,
                                          const ModelConfig& config);

nlohmann::ordered_json ToJson(const PlanReport& report);
std::string ToText(const PlanReport& report);

// RESOURCE_EXHAUSTED with what would do, when no layout fits.
absl::Status CheckFits(const PlanReport& report);

}  // namespace witan

#endif  // WITAN_CLI_PLAN_H_
