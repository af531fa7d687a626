// The entry of libFuzzer, built once per target (cmake/fuzz.cmake).
//   ./dev fuzz NAME

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/check.h"
#include "tests/fuzz/target.h"

namespace {

const witan::fuzz::Target& TheTarget() {
  static const witan::fuzz::Target& target =
      *witan::fuzz::FindTarget(WITAN_FUZZ_TARGET);
  return target;
}

}  // namespace

// libFuzzer's names and types.
extern "C" {

size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const witan::fuzz::Outcome outcome =
      TheTarget().run({reinterpret_cast<const char*>(data), size});
  WITAN_CHECK(outcome.broken.empty(), "broken promise: {}", outcome.broken);
  return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                               unsigned int seed) {
  // Bytes, the structure, or both.
  const unsigned int kind = TheTarget().reshape == nullptr ? 0 : seed % 3;
  if (kind != 1) size = LLVMFuzzerMutate(data, size, max_size);
  if (kind == 0) return size;
  std::string input(reinterpret_cast<const char*>(data), size);
  TheTarget().reshape(&input, seed);
  if (input.size() > max_size) return size;
  std::memcpy(data, input.data(), input.size());
  return input.size();
}

}  // extern "C"
