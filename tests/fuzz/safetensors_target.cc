// A .safetensors file. What is accepted tiles the data, and written again and
// read again it is the same.

#include <cstring>
#include <map>
#include <memory>
#include <set>

#include "base/limits.h"
#include "base/status.h"
#include "model/safetensors_header.h"
#include "tests/fuzz/target.h"
#include "tests/testing/tiny_model.h"

namespace witan::fuzz {
namespace {

constexpr size_t kLengthBytes = 8;

const char* SafetensorsName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kBF16:
      return "BF16";
    case DType::kF16:
      return "F16";
    case DType::kI32:
      return "I32";
  }
  return "";
}

// The same tensors as the tests' own writer stores them, read back.
void CheckRoundTrip(const std::vector<TensorEntry>& entries,
                    Promises* promises) {
  std::map<std::string, StoredTensor> tensors;
  for (const TensorEntry& entry : entries) {
    tensors[entry.name] = {
        SafetensorsName(entry.dtype), entry.shape,
        std::string(reinterpret_cast<const char*>(entry.data.data()),
                    entry.data.size())};
  }
  promises->Expect(tensors.size() == entries.size(), "names are distinct");
  const std::string file = SafetensorsFile(tensors);
  const auto again =
      ParseSafetensors(std::as_bytes(std::span(file.data(), file.size())));
  promises->Expect(again.ok() && again->size() == entries.size(),
                   "what was read can be written and read again");
  if (!again.ok()) return;
  for (const TensorEntry& entry : *again) {
    const auto found = tensors.find(entry.name);
    promises->Expect(found != tensors.end() &&
                         found->second.dtype == SafetensorsName(entry.dtype) &&
                         found->second.shape == entry.shape &&
                         found->second.bytes ==
                             std::string_view(reinterpret_cast<const char*>(
                                                  entry.data.data()),
                                              entry.data.size()),
                     "a tensor that was written and read again is the same");
  }
}

}  // namespace

Outcome RunSafetensors(std::string_view input) {
  Promises promises;
  // A copy of exactly the right size, so that a sanitizer sees every read
  // beyond it.
  const auto copy = std::make_unique<std::byte[]>(input.size());
  std::memcpy(copy.get(), input.data(), input.size());
  const auto entries = ParseSafetensors({copy.get(), input.size()});
  if (!entries.ok()) {
    promises.Expect(entries.status().message().size() < 1000,
                    "a refusal is short");
    return promises.Refused(entries.status());
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, copy.get(), kLengthBytes);
  const std::byte* next = copy.get() + kLengthBytes + header_bytes;
  for (const TensorEntry& entry : *entries) {
    promises.Expect(entry.data.data() == next, "tensors leave no gap");
    size_t num_bytes = SizeOf(entry.dtype);
    for (const int64_t dimension : entry.shape) {
      promises.Expect(dimension >= 0, "dimensions are not negative");
      num_bytes *= static_cast<size_t>(dimension);
    }
    promises.Expect(entry.shape.size() <= kMaxTensorDimensions,
                    "kMaxTensorDimensions holds");
    promises.Expect(entry.data.size() == num_bytes,
                    "a tensor's bytes are those of its shape");
    next = entry.data.data() + entry.data.size();
  }
  promises.Expect(next == copy.get() + input.size(), "tensors reach the end");
  CheckRoundTrip(*entries, &promises);
  return promises.Accepted();
}

std::vector<std::string> SafetensorsSeeds() {
  const std::string metadata =
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1],)"
      R"("data_offsets":[0,4]}})";
  std::string with_metadata(kLengthBytes, '\0');
  with_metadata[0] = static_cast<char>(metadata.size());
  return {
      SafetensorsFile({}),
      SafetensorsFile({{"w", {"BF16", {2, 3}, std::string(12, 'x')}}}),
      SafetensorsFile({{"empty", {"F16", {0, 3}, ""}},
                       {"long.name \"\xC3\xA9", {"F32", {}, "abcd"}},
                       {"rows", {"I32", {1, 1, 2}, "01234567"}}}),
      with_metadata + metadata + "data",
  };
}

void RepairSafetensors(std::string* input, uint64_t) {
  // Makes the length of the header true, so that changes get past it.
  if (input->size() < kLengthBytes) return;
  const size_t end = input->rfind('}');
  const uint64_t header_bytes = end == std::string::npos || end < kLengthBytes
                                    ? 0
                                    : end + 1 - kLengthBytes;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    (*input)[i] = static_cast<char>((header_bytes >> (8 * i)) & 0xff);
  }
}

}  // namespace witan::fuzz
