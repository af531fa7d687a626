// An adapter: its adapter_config.json and, after a zero byte, its
// adapter_model.safetensors. What is accepted changes weights of a small model,
// each once, with factors that lie in their tensors.

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "base/file.h"
#include "base/limits.h"
#include "model/adapter.h"
#include "model/safetensors_header.h"
#include "tests/fuzz/sections.h"
#include "tests/fuzz/target.h"
#include "tests/testing/tiny_adapter.h"
#include "tests/testing/tiny_model.h"

namespace witan::fuzz {
namespace {

// Fused weights in one, stacked experts in the other.
constexpr const char* kArchitectures[] = {"Phi3ForCausalLM",
                                          "MixtralForCausalLM"};

void CheckFactors(const std::vector<AdapterFactors>& all,
                  const ModelConfig& base, Promises* promises) {
  std::set<std::tuple<TensorRole, int64_t, int64_t>> seen;
  for (const AdapterFactors& f : all) {
    promises->Expect(
        IsAdaptable(f.role) && seen.insert({f.role, f.layer, f.expert}).second,
        "every weight is changed once");
    const TensorSlice weight = WholeTensor(base, f.role, f.layer, f.expert);
    promises->Expect(
        f.rank >= 1 && f.rank <= kMaxAdapterRank && std::isfinite(f.scale),
        "rank and scale are within their bounds");
    promises->Expect(
        f.a->shape.size() == 2 && f.a_first_row >= 0 &&
            f.a_first_row + f.rank <= f.a->shape[0] &&
            f.a->shape[1] == weight.columns.size(),
        "the rows of a lie in it, and are as long as those of the weight");
    promises->Expect(
        f.b->shape.size() == 2 && f.first_row >= 0 &&
            f.first_row + weight.rows.size() <= f.b->shape[0] &&
            f.b_first_column >= 0 && f.b_column_step >= 1 &&
            f.b_first_column + (f.rank - 1) * f.b_column_step < f.b->shape[1],
        "the rows and columns of b lie in it");
  }
}

}  // namespace

Outcome RunAdapter(std::string_view input) {
  Promises promises;
  const std::vector<std::string> sections = SectionsOf(input, 2);
  const auto config = ParseAdapterConfig(sections[0]);
  if (!config.ok()) return promises.Refused(config.status());
  const std::string& file = sections[1];
  const auto copy = std::make_unique<std::byte[]>(file.size());
  std::memcpy(copy.get(), file.data(), file.size());
  const auto entries = ParseSafetensors({copy.get(), file.size()});
  if (!entries.ok()) return promises.Refused(entries.status());
  std::map<std::string, MappedTensor> tensors;
  for (const TensorEntry& entry : *entries) {
    tensors[entry.name] = {
        .dtype = entry.dtype, .shape = entry.shape, .data = entry.data};
  }
  absl::Status refused;
  bool is_accepted = false;
  for (const char* architecture : kArchitectures) {
    const ModelConfig base = TinyFamilyConfig(architecture);
    const auto factors = MatchFactors(*config, tensors, base);
    if (factors.ok()) {
      is_accepted = true;
      CheckFactors(*factors, base, &promises);
    } else {
      refused = factors.status();
    }
  }
  return is_accepted ? promises.Accepted() : promises.Refused(refused);
}

std::vector<std::string> AdapterSeeds() {
  std::vector<std::string> seeds;
  for (const char* architecture : kArchitectures) {
    const ModelConfig base = TinyFamilyConfig(architecture);
    for (const TinyAdapterOptions& options :
         {TinyAdapterOptions{.rank = 1,
         .changes =
                                 [](const TensorSlice& weight) {
                                   return weight.layer == 0 &&
                                          weight.expert < 1;
                                 }},
          TinyAdapterOptions{.rank = 2,
          .rank_stabilised = true,
          .dtype = DType::kBF16,
          .changes = [](const TensorSlice& weight) {
            return weight.role == TensorRole::kOutput;
          }}}) {
      const TinyAdapter adapter(base, options);
      seeds.push_back(JoinSections(
          {*ReadFile(adapter.directory() + "/adapter_config.json",
                     kMaxConfigFileBytes),
           *ReadFile(adapter.directory() + "/adapter_model.safetensors",
                     int64_t{1} << 24)}));
    }
  }
  return seeds;
}

}  // namespace witan::fuzz
