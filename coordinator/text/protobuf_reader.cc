#include "coordinator/text/protobuf_reader.h"

#include <bit>

#include "base/status.h"

namespace witan {

absl::Status ProtobufField::Expect(Type type, std::string_view name) const {
  if (type_ == type) return absl::OkStatus();
  return InvalidArgument("{}: got wire type {}; expected {}", name,
                         static_cast<int>(type_), static_cast<int>(type));
}

absl::StatusOr<uint64_t> ProtobufField::Varint(std::string_view name) const {
  RETURN_IF_ERROR(Expect(Type::kVarint, name));
  return bits_;
}

absl::StatusOr<bool> ProtobufField::Bool(std::string_view name) const {
  RETURN_IF_ERROR(Expect(Type::kVarint, name));
  return bits_ != 0;
}

absl::StatusOr<float> ProtobufField::Float(std::string_view name) const {
  RETURN_IF_ERROR(Expect(Type::kFixed32, name));
  return std::bit_cast<float>(static_cast<uint32_t>(bits_));
}

absl::StatusOr<std::string_view> ProtobufField::Bytes(
    std::string_view name) const {
  RETURN_IF_ERROR(Expect(Type::kBytes, name));
  return bytes_;
}

absl::StatusOr<uint64_t> ProtobufReader::ReadVarint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) return InvalidArgument("ends within a number");
    const auto byte = static_cast<uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return value;
  }
  return InvalidArgument("holds a number of more than 10 bytes");
}

absl::StatusOr<uint64_t> ProtobufReader::ReadFixed(size_t num_bytes) {
  if (rest_.size() < num_bytes) return InvalidArgument("ends within a number");
  uint64_t value = 0;
  for (size_t i = 0; i < num_bytes; ++i) {
    value |= uint64_t{static_cast<uint8_t>(rest_[i])} << (8 * i);
  }
  rest_.remove_prefix(num_bytes);
  return value;
}

absl::StatusOr<bool> ProtobufReader::Next(ProtobufField* field) {
  if (rest_.empty()) return false;
  ASSIGN_OR_RETURN(const uint64_t tag, ReadVarint());
  if (tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF) {
    return InvalidArgument("field number {}; allowed: 1 to {}", tag >> 3,
                           0x1FFFFFFF);
  }
  field->number_ = static_cast<uint32_t>(tag >> 3);
  field->bytes_ = {};
  switch (tag & 7) {
    case 0: {
      field->type_ = ProtobufField::Type::kVarint;
      ASSIGN_OR_RETURN(field->bits_, ReadVarint());
      return true;
    }
    case 1: {
      field->type_ = ProtobufField::Type::kFixed64;
      ASSIGN_OR_RETURN(field->bits_, ReadFixed(8));
      return true;
    }
    case 2: {
      field->type_ = ProtobufField::Type::kBytes;
      ASSIGN_OR_RETURN(const uint64_t length, ReadVarint());
      if (length > rest_.size()) {
        return InvalidArgument("field {} claims {} bytes; {} are left",
                               field->number_, length, rest_.size());
      }
      field->bytes_ = rest_.substr(0, length);
      rest_.remove_prefix(length);
      return true;
    }
    case 5: {
      field->type_ = ProtobufField::Type::kFixed32;
      ASSIGN_OR_RETURN(field->bits_, ReadFixed(4));
      return true;
    }
    default:
      return InvalidArgument("field {} has the unknown wire type {}",
                             field->number_, tag & 7);
  }
}

}  // namespace witan
