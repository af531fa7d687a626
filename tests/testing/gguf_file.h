#ifndef WITAN_TESTS_TESTING_GGUF_FILE_H_
#define WITAN_TESTS_TESTING_GGUF_FILE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace witan {

// Little-endian bytes, as GGUF files have them.
template <typename T>
std::string GgufBytes(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}
std::string GgufString(std::string_view text);  // with its length before it

// Writes GGUF files byte by byte, wrong ones too: nothing is checked.
class GgufFile {
 public:
  // Values of enum gguf_metadata_value_type.
  static constexpr uint32_t kUint8 = 0;
  static constexpr uint32_t kInt32 = 5;
  static constexpr uint32_t kUint32 = 4;
  static constexpr uint32_t kFloat32 = 6;
  static constexpr uint32_t kBool = 7;
  static constexpr uint32_t kString = 8;
  static constexpr uint32_t kArray = 9;
  static constexpr uint32_t kUint64 = 10;

  GgufFile& Key(std::string_view key, uint32_t type, std::string_view value);
  GgufFile& Integer(std::string_view key, uint32_t value);
  GgufFile& Float(std::string_view key, float value);
  GgufFile& Bool(std::string_view key, bool value);
  GgufFile& Text(std::string_view key, std::string_view value);
  GgufFile& Texts(std::string_view key, const std::vector<std::string>& values);
  GgufFile& Integers(std::string_view key, const std::vector<int32_t>& values);
  GgufFile& Floats(std::string_view key, const std::vector<float>& values);

  // `dimensions` as the file lists them, the innermost first. The data begin
  // where those before them end, aligned, unless `offset` says otherwise.
  GgufFile& Tensor(std::string_view name, uint32_t type,
                   const std::vector<uint64_t>& dimensions,
                   std::string_view data);
  GgufFile& TensorAt(uint64_t offset, std::string_view name, uint32_t type,
                     const std::vector<uint64_t>& dimensions,
                     std::string_view data);

  // The whole file.
  std::string Bytes() const;

  uint32_t version = 3;
  uint64_t alignment = 32;
  // Added to the counts of the header.
  uint64_t more_keys = 0;
  uint64_t more_tensors = 0;

 private:
  std::string keys_;
  std::string table_;
  std::string data_;
  uint64_t num_keys_ = 0;
  uint64_t num_tensors_ = 0;
};

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_GGUF_FILE_H_
