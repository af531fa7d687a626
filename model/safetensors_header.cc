#include "model/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "model/json_object.h"

namespace witan {
namespace {

using Json = nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr std::string_view kMetadataKey = "__metadata__";

std::optional<DType> DTypeNamed(std::string_view name) {
  if (name == "F32") return DType::kF32;
  if (name == "BF16") return DType::kBF16;
  if (name == "F16") return DType::kF16;
  if (name == "I32") return DType::kI32;
  return std::nullopt;
}

// One tensor as the header states it, nothing checked yet but the types.
struct RawEntry {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape;
  std::optional<std::vector<uint64_t>> offsets;
};

// Reads the header's JSON as a stream. It accepts exactly
//   {"__metadata__": {string: string ...},
//    name: {"dtype": string, "shape": [n ...], "data_offsets": [n, n]} ...}
// with no key twice; memory stays proportional to what is accepted.
class HeaderReader : public Json::json_sax_t {
 public:
  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(int64_t value) override {
    return Unexpected(fmt::format("the negative number {}", value));
  }
  bool number_unsigned(uint64_t value) override {
    if (numbers_ == nullptr) return Unexpected(fmt::format("{}", value));
    if (numbers_->size() >= kMaxTensorDimensions) {
      return Fail("{}: more than {} numbers", Where(), kMaxTensorDimensions);
    }
    numbers_->push_back(value);
    return true;
  }
  bool number_float(double, const std::string& text) override {
    return Unexpected(
        fmt::format("{}, which is not an integer below 2^64", Quoted(text)));
  }
  bool string(std::string& value) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ == Place::kTensor && field_ == "dtype") {
      entries_.back().dtype = std::move(value);
      return true;
    }
    return Unexpected(fmt::format("the string {}", Quoted(value)));
  }
  bool binary(Json::binary_t&) override { return Unexpected("binary data"); }

  bool start_object(size_t) override {
    if (place_ == Place::kOutside) {
      place_ = Place::kTop;
      return true;
    }
    if (place_ != Place::kTop) return Unexpected("an object");
    if (field_ == kMetadataKey) {
      place_ = Place::kMetadata;
      return true;
    }
    if (static_cast<int64_t>(entries_.size()) >= kMaxTensors) {
      return Fail("more than {} tensors", kMaxTensors);
    }
    place_ = Place::kTensor;
    entries_.emplace_back();
    entries_.back().name = field_;
    return true;
  }
  bool key(std::string& key) override {
    field_ = std::move(key);
    if (place_ == Place::kTop) {
      if (names_.insert(field_).second) return true;
      return Fail("the name {} occurs twice", Quoted(field_));
    }
    if (place_ == Place::kMetadata) {
      if (metadata_keys_.insert(field_).second) return true;
      return Fail("{}: the key {} occurs twice", kMetadataKey, Quoted(field_));
    }
    const RawEntry& entry = entries_.back();
    const bool twice = (field_ == "dtype" && entry.dtype) ||
                       (field_ == "shape" && entry.shape) ||
                       (field_ == "data_offsets" && entry.offsets);
    if (twice) {
      return Fail("tensor {}: the field {} occurs twice", Quoted(entry.name),
                  field_);
    }
    if (field_ == "dtype" || field_ == "shape" || field_ == "data_offsets") {
      return true;
    }
    return Fail(
        "tensor {}: unknown field {}; allowed are dtype, shape and "
        "data_offsets",
        Quoted(entry.name), Quoted(field_));
  }
  bool end_object() override {
    if (place_ == Place::kTensor) {
      const RawEntry& entry = entries_.back();
      const char* absent = !entry.dtype     ? "dtype"
                           : !entry.shape   ? "shape"
                           : !entry.offsets ? "data_offsets"
                                            : nullptr;
      if (absent != nullptr) {
        return Fail("tensor {}: {} is absent", Quoted(entry.name), absent);
      }
    }
    place_ = place_ == Place::kTop ? Place::kOutside : Place::kTop;
    return true;
  }
  bool start_array(size_t) override {
    if (place_ != Place::kTensor || numbers_ != nullptr || field_ == "dtype") {
      return Unexpected("a list");
    }
    RawEntry& entry = entries_.back();
    auto& list = field_ == "shape" ? entry.shape : entry.offsets;
    numbers_ = &list.emplace();
    return true;
  }
  bool end_array() override {
    numbers_ = nullptr;
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const Json::exception&) override {
    return Fail("the header is not valid JSON at its byte {}", position);
  }

  absl::StatusOr<std::vector<RawEntry>> Result() && {
    if (!error_.ok()) return error_;
    return std::move(entries_);
  }

 private:
  enum class Place : uint8_t { kOutside, kTop, kMetadata, kTensor };

  template <typename... Args>
  bool Fail(fmt::format_string<Args...> format, Args&&... args) {
    error_ = InvalidArgument(format, std::forward<Args>(args)...);
    return false;
  }
  std::string Where() const {
    switch (place_) {
      case Place::kOutside:
        return "the header";
      case Place::kTop:
        return fmt::format("tensor {}", Quoted(field_));
      case Place::kMetadata:
        return fmt::format("{} {}", kMetadataKey, Quoted(field_));
      case Place::kTensor:
        break;
    }
    return fmt::format("tensor {}: {}", Quoted(entries_.back().name), field_);
  }
  bool Unexpected(std::string_view what) {
    const std::string_view allowed =
        place_ == Place::kMetadata                   ? "a string"
        : place_ != Place::kTensor || field_.empty() ? "a JSON object"
        : field_ == "dtype"                          ? "a string"
                            : "a list of integers of at least 0";
    return Fail("{} is {}; allowed is {}", Where(), what, allowed);
  }

  Place place_ = Place::kOutside;
  std::string field_;                         // the last key
  std::vector<uint64_t>* numbers_ = nullptr;  // the list that is being read
  std::vector<RawEntry> entries_;
  std::set<std::string> names_;
  std::set<std::string> metadata_keys_;
  absl::Status error_;
};

// Bytes of a tensor; nothing when the product does not fit in 63 bits.
std::optional<uint64_t> ByteSize(DType dtype, std::span<const uint64_t> shape) {
  uint64_t size = SizeOf(dtype);
  // A zero makes the product 0 whatever the other dimensions are, but they
  // still have to be representable.
  bool empty = false;
  for (const uint64_t dimension : shape) {
    if (dimension > std::numeric_limits<int64_t>::max()) return std::nullopt;
    if (dimension == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(size, dimension, &size)) {
      return std::nullopt;
    }
  }
  if (size > std::numeric_limits<int64_t>::max()) return std::nullopt;
  return empty ? 0 : size;
}

// Checks one entry by itself; `data` are the bytes that offsets refer to.
absl::StatusOr<TensorEntry> CheckEntry(RawEntry&& raw,
                                       std::span<const std::byte> data) {
  const std::string where = "tensor " + Quoted(raw.name);
  const std::optional<DType> dtype = DTypeNamed(*raw.dtype);
  if (!dtype) {
    return InvalidArgument(
        "{}: dtype is {}; allowed are F32, BF16, F16 and I32", where,
        Quoted(*raw.dtype));
  }
  if (raw.offsets->size() != 2) {
    return InvalidArgument("{}: data_offsets has {} numbers, not 2", where,
                           raw.offsets->size());
  }
  const uint64_t begin = (*raw.offsets)[0];
  const uint64_t end = (*raw.offsets)[1];
  if (begin > end) {
    return InvalidArgument("{}: data_offsets [{}, {}] end before they begin",
                           where, begin, end);
  }
  if (end > data.size()) {
    return InvalidArgument(
        "{}: data_offsets [{}, {}] reach beyond the {} bytes of data; the file "
        "is truncated or damaged, download it again",
        where, begin, end, data.size());
  }
  const std::optional<uint64_t> size = ByteSize(*dtype, *raw.shape);
  if (!size) {
    return InvalidArgument("{}: the shape [{}] is larger than 2^63 bytes",
                           where, fmt::join(*raw.shape, ", "));
  }
  if (*size != end - begin) {
    return InvalidArgument(
        "{}: the shape [{}] of {} needs {} bytes, data_offsets [{}, {}] hold "
        "{}",
        where, fmt::join(*raw.shape, ", "), *raw.dtype, *size, begin, end,
        end - begin);
  }
  TensorEntry entry;
  entry.name = std::move(raw.name);
  entry.dtype = *dtype;
  entry.shape.assign(raw.shape->begin(), raw.shape->end());
  entry.data = data.subspan(begin, end - begin);
  return entry;
}

// Sorts by position and checks that the tensors tile `data`.
absl::Status CheckTiling(std::vector<TensorEntry>& entries,
                         std::span<const std::byte> data) {
  // Empty tensors come before others that begin at the same byte.
  std::stable_sort(entries.begin(), entries.end(),
                   [](const TensorEntry& a, const TensorEntry& b) {
                     return std::pair(a.data.data(), a.data.size()) <
                            std::pair(b.data.data(), b.data.size());
                   });
  const TensorEntry* previous = nullptr;
  const std::byte* expected = data.data();
  for (const TensorEntry& entry : entries) {
    const auto distance = entry.data.data() - expected;
    const std::string after = previous == nullptr
                                  ? "the beginning of the data"
                                  : "tensor " + Quoted(previous->name);
    if (distance < 0) {
      return InvalidArgument("tensor {} overlaps {} by {} bytes",
                             Quoted(entry.name), after, -distance);
    }
    if (distance > 0) {
      return InvalidArgument(
          "a gap of {} bytes that no tensor covers lies between {} and tensor "
          "{}",
          distance, after, Quoted(entry.name));
    }
    expected = entry.data.data() + entry.data.size();
    previous = &entry;
  }
  const auto rest = data.data() + data.size() - expected;
  if (rest > 0) {
    return InvalidArgument(
        "{} bytes after the last tensor belong to none; the file is damaged, "
        "download it again",
        rest);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<TensorEntry>> ParseSafetensors(
    std::span<const std::byte> file) {
  if (file.size() < kLengthBytes) {
    return InvalidArgument(
        "the file has {} bytes, a safetensors file begins with 8 bytes of "
        "header length; it is truncated, download it again",
        file.size());
  }
  uint64_t header_size = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    header_size |= std::to_integer<uint64_t>(file[i]) << (8 * i);
  }
  if (header_size > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    return InvalidArgument(
        "the header claims {} bytes, at most {} are allowed; this is not a "
        "safetensors file or it is damaged",
        header_size, kMaxSafetensorsHeaderBytes);
  }
  if (header_size > file.size() - kLengthBytes) {
    return InvalidArgument(
        "the header claims {} bytes but the file has {} after its length; it "
        "is truncated, download it again",
        header_size, file.size() - kLengthBytes);
  }
  const auto* header =
      reinterpret_cast<const char*>(file.data() + kLengthBytes);
  if (header_size == 0 || header[0] != '{') {
    return InvalidArgument("the header must be a JSON object, {{...}}");
  }
  HeaderReader reader;
  Json::sax_parse(header, header + header_size, &reader);
  ASSIGN_OR_RETURN(std::vector<RawEntry> raw_entries,
                   std::move(reader).Result());
  const std::span<const std::byte> data =
      file.subspan(kLengthBytes + header_size);
  std::vector<TensorEntry> entries;
  entries.reserve(raw_entries.size());
  for (RawEntry& raw : raw_entries) {
    ASSIGN_OR_RETURN(TensorEntry entry, CheckEntry(std::move(raw), data));
    entries.push_back(std::move(entry));
  }
  RETURN_IF_ERROR(CheckTiling(entries, data));
  return entries;
}

}  // namespace witan
