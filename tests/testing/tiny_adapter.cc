#include "tests/testing/tiny_adapter.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "model/adapter.h"
#include "model/families.h"
#include "tests/testing/random_elements.h"
#include "tests/testing/tiny_model.h"

namespace witan {
TinyAdapter::TinyAdapter(const ModelConfig& base,
                         const TinyAdapterOptions& options) {
  NormalNumbers normal(options.seed);
  std::map<std::string, StoredTensor> tensors;
  const auto add = [&](const std::string& name, int64_t rows, int64_t columns,
                       double deviation) {
    StoredTensor tensor{FormatName(options.dtype), {rows, columns}, ""};
    for (int64_t i = 0; i < rows * columns; ++i) {
      AppendElement(tensor.bytes, options.dtype,
                    static_cast<float>(deviation * normal.Next()));
    }
    tensors.emplace(name, std::move(tensor));
  };
  const double scale =
      options.alpha /
      (options.rank_stabilised ? std::sqrt(options.rank) : options.rank);
  for (const TensorSlice& weight : ExpectedTensors(base)) {
    if (!IsAdaptable(weight.role)) continue;
    if (options.changes && !options.changes(weight)) continue;
    const TensorPlace place =
        PlaceOf(base, weight.role, weight.layer, weight.expert);
    const std::string module =
        "base_model.model." +
        place.name.substr(0, place.name.size() - sizeof(".weight") + 1);
    if (tensors.contains(module + ".lora_A.weight")) continue;  // fused
    const int64_t rows = place.stored_shape.front();
    const int64_t columns = place.stored_shape.back();
    add(module + ".lora_A.weight", options.rank, columns,
        1 / std::sqrt(columns));
    add(module + ".lora_B.weight", rows, options.rank,
        0.7 / (scale * std::sqrt(options.rank)));
  }
  directory_.Write("adapter_model.safetensors", SafetensorsFile(tensors));
  const nlohmann::json config = {
      {"peft_type", "LORA"},
      {"r", options.rank},
      {"lora_alpha", options.alpha},
      {"use_rslora", options.rank_stabilised},
      {"bias", "none"},
      {"target_modules", "all-linear"},
      {"base_model_name_or_path", "tiny"},
  };
  directory_.Write("adapter_config.json", config.dump(2));
}

}  // namespace witan
