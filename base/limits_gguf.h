#ifndef WITAN_BASE_LIMITS_GGUF_H_
#define WITAN_BASE_LIMITS_GGUF_H_
#include <cstddef>
#include <cstdint>
namespace witan {
// Of a GGUF file: entries of the metadata, bytes of a key and of a tensor's
// name, dimensions of a tensor, and what its data may be aligned to.
constexpr int64_t kMaxGgufKeys = int64_t{1} << 16;
constexpr size_t kMaxGgufNameBytes = 1024;
constexpr uint32_t kMaxGgufDimensions = 4;
constexpr uint64_t kMaxGgufAlignment = uint64_t{1} << 16;
// Elements of all lists of its metadata together; bytes of one token and of
// all.
constexpr uint64_t kMaxGgufListElements = uint64_t{1} << 24;
constexpr size_t kMaxGgufTokenBytes = 1024;
constexpr size_t kMaxGgufVocabularyBytes = size_t{64} << 20;
}  // namespace witan
#endif  // WITAN_BASE_LIMITS_GGUF_H_
