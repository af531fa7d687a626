#ifndef WITAN_BASE_BOUNDS_H_
#define WITAN_BASE_BOUNDS_H_

// INVALID_ARGUMENT that names a value, what it is and what it may be.

#include <absl/status/status.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace witan {

absl::Status CheckRange(std::string_view name, int64_t value, int64_t min,
                        int64_t max);
// NaN is in no range.
absl::Status CheckReal(std::string_view name, float value, double min,
                       double max);
absl::Status CheckCount(std::string_view name, int64_t count, int64_t max);
absl::Status CheckSize(std::string_view name, size_t bytes, size_t max);

}  // namespace witan

#endif  // WITAN_BASE_BOUNDS_H_
