#include "model/adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

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
        "alora_invocation_tokens", "target_parameters"}) {
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
  for (const auto& [name, alpha] : pattern->items()) {
    if (name.find_first_of("*+?^$()[]{}|\\") != std::string::npos ||
        !alpha.is_number() || !(alpha.get<double>() > 0) ||
        alpha.get<double>() > kMaxAdapterAlpha) {
      reader.Refuse("alpha_pattern", *pattern, kAllowed);
      return;
    }
    config.alpha_pattern.emplace_back(name, alpha.get<double>());
  }
}

double AlphaOf(const AdapterConfig& config, const std::string& module) {
  for (const auto& [name, alpha] : config.alpha_pattern) {
    if (module == name || module.ends_with("." + name)) return alpha;
  }
  return config.alpha;
}

// The adaptable weights of the model by the name of their module, those of a
// fused tensor together.
struct Target {
  TensorSlice weight;
  TensorPlace place;
};
std::map<std::string, std::vector<Target>> TargetsOf(const ModelConfig& base) {
  std::map<std::string, std::vector<Target>> targets;
  for (const TensorSlice& weight : ExpectedTensors(base)) {
    if (!IsAdaptable(weight.role)) continue;
    TensorPlace place = PlaceOf(base, weight.role, weight.layer, weight.expert);
    std::string module =
        place.name.substr(0, place.name.size() - sizeof(".weight") + 1);
    targets[std::move(module)].push_back({weight, std::move(place)});
  }
  return targets;
}

absl::Status CheckFactor(const std::string& name, const MappedTensor& tensor,
                         const std::vector<int64_t>& expected) {
  if (tensor.shape == expected) return absl::OkStatus();
  return InvalidArgument("{}: {} has shape [{}], allowed is [{}]", kWeightsFile,
                         name, fmt::join(tensor.shape, ", "),
                         fmt::join(expected, ", "));
}

// The factors of one module.
absl::Status AddModule(const std::string& module,
                       const std::vector<Target>& targets,
                       const Checkpoint& checkpoint,
                       const AdapterConfig& config,
                       std::vector<AdapterFactors>& factors) {
  const std::string a_name = fmt::format("{}{}{}", kPrefix, module, kA);
  const std::string b_name = fmt::format("{}{}{}", kPrefix, module, kB);
  const MappedTensor* a = checkpoint.Find(a_name);
  const MappedTensor* b = checkpoint.Find(b_name);
  if (a == nullptr || b == nullptr) {
    return InvalidArgument(
        "{}: {} is missing, and {} is there; one is of no "
        "use without the other",
        kWeightsFile, a == nullptr ? a_name : b_name,
        a == nullptr ? b_name : a_name);
  }
  const int64_t rank = a->shape.empty() ? 0 : a->shape.front();
  if (rank < 1 || rank > kMaxAdapterRank) {
    return InvalidArgument("{}: {} has {} rows, allowed is a rank from 1 to {}",
                           kWeightsFile, a_name, rank, kMaxAdapterRank);
  }
  if (rank != config.rank && !config.has_rank_pattern) {
    return InvalidArgument("{}: {} has rank {}, but r of {} is {}",
                           kWeightsFile, a_name, rank, kConfigFile,
                           config.rank);
  }
  const std::vector<int64_t>& shape = targets.front().place.stored_shape;
  RETURN_IF_ERROR(CheckFactor(a_name, *a, {rank, shape.back()}));
  RETURN_IF_ERROR(CheckFactor(b_name, *b, {shape.front(), rank}));
  const double divisor = config.rank_stabilised
                             ? std::sqrt(static_cast<double>(rank))
                             : static_cast<double>(rank);
  for (const Target& target : targets) {
    factors.push_back(
        {.role = target.weight.role,
         .layer = target.weight.layer,
         .expert = target.weight.expert,
         .rank = rank,
         .scale = static_cast<float>(AlphaOf(config, module) / divisor),
         .a = a,
         .b = b,
         .first_row = target.place.first_row});
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
  RETURN_IF_ERROR(reader.status());
  return config;
}

absl::StatusOr<std::unique_ptr<Adapter>> Adapter::Open(
    const std::string& directory, const ModelConfig& base) {
  ASSIGN_OR_RETURN(const std::string text,
                   ReadFile(fmt::format("{}/{}", directory, kConfigFile),
                            kMaxConfigFileBytes));
  ASSIGN_OR_RETURN(const AdapterConfig config, ParseAdapterConfig(text));
  std::unique_ptr<Adapter> adapter(new Adapter());
  ASSIGN_OR_RETURN(
      adapter->checkpoint_,
      Checkpoint::OpenFile(fmt::format("{}/{}", directory, kWeightsFile)));
  const auto targets = TargetsOf(base);
  std::vector<std::string> unknown;
  std::vector<std::string> modules;
  Sha256 hash;
  hash.Update(text);
  for (const auto& [name, tensor] : adapter->checkpoint_->tensors()) {
    hash.Update(fmt::format("\n{} {} [{}]\n", name, NameOf(tensor.dtype),
                            fmt::join(tensor.shape, ",")));
    hash.Update(tensor.data.data(), tensor.data.size());
    std::string_view module = name;
    const bool has_prefix = name.starts_with(kPrefix);
    if (has_prefix) module.remove_prefix(kPrefix.size());
    if (has_prefix && (module.ends_with(kA) || module.ends_with(kB))) {
      module.remove_suffix(kA.size());
      if (targets.contains(std::string(module))) {
        modules.emplace_back(module);
        continue;
      }
    }
    unknown.push_back(Quoted(name));
  }
  if (!unknown.empty() || modules.empty()) {
    const size_t num_listed = std::min(unknown.size(), kMaxListedNames);
    return InvalidArgument(
        "{}: {} of {} tensors change no weight that a {} lets adapters change "
        "(attention, FFN, router, experts): {}{}",
        kWeightsFile, unknown.size(), adapter->checkpoint_->tensors().size(),
        base.architecture,
        fmt::join(unknown.begin(), unknown.begin() + num_listed, ", "),
        unknown.size() > num_listed ? " ..." : "");
  }
  std::sort(modules.begin(), modules.end());
  modules.erase(std::unique(modules.begin(), modules.end()), modules.end());
  for (const std::string& module : modules) {
    RETURN_IF_ERROR(AddModule(module, targets.at(module), *adapter->checkpoint_,
                              config, adapter->factors_));
  }
  for (const AdapterFactors& factors : adapter->factors_) {
    adapter->max_rank_ = std::max(adapter->max_rank_, factors.rank);
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
