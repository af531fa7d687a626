#include "model/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "model/json_object.h"

namespace witan {
namespace {

static_assert(std::endian::native == std::endian::little,
              "numbers are copied as the file has them");

constexpr std::string_view kMagic = "GGUF";
constexpr std::string_view kAlignmentKey = "general.alignment";
constexpr int64_t kDefaultAlignment = 32;

enum class ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

// Calls visitor(T()) with the C++ type of a number; false for other types.
template <typename Visitor>
bool VisitNumber(ValueType type, Visitor&& visitor) {
  switch (type) {
    case ValueType::kUint8:
      return visitor(uint8_t());
    case ValueType::kInt8:
      return visitor(int8_t());
    case ValueType::kUint16:
      return visitor(uint16_t());
    case ValueType::kInt16:
      return visitor(int16_t());
    case ValueType::kUint32:
      return visitor(uint32_t());
    case ValueType::kInt32:
      return visitor(int32_t());
    case ValueType::kUint64:
      return visitor(uint64_t());
    case ValueType::kInt64:
      return visitor(int64_t());
    case ValueType::kFloat32:
      return visitor(float());
    case ValueType::kFloat64:
      return visitor(double());
    case ValueType::kBool:
    case ValueType::kString:
    case ValueType::kArray:
      break;
  }
  return false;
}

// What a number of the file becomes.
template <typename T>
using Widened = std::conditional_t<
    std::is_floating_point_v<T>, double,
    std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;

// Reads from front to back. `what` names what is read, for messages.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> file) : file_(file) {}

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return file_.size() - offset_; }

  // Counts elements of lists, of which each takes more memory than file.
  absl::Status CountElements(std::string_view what, uint64_t count) {
    num_elements_ += std::min(count, kMaxGgufListElements + 1);
    if (num_elements_ <= kMaxGgufListElements) return absl::OkStatus();
    return InvalidArgument(
        "{} has {} elements; allowed are {} in all lists together", what, count,
        kMaxGgufListElements);
  }

  template <typename T>
  absl::StatusOr<T> Number(std::string_view what) {
    if (left() < sizeof(T)) return CutShort(what, sizeof(T));
    T value;
    std::memcpy(&value, file_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  absl::StatusOr<std::string_view> String(std::string_view what) {
    ASSIGN_OR_RETURN(const auto size, Number<uint64_t>(what));
    if (size > left()) return CutShort(what, size);
    const std::string_view text(
        reinterpret_cast<const char*>(file_.data()) + offset_, size);
    offset_ += size;
    return text;
  }

  absl::StatusOr<bool> Bool(std::string_view what) {
    ASSIGN_OR_RETURN(const auto value, Number<uint8_t>(what));
    if (value > 1) {
      return InvalidArgument("{} is {}; allowed is 0 or 1", what, value);
    }
    return value == 1;
  }

  absl::Status CutShort(std::string_view what, uint64_t bytes) const {
    return InvalidArgument(
        "{} takes {} bytes at offset {}, and the file has {} more; it was cut "
        "short or is damaged: download it again",
        what, bytes, offset_, left());
  }

 private:
  std::span<const std::byte> file_;
  uint64_t offset_ = 0;
  uint64_t num_elements_ = 0;
};

absl::StatusOr<ValueType> CheckedType(uint32_t type, std::string_view what) {
  if (type > static_cast<uint32_t>(ValueType::kFloat64)) {
    return InvalidArgument("{} is of type {}; allowed is 0 to {}", what, type,
                           static_cast<uint32_t>(ValueType::kFloat64));
  }
  return static_cast<ValueType>(type);
}

// `read` reads one element, of at least min_bytes.
template <typename T, typename Read>
absl::StatusOr<GgufValue> ReadElements(Reader& reader, std::string_view what,
                                       uint64_t count, uint64_t min_bytes,
                                       Read&& read) {
  if (count > reader.left() / min_bytes) {
    return InvalidArgument(
        "{} has {} elements of at least {} bytes, and the file has {} bytes "
        "more; it was cut short or is damaged: download it again",
        what, count, min_bytes, reader.left());
  }
  RETURN_IF_ERROR(reader.CountElements(what, count));
  std::vector<T> elements;
  elements.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const auto element, read());
    elements.push_back(element);
  }
  return GgufValue(std::move(elements));
}

absl::StatusOr<GgufValue> ReadArray(Reader& reader, std::string_view what) {
  ASSIGN_OR_RETURN(const auto type_number, reader.Number<uint32_t>(what));
  ASSIGN_OR_RETURN(const ValueType type, CheckedType(type_number, what));
  ASSIGN_OR_RETURN(const auto count, reader.Number<uint64_t>(what));
  if (type == ValueType::kArray) {
    return InvalidArgument("{} is a list of lists, which is not read", what);
  }
  if (type == ValueType::kString) {
    return ReadElements<std::string_view>(reader, what, count, sizeof(uint64_t),
                                          [&] { return reader.String(what); });
  }
  if (type == ValueType::kBool) {
    return ReadElements<bool>(reader, what, count, 1,
                              [&] { return reader.Bool(what); });
  }
  absl::StatusOr<GgufValue> value = Internal("a number has no type");
  VisitNumber(type, [&](auto number) {
    using T = decltype(number);
    value = ReadElements<Widened<T>>(reader, what, count, sizeof(T),
                                     [&] { return reader.Number<T>(what); });
    return true;
  });
  return value;
}

absl::StatusOr<GgufValue> ReadValue(Reader& reader, std::string_view what) {
  ASSIGN_OR_RETURN(const auto type_number, reader.Number<uint32_t>(what));
  ASSIGN_OR_RETURN(const ValueType type, CheckedType(type_number, what));
  if (type == ValueType::kArray) return ReadArray(reader, what);
  if (type == ValueType::kString) {
    ASSIGN_OR_RETURN(const std::string_view text, reader.String(what));
    return GgufValue(text);
  }
  if (type == ValueType::kBool) {
    ASSIGN_OR_RETURN(const bool value, reader.Bool(what));
    return GgufValue(value);
  }
  absl::StatusOr<GgufValue> value = Internal("a number has no type");
  VisitNumber(type, [&](auto number) {
    using T = decltype(number);
    const absl::StatusOr<T> read = reader.Number<T>(what);
    if (read.ok()) {
      value = GgufValue(Widened<T>{*read});
    } else {
      value = read.status();
    }
    return true;
  });
  return value;
}

// The name of a key or a tensor.
absl::StatusOr<std::string> ReadName(Reader& reader, std::string_view what) {
  ASSIGN_OR_RETURN(const std::string_view name, reader.String(what));
  if (name.empty() || name.size() > kMaxGgufNameBytes || !IsValidUtf8(name)) {
    return InvalidArgument("{} is {}; allowed is UTF-8 of 1 to {} bytes", what,
                           Quoted(name), kMaxGgufNameBytes);
  }
  return std::string(name);
}

// Of a count in the header: `min_bytes` is what one takes at least.
absl::StatusOr<uint64_t> ReadCount(Reader& reader, std::string_view what,
                                   int64_t max, uint64_t min_bytes) {
  ASSIGN_OR_RETURN(const auto count, reader.Number<uint64_t>(what));
  const uint64_t allowed =
      std::min(static_cast<uint64_t>(max), reader.left() / min_bytes);
  if (count > allowed) {
    return InvalidArgument(
        "{} is {}; allowed is at most {}, which the {} bytes behind it can "
        "hold; the file was cut short or is damaged: download it again",
        what, count, allowed, reader.left());
  }
  return count;
}

absl::Status CheckVersion(uint32_t version) {
  if (version == 2 || version == 3) return absl::OkStatus();
  if (version != 0 && (version & 0xffff) == 0) {
    return InvalidArgument(
        "the version is {:#x}: the file is big-endian; convert the model on a "
        "little-endian machine",
        version);
  }
  return InvalidArgument(
      "the version is {}; allowed is 2 or 3; convert the model anew", version);
}

absl::StatusOr<int64_t> AlignmentOf(const Gguf& gguf) {
  const GgufValue* value = gguf.Find(kAlignmentKey);
  if (value == nullptr) return kDefaultAlignment;
  const auto* alignment = std::get_if<uint64_t>(value);
  if (alignment == nullptr || *alignment < 8 ||
      *alignment > kMaxGgufAlignment || !std::has_single_bit(*alignment)) {
    return InvalidArgument("{} is {}; allowed is a power of two from 8 to {}",
                           kAlignmentKey, DescribeGguf(*value),
                           kMaxGgufAlignment);
  }
  return static_cast<int64_t>(*alignment);
}

// A row of the table. The offset counts from the beginning of the data.
struct TableRow {
  GgufTensor tensor;
  uint64_t offset = 0;
  uint64_t num_bytes = 0;
};

absl::StatusOr<std::vector<int64_t>> ReadShape(Reader& reader,
                                               std::string_view what) {
  ASSIGN_OR_RETURN(const auto num_dimensions, reader.Number<uint32_t>(what));
  if (num_dimensions < 1 || num_dimensions > kMaxGgufDimensions) {
    return InvalidArgument("{} has {} dimensions; allowed is 1 to {}", what,
                           num_dimensions, kMaxGgufDimensions);
  }
  std::vector<int64_t> shape(num_dimensions);
  uint64_t num_elements = 1;
  // The file lists the innermost dimension first.
  for (auto dimension = shape.rbegin(); dimension != shape.rend();
       ++dimension) {
    ASSIGN_OR_RETURN(const auto size, reader.Number<uint64_t>(what));
    constexpr uint64_t kElementsBound = std::numeric_limits<int64_t>::max() / 8;
    if (size < 1 || size > kElementsBound / num_elements) {
      return InvalidArgument(
          "{} has a dimension of {}; allowed is at least 1, and less than 2^60 "
          "elements in all",
          what, size);
    }
    num_elements *= size;
    *dimension = static_cast<int64_t>(size);
  }
  return shape;
}

absl::StatusOr<TableRow> ReadTableRow(Reader& reader, int64_t alignment) {
  TableRow row;
  ASSIGN_OR_RETURN(row.tensor.name, ReadName(reader, "the name of a tensor"));
  const std::string what = fmt::format("tensor {}", Quoted(row.tensor.name));
  ASSIGN_OR_RETURN(row.tensor.shape, ReadShape(reader, what));
  ASSIGN_OR_RETURN(const auto type, reader.Number<uint32_t>(what));
  const GgmlTypeTraits* const traits = FindGgmlType(type);
  if (traits == nullptr) {
    return InvalidArgument(
        "{} is of ggml type {}; allowed are {}; take another quantisation of "
        "the model",
        what, type, KnownGgmlTypes());
  }
  row.tensor.type = traits->type;
  const int64_t row_elements = row.tensor.shape.back();
  if (row_elements % traits->block_elements != 0) {
    return InvalidArgument(
        "{} has rows of {} elements; allowed is a multiple of {}, the block of "
        "{}",
        what, row_elements, traits->block_elements, traits->name);
  }
  uint64_t num_blocks = 1;
  for (const int64_t size : row.tensor.shape) {
    num_blocks *= static_cast<uint64_t>(size);
  }
  num_blocks /= static_cast<uint64_t>(traits->block_elements);
  const auto block_bytes = static_cast<uint64_t>(traits->block_bytes);
  if (num_blocks > reader.left() / block_bytes) {
    return InvalidArgument(
        "{} has {} blocks of {} bytes, and the file {} bytes more; it was cut "
        "short or is damaged: download it again",
        what, num_blocks, block_bytes, reader.left());
  }
  row.num_bytes = num_blocks * block_bytes;
  ASSIGN_OR_RETURN(row.offset, reader.Number<uint64_t>(what));
  if (row.offset % static_cast<uint64_t>(alignment) != 0) {
    return InvalidArgument("{} has offset {}; allowed is a multiple of {} ({})",
                           what, row.offset, alignment, kAlignmentKey);
  }
  return row;
}

// Gives each tensor its bytes.
absl::Status PlaceTensors(std::span<const std::byte> file, uint64_t data_begin,
                          std::vector<TableRow>& rows) {
  const uint64_t data_bytes =
      file.size() - std::min<uint64_t>(data_begin, file.size());
  std::vector<TableRow*> by_offset;
  by_offset.reserve(rows.size());
  for (TableRow& row : rows) by_offset.push_back(&row);
  std::sort(by_offset.begin(), by_offset.end(),
            [](const TableRow* a, const TableRow* b) {
              return std::pair(a->offset, a->num_bytes) <
                     std::pair(b->offset, b->num_bytes);
            });
  const TableRow* before = nullptr;
  for (TableRow* row : by_offset) {
    if (row->offset > data_bytes || row->num_bytes > data_bytes - row->offset) {
      return InvalidArgument(
          "tensor {} has {} bytes at offset {} of the data, which has {}; the "
          "file was cut short or is damaged: download it again",
          Quoted(row->tensor.name), row->num_bytes, row->offset, data_bytes);
    }
    if (before != nullptr && row->offset - before->offset < before->num_bytes) {
      return InvalidArgument("tensor {} overlaps tensor {}",
                             Quoted(row->tensor.name),
                             Quoted(before->tensor.name));
    }
    before = row;
    const uint64_t begin = data_begin + row->offset;
    row->tensor.data = file.subspan(begin, row->num_bytes);
    row->tensor.file_offset = static_cast<int64_t>(begin);
  }
  return absl::OkStatus();
}

absl::Status ReadMetadata(Reader& reader, uint64_t num_keys, Gguf& gguf) {
  for (uint64_t i = 0; i < num_keys; ++i) {
    ASSIGN_OR_RETURN(std::string key, ReadName(reader, "a key"));
    const std::string what = Quoted(key);
    ASSIGN_OR_RETURN(GgufValue value, ReadValue(reader, what));
    if (!gguf.metadata.emplace(std::move(key), std::move(value)).second) {
      return InvalidArgument("the key {} occurs twice", what);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadTensors(std::span<const std::byte> file, Reader& reader,
                         uint64_t num_tensors, Gguf& gguf) {
  ASSIGN_OR_RETURN(const int64_t alignment, AlignmentOf(gguf));
  std::vector<TableRow> rows;
  rows.reserve(num_tensors);
  for (uint64_t i = 0; i < num_tensors; ++i) {
    ASSIGN_OR_RETURN(TableRow row, ReadTableRow(reader, alignment));
    rows.push_back(std::move(row));
  }
  const auto unit = static_cast<uint64_t>(alignment);
  RETURN_IF_ERROR(
      PlaceTensors(file, (reader.offset() + unit - 1) / unit * unit, rows));
  std::vector<std::string_view> names;
  for (TableRow& row : rows) gguf.tensors.push_back(std::move(row.tensor));
  for (const GgufTensor& tensor : gguf.tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    return InvalidArgument("the tensor {} occurs twice", Quoted(*twice));
  }
  return absl::OkStatus();
}

}  // namespace

std::string DescribeGguf(const GgufValue& value) {
  return std::visit(
      [](const auto& held) -> std::string {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, std::string_view>) {
          return Quoted(held);
        } else if constexpr (std::is_arithmetic_v<T>) {
          return fmt::format("{}", held);
        } else {
          return fmt::format("a list of {}", held.size());
        }
      },
      value);
}

const GgufValue* Gguf::Find(std::string_view key) const {
  const auto found = metadata.find(key);
  return found == metadata.end() ? nullptr : &found->second;
}

absl::StatusOr<Gguf> ParseGguf(std::span<const std::byte> file) {
  if (file.size() < kMagic.size() ||
      std::memcmp(file.data(), kMagic.data(), kMagic.size()) != 0) {
    return InvalidArgument(
        "does not begin with \"{}\"; it is no GGUF file, or it is damaged",
        kMagic);
  }
  Reader reader(file);
  RETURN_IF_ERROR(reader.Number<uint32_t>("the magic").status());
  ASSIGN_OR_RETURN(const auto version, reader.Number<uint32_t>("the version"));
  RETURN_IF_ERROR(CheckVersion(version));
  // A name of one byte, one dimension, type and offset; and a key of one byte,
  // its type and value.
  constexpr uint64_t kSmallestTableRowBytes = 8 + 1 + 4 + 8 + 4 + 8;
  constexpr uint64_t kSmallestKeyBytes = 8 + 1 + 4 + 1;
  ASSIGN_OR_RETURN(const uint64_t num_tensors,
                   ReadCount(reader, "the number of tensors", kMaxTensors,
                             kSmallestTableRowBytes));
  ASSIGN_OR_RETURN(
      const uint64_t num_keys,
      ReadCount(reader, "the number of keys", kMaxGgufKeys, kSmallestKeyBytes));
  Gguf gguf;
  RETURN_IF_ERROR(ReadMetadata(reader, num_keys, gguf));
  RETURN_IF_ERROR(ReadTensors(file, reader, num_tensors, gguf));
  return gguf;
}

}  // namespace witan
