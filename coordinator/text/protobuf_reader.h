#ifndef WITAN_COORDINATOR_TEXT_PROTOBUF_READER_H_
#define WITAN_COORDINATOR_TEXT_PROTOBUF_READER_H_

// Reads one message of the protobuf wire format (protobuf.dev, "Encoding")
// field by field, without a schema. It exists because this folder must not
// link protobuf and a tokenizer.model is such a message.

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace witan {

// A value as it stands in the message. The readers below check its type.
class ProtobufField {
 public:
  uint32_t number() const { return number_; }

  // InvalidArgument, naming `name`, when the field has another wire type.
  absl::StatusOr<uint64_t> Varint(std::string_view name) const;
  absl::StatusOr<bool> Bool(std::string_view name) const;
  absl::StatusOr<float> Float(std::string_view name) const;
  // A string, bytes or a message; a view of the text that the reader reads.
  absl::StatusOr<std::string_view> Bytes(std::string_view name) const;

 private:
  friend class ProtobufReader;
  enum class Type { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
  absl::Status Expect(Type type, std::string_view name) const;

  uint32_t number_ = 0;
  Type type_ = Type::kVarint;
  uint64_t bits_ = 0;  // of all types but kBytes
  std::string_view bytes_;
};

// Used by one thread. Takes no memory; every length is checked against what is
// left of the message.
class ProtobufReader {
 public:
  // `message` must outlive the fields.
  explicit ProtobufReader(std::string_view message) : rest_(message) {}

  // Reads the next field into `field`; false at the end of the message.
  // InvalidArgument, without the file's name, when the message is damaged.
  absl::StatusOr<bool> Next(ProtobufField* field);

 private:
  absl::StatusOr<uint64_t> ReadVarint();
  absl::StatusOr<uint64_t> ReadFixed(size_t num_bytes);

  std::string_view rest_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_PROTOBUF_READER_H_
