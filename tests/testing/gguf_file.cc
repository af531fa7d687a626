#include "tests/testing/gguf_file.h"

namespace witan {

std::string GgufString(std::string_view text) {
  return GgufBytes(uint64_t{text.size()}) + std::string(text);
}

namespace {

template <typename T>
std::string List(uint32_t type, const std::vector<T>& values) {
  std::string bytes = GgufBytes(type) + GgufBytes(uint64_t{values.size()});
  for (const T& value : values) bytes += GgufBytes(value);
  return bytes;
}

}  // namespace

GgufFile& GgufFile::Key(std::string_view key, uint32_t type,
                        std::string_view value) {
  keys_ += GgufString(key) + GgufBytes(type) + std::string(value);
  ++num_keys_;
  return *this;
}

GgufFile& GgufFile::Integer(std::string_view key, uint32_t value) {
  return Key(key, kUint32, GgufBytes(value));
}

GgufFile& GgufFile::Float(std::string_view key, float value) {
  return Key(key, kFloat32, GgufBytes(value));
}

GgufFile& GgufFile::Bool(std::string_view key, bool value) {
  return Key(key, kBool, GgufBytes(value));
}

GgufFile& GgufFile::Text(std::string_view key, std::string_view value) {
  return Key(key, kString, GgufString(value));
}

GgufFile& GgufFile::Texts(std::string_view key,
                          const std::vector<std::string>& values) {
  std::string bytes = GgufBytes(kString) + GgufBytes(uint64_t{values.size()});
  for (const std::string& value : values) bytes += GgufString(value);
  return Key(key, kArray, bytes);
}

GgufFile& GgufFile::Integers(std::string_view key,
                             const std::vector<int32_t>& values) {
  return Key(key, kArray, List(kInt32, values));
}

GgufFile& GgufFile::Floats(std::string_view key,
                           const std::vector<float>& values) {
  return Key(key, kArray, List(kFloat32, values));
}

GgufFile& GgufFile::Tensor(std::string_view name, uint32_t type,
                           const std::vector<uint64_t>& dimensions,
                           std::string_view data) {
  return TensorAt((data_.size() + alignment - 1) / alignment * alignment, name,
                  type, dimensions, data);
}

GgufFile& GgufFile::TensorAt(uint64_t offset, std::string_view name,
                             uint32_t type,
                             const std::vector<uint64_t>& dimensions,
                             std::string_view data) {
  table_ +=
      GgufString(name) + GgufBytes(static_cast<uint32_t>(dimensions.size()));
  for (const uint64_t size : dimensions) table_ += GgufBytes(size);
  table_ += GgufBytes(type) + GgufBytes(offset);
  data_.resize((data_.size() + alignment - 1) / alignment * alignment);
  data_ += data;
  ++num_tensors_;
  return *this;
}

std::string GgufFile::Bytes() const {
  std::string file = "GGUF" + GgufBytes(version) +
                     GgufBytes(num_tensors_ + more_tensors) +
                     GgufBytes(num_keys_ + more_keys) + keys_ + table_;
  if (data_.empty()) return file;
  file.resize((file.size() + alignment - 1) / alignment * alignment);
  return file + data_;
}

}  // namespace witan
