#ifndef WITAN_BASE_FILE_H_
#define WITAN_BASE_FILE_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>

namespace witan {

// The whole file. NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT (larger than
// max_bytes, or not a regular file) name the path.
absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes);

// The same, empty where there is no such file.
absl::StatusOr<std::string> ReadFileOrEmpty(const std::string& path,
                                            int64_t max_bytes);

}  // namespace witan

#endif  // WITAN_BASE_FILE_H_
