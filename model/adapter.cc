#include "model/adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <tuple>

#include "base/file.h"
#include "base/limits.h"
#include "base/sha256.h"
#include "base/status.h"
#include "model/families.h"
#include "model/json_fields.h"
#include "model/json_object.h"

namespace witan {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kConfigFile = "adapter_config.json";
constexpr std::string_view kWeightsFile = "adapter_model.safetensors";
constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kA = ".lora_A.weight";
constexpr std::string_view kB = ".lora_B.weight";
// Before a name in a pattern that PEFT itself wrote.
constexpr std::string_view kAnyModule = ".*\\.";

// Refuses a field that is anything but one of these, or absent.
void RefuseUnless(JsonFields& reader, std::string_view name,
                  std::initializer_list<Json> served,
                  std::string_view allowed) {
  const Json* value = reader.Find(name);
  if (value == nullptr) return;
  for (const Json& one : served) {
    if (value->type() == one.type() && value->dump() == one.dump()) return;
  }
  reader.Refuse(name, *value, allowed);
}

void RefuseUnserved(JsonFields& reader) {
  RefuseUnless(reader, "peft_type", {"LORA"}, "\"LORA\"");
  RefuseUnless(reader, "bias", {"none"}, "\"none\"");
  for (const std::string_view name :
       {"use_dora", "use_qalora", "lora_bias", "fan_in_fan_out"}) {
    RefuseUnless(reader, name, {false}, "false");
  }
  for (const std::string_view name :
       {"modules_to_save", "trainable_token_indices", "layer_replication",
        "alora_invocation_tokens"}) {
    RefuseUnless(reader, name, {Json::array(), Json::object()}, "null");
  }
  // Others (PiSSA, OLoRA, CorDA, LoftQ) begin from a changed base model, unless
  // they were converted, which sets the field to true.
  RefuseUnless(reader, "init_lora_weights",
               {true, false, "gaussian", "eva", "orthogonal"},
               "true, false, \"gaussian\", \"eva\" or \"orthogonal\"; convert "
               "the adapter with PEFT's save_pretrained and "
               "path_initial_model_for_weight_conversion");
}

void ReadAlphaPattern(JsonFields& reader, AdapterConfig& config) {
  const Json* pattern = reader.Find("alpha_pattern");
  if (pattern == nullptr) return;
  constexpr std::string_view kAllowed =
      "an object with module names, without special characters of regular "
      "expressions, and numbers above 0";
  if (!pattern->is_object()) {
    reader.Refuse("alpha_pattern", *pattern, kAllowed);
    return;
  }
  for (const auto& [key, alpha] : pattern->items()) {
    std::string name = key;
    if (name.starts_with(kAnyModule)) name.erase(0, kAnyModule.size());
    if (name.find_first_of("*+?^$()[]{}|\\") != std::string::npos ||
        !alpha.is_number() || !(alpha.get<double>() > 0) ||
        alpha.get<double>() > kMaxAdapterAlpha) {
      reader.Refuse("alpha_pattern", *pattern, kAllowed);
      return;
    }
    config.alpha_pattern.emplace_back(name, alpha.get<double>());
  }
}

// Whether PEFT takes `pattern` for this module or parameter.
bool IsMeant(const std::string& pattern, const std::string& name) {
  return name == pattern || name.ends_with("." + pattern);
}

// PEFT takes the first pattern of the file, whose order is not kept here.
absl::StatusOr<double> AlphaOf(const AdapterConfig& config,
                               const std::string& name) {
  std::optional<double> found;
  for (const auto& [pattern, alpha] : config.alpha_pattern) {
    if (!IsMeant(pattern, name)) continue;
    if (found.value_or(alpha) != alpha) {
      return InvalidArgument(
          "{}: alpha_pattern has {} and {} for {}; allowed is one of them",
          kConfigFile, *found, alpha, name);
    }
    found = alpha;
  }
  return found.value_or(config.alpha);
}

// PEFT before 0.19 took the rows of stacked experts for their columns; the
// shapes do not always tell.
bool IsPeftOfStackedExperts(const std::string& version) {
  int major = 0, minor = 0;
  return std::sscanf(version.c_str(), "%d.%d", &major, &minor) == 2 &&
         (major > 0 || minor >= 19);
}

void ReadTargetParameters(JsonFields& reader, AdapterConfig& config) {
  const Json* names = reader.Find("target_parameters");
  if (names == nullptr || names->empty()) return;
  const bool are_strings =
      names->is_array() &&
      std::all_of(names->begin(), names->end(),
                  [](const Json& name) { return name.is_string(); });
  if (!are_strings) {
    reader.Refuse("target_parameters", *names, "null or a list of names");
    return;
  }
  config.target_parameters = names->get<std::vector<std::string>>();
  const Json* version = reader.Find("peft_version");
  if (version == nullptr || !version->is_string() ||
      !IsPeftOfStackedExperts(version->get<std::string>())) {
    reader.Refuse("peft_version", version == nullptr ? Json() : *version,
                  "0.19 or later with target_parameters: earlier ones stored "
                  "experts transposed; train it again");
  }
}

// What one pair of factors changes.
struct Module {
  struct Target {
    TensorSlice weight;
    int64_t first_row = 0;  // of the weight in `shape`
  };
  // Of what patterns are matched with.
  std::string name;
  std::vector<int64_t> shape;  // [O, K] of one weight, or of a fused one
  int64_t num_stacked = 1;     // experts; otherwise 1
  std::vector<Target> targets;
};
using Modules = std::map<std::string, Module>;

// The experts of a layer, for each the weights of these roles one over the
// other.
Module StackedExperts(const ModelConfig& base, int64_t layer,
                      std::initializer_list<TensorRole> roles,
                      std::string name) {
  Module module{.name = std::move(name),
                .shape = {0, 0},
                .num_stacked = base.num_experts,
                .targets = {}};
  for (const TensorRole role : roles) {
    const int64_t first_row = module.shape.front();
    for (int64_t expert = 0; expert < base.num_experts; ++expert) {
      const TensorSlice weight = WholeTensor(base, role, layer, expert);
      module.shape = {first_row + weight.rows.size(), weight.columns.size()};
      module.targets.push_back({weight, first_row});
    }
  }
  return module;
}

// Parameters of the names that transformers 5 has, in one layer of a model
// with experts.
void AddParameters(const ModelConfig& base, int64_t layer,
                   const AdapterConfig& config, Modules& modules) {
  const auto is_target = [&config](const std::string& name) {
    return std::any_of(
        config.target_parameters.begin(), config.target_parameters.end(),
        [&name](const std::string& target) { return IsMeant(target, name); });
  };
  const std::string ffn = fmt::format("model.layers.{}.mlp.", layer);
  const std::string experts = ffn + "experts";
  const std::string gate_up = experts + ".gate_up_proj";
  const std::string down = experts + ".down_proj";
  // A module's second parameter is wrapped around the first.
  if (is_target(gate_up)) {
    modules[is_target(down) ? experts + ".base_layer" : experts] =
        StackedExperts(base, layer,
                       {TensorRole::kExpertGate, TensorRole::kExpertUp},
                       gate_up);
  }
  if (is_target(down)) {
    modules[experts] =
        StackedExperts(base, layer, {TensorRole::kExpertDown}, down);
  }
  for (const std::string_view router : {"gate", "router"}) {
    const std::string name = fmt::format("{}{}.weight", ffn, router);
    if (!is_target(name)) continue;
    const TensorSlice weight =
        WholeTensor(base, TensorRole::kRouter, layer, -1);
    modules[fmt::format("{}{}", ffn, router)] = {
        .name = name,
        .shape = {weight.rows.size(), weight.columns.size()},
        .targets = {{weight, 0}}};
  }
}

// What adapters of this config may change, by the name of the tensors.
Modules ModulesOf(const ModelConfig& base, const AdapterConfig& config) {
  Modules modules;
  for (const TensorSlice& weight : ExpectedTensors(base)) {
    if (!IsAdaptable(weight.role)) continue;
    const TensorPlace place =
        PlaceOf(base, weight.role, weight.layer, weight.expert);
    const std::string name =
        place.name.substr(0, place.name.size() - sizeof(".weight") + 1);
    Module& module = modules[name];
    module.name = name;
    module.shape = place.stored_shape;
    module.targets.push_back({weight, place.first_row});
  }
  if (base.has_experts()) {
    for (int64_t layer = 0; layer < base.num_layers; ++layer) {
      AddParameters(base, layer, config, modules);
    }
  }
  return modules;
}

absl::Status CheckFactor(const std::string& name, const MappedTensor& tensor,
                         const std::vector<int64_t>& expected) {
  if (tensor.dtype == DType::kI32) {
    return InvalidArgument(
        "{}: {} is int32, allowed is float32, float16 or bfloat16",
        kWeightsFile, name);
  }
  if (tensor.shape == expected) return absl::OkStatus();
  return InvalidArgument("{}: {} has shape [{}], allowed is [{}]", kWeightsFile,
                         name, fmt::join(tensor.shape, ", "),
                         fmt::join(expected, ", "));
}

// The rank of the factors, of each expert where they are stacked.
absl::StatusOr<int64_t> RankOf(const std::string& name, const MappedTensor& a,
                               int64_t num_stacked,
                               const AdapterConfig& config) {
  const int64_t rows = a.shape.empty() ? 0 : a.shape.front();
  const int64_t rank = rows / num_stacked;
  if (rank < 1 || rank > kMaxAdapterRank || rank * num_stacked != rows) {
    return InvalidArgument(
        "{}: {} has {} rows, allowed is a rank from 1 to {}{}", kWeightsFile,
        name, rows, kMaxAdapterRank,
        num_stacked == 1 ? ""
                         : fmt::format(" for each of {} experts", num_stacked));
  }
  if (rank != config.rank && !config.has_rank_pattern) {
    return InvalidArgument("{}: {} has rank {}, but r of {} is {}",
                           kWeightsFile, name, rank, kConfigFile, config.rank);
  }
  return rank;
}

// The factors of one module, whose tensors begin with `name`.
absl::Status AddModule(const std::string& name, const Module& module,
                       const std::map<std::string, MappedTensor>& tensors,
                       const AdapterConfig& config,
                       std::vector<AdapterFactors>& factors) {
  const auto find = [&tensors](const std::string& tensor) {
    const auto it = tensors.find(tensor);
    return it == tensors.end() ? nullptr : &it->second;
  };
  const std::string a_name = fmt::format("{}{}{}", kPrefix, name, kA);
  const std::string b_name = fmt::format("{}{}{}", kPrefix, name, kB);
  const MappedTensor* a = find(a_name);
  const MappedTensor* b = find(b_name);
  if (a == nullptr || b == nullptr) {
    return InvalidArgument(
        "{}: {} is missing, and {} is there; one is of no "
        "use without the other",
        kWeightsFile, a == nullptr ? a_name : b_name,
        a == nullptr ? b_name : a_name);
  }
  ASSIGN_OR_RETURN(const int64_t rank,
                   RankOf(a_name, *a, module.num_stacked, config));
  const int64_t all_ranks = rank * module.num_stacked;
  RETURN_IF_ERROR(CheckFactor(a_name, *a, {all_ranks, module.shape.back()}));
  RETURN_IF_ERROR(CheckFactor(b_name, *b, {module.shape.front(), all_ranks}));
  const double divisor = config.rank_stabilised
                             ? std::sqrt(static_cast<double>(rank))
                             : static_cast<double>(rank);
  ASSIGN_OR_RETURN(const double alpha, AlphaOf(config, module.name));
  for (const auto& [weight, first_row] : module.targets) {
    const int64_t stacked = module.num_stacked == 1 ? 0 : weight.expert;
    factors.push_back({.role = weight.role,
                       .layer = weight.layer,
                       .expert = weight.expert,
                       .rank = rank,
                       .scale = static_cast<float>(alpha / divisor),
                       .a = a,
                       .b = b,
                       .first_row = first_row,
                       .a_first_row = stacked * rank,
                       .b_first_column = stacked,
                       .b_column_step = module.num_stacked});
  }
  return absl::OkStatus();
}

// Two forms of one weight, which would be added up.
absl::Status CheckChangedOnce(const std::vector<AdapterFactors>& all) {
  std::set<std::tuple<TensorRole, int64_t, int64_t>> changed;
  for (const AdapterFactors& factors : all) {
    if (changed.insert({factors.role, factors.layer, factors.expert}).second) {
      continue;
    }
    return InvalidArgument(
        "{}: two pairs of tensors change one weight of layer {}; allowed is "
        "one pair",
        kWeightsFile, factors.layer);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AdapterConfig> ParseAdapterConfig(const std::string& json) {
  ASSIGN_OR_RETURN(const Json object, ParseConfigFile(kConfigFile, json));
  JsonFields reader(kConfigFile, object);
  AdapterConfig config;
  RefuseUnserved(reader);
  config.rank = reader.Integer("r", 1, kMaxAdapterRank);
  config.alpha = reader.Number("lora_alpha", 0, kMaxAdapterAlpha, true);
  config.rank_stabilised = reader.Boolean("use_rslora", false);
  const Json* ranks = reader.Find("rank_pattern");
  config.has_rank_pattern = ranks != nullptr && !ranks->empty();
  ReadAlphaPattern(reader, config);
  ReadTargetParameters(reader, config);
  RETURN_IF_ERROR(reader.status());
  return config;
}

absl::StatusOr<std::vector<AdapterFactors>> MatchFactors(
    const AdapterConfig& config,
    const std::map<std::string, MappedTensor>& tensors,
    const ModelConfig& base) {
  const Modules modules = ModulesOf(base, config);
  std::vector<std::string> unknown;
  std::set<std::string> found;
  for (const auto& [name, tensor] : tensors) {
    std::string_view module = name;
    const bool has_prefix = name.starts_with(kPrefix);
    if (has_prefix) module.remove_prefix(kPrefix.size());
    if (has_prefix && (module.ends_with(kA) || module.ends_with(kB))) {
      module.remove_suffix(kA.size());
      if (modules.contains(std::string(module))) {
        found.emplace(module);
        continue;
      }
    }
    unknown.push_back(Quoted(name));
  }
  if (!unknown.empty() || found.empty()) {
    const size_t num_listed = std::min(unknown.size(), kMaxListedNames);
    return InvalidArgument(
        "{}: {} of {} tensors change no weight that a {} lets adapters change "
        "(attention, FFN, router, experts): {}{}",
        kWeightsFile, unknown.size(), tensors.size(), base.architecture,
        fmt::join(unknown.begin(), unknown.begin() + num_listed, ", "),
        unknown.size() > num_listed ? " ..." : "");
  }
  std::vector<AdapterFactors> factors;
  for (const std::string& name : found) {
    RETURN_IF_ERROR(
        AddModule(name, modules.at(name), tensors, config, factors));
  }
  RETURN_IF_ERROR(CheckChangedOnce(factors));
  return factors;
}

absl::StatusOr<std::unique_ptr<Adapter>> Adapter::Open(
    const std::string& directory, const ModelConfig& base) {
  ASSIGN_OR_RETURN(const std::string text,
                   ReadFile(fmt::format("{}/{}", directory, kConfigFile),
                            kMaxConfigFileBytes));
  ASSIGN_OR_RETURN(const AdapterConfig config, ParseAdapterConfig(text));
  const std::string weights = fmt::format("{}/{}", directory, kWeightsFile);
  RETURN_IF_ERROR(IdentityOfFile(weights).status());  // NOT_FOUND
  std::unique_ptr<Adapter> adapter(new Adapter());
  ASSIGN_OR_RETURN(adapter->checkpoint_, Checkpoint::OpenFile(weights));
  ASSIGN_OR_RETURN(adapter->factors_,
                   MatchFactors(config, adapter->checkpoint_->tensors(), base));
  for (const AdapterFactors& factors : adapter->factors_) {
    adapter->max_rank_ = std::max(adapter->max_rank_, factors.rank);
  }
  Sha256 hash;
  hash.Update(text);
  for (const auto& [name, tensor] : adapter->checkpoint_->tensors()) {
    hash.Update(fmt::format("\n{} {} [{}]\n", name, NameOf(tensor.dtype),
                            fmt::join(tensor.shape, ",")));
    hash.Update(tensor.data.data(), tensor.data.size());
  }
  adapter->content_hash_ = hash.Finish();
  return adapter;
}

bool IsAdaptable(TensorRole role) {
  switch (role) {
    case TensorRole::kQuery:
    case TensorRole::kKey:
    case TensorRole::kValue:
    case TensorRole::kOutput:
    case TensorRole::kGate:
    case TensorRole::kUp:
    case TensorRole::kDown:
    case TensorRole::kRouter:
    case TensorRole::kExpertGate:
    case TensorRole::kExpertUp:
    case TensorRole::kExpertDown:
      return true;
    default:
      return false;
  }
}

int64_t AdapterBytes(const ModelConfig& config, const RankShard& shard,
                     int64_t max_rank) {
  int64_t elements = 0;
  for (const TensorSlice& slice : SlicesOfRank(config, shard)) {
    if (!IsAdaptable(slice.role)) continue;
    elements += max_rank * (slice.rows.size() + slice.columns.size());
  }
  return elements * static_cast<int64_t>(SizeOf(config.weights));
}

}  // namespace witan
