#include "base/bounds.h"

#include "base/status.h"

namespace witan {

absl::Status CheckRange(std::string_view name, int64_t value, int64_t min,
                        int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return InvalidArgument("{} is {}; allowed is {} to {}", name, value, min,
                         max);
}

absl::Status CheckReal(std::string_view name, float value, double min,
                       double max) {
  if (value >= min && value <= max) return absl::OkStatus();  // false for NaN
  return InvalidArgument("{} is {}; allowed is {:g} to {:g}", name, value, min,
                         max);
}

absl::Status CheckCount(std::string_view name, int64_t count, int64_t max) {
  if (count <= max) return absl::OkStatus();
  return InvalidArgument("{} has {} entries; at most {} are allowed", name,
                         count, max);
}

absl::Status CheckSize(std::string_view name, size_t bytes, size_t max) {
  if (bytes <= max) return absl::OkStatus();
  return InvalidArgument("{} has {} bytes; at most {} are allowed", name, bytes,
                         max);
}

}  // namespace witan
