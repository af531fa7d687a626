#ifndef WITAN_MODEL_SAFETENSORS_HEADER_H_
#define WITAN_MODEL_SAFETENSORS_HEADER_H_

#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace witan {

struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;  // a part of the file
};

// The tensors of one .safetensors file, of which `file` holds every byte, in
// the order of their data. Pure; all checks that one file allows
// (model/safetensors.h) are made here. Messages do not name the file.
absl::StatusOr<std::vector<TensorEntry>> ParseSafetensors(
    std::span<const std::byte> file);

}  // namespace witan

#endif  // WITAN_MODEL_SAFETENSORS_HEADER_H_
