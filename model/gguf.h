#ifndef WITAN_MODEL_GGUF_H_
#define WITAN_MODEL_GGUF_H_

// One GGUF file, version 2 or 3, little-endian: metadata (typed keys and
// values) and a table of tensors. Format: docs/gguf.md of ggml. Every count,
// length, type, dimension and offset is checked against the file before it is
// used: keys and names unique, rows of whole blocks, tensors aligned and inside
// the file without overlap.

#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "model/gguf_quants.h"

namespace witan {

// Lists of numbers and booleans are widened; a list holds one kind.
using GgufValue =
    std::variant<bool, int64_t, uint64_t, double, std::string_view,
                 std::vector<bool>, std::vector<int64_t>, std::vector<uint64_t>,
                 std::vector<double>, std::vector<std::string_view>>;

// "a list of 3 integers", for messages.
std::string DescribeGguf(const GgufValue& value);

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;       // row-major, the file's order turned round
  std::span<const std::byte> data;  // whole blocks
  int64_t file_offset = 0;
};

// Strings are views into the file.
struct Gguf {
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<GgufTensor> tensors;  // in the order of the table

  // Null when there is no such key.
  const GgufValue* Find(std::string_view key) const;
};

// `file` holds every byte. Pure. Messages do not name the file.
absl::StatusOr<Gguf> ParseGguf(std::span<const std::byte> file);

}  // namespace witan

#endif  // WITAN_MODEL_GGUF_H_
