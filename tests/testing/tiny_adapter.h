#ifndef WITAN_TESTS_TESTING_TINY_ADAPTER_H_
#define WITAN_TESTS_TESTING_TINY_ADAPTER_H_

// Random LoRA adapters for tests: real PEFT directories whose changes are about
// as large as the weights that they change.

#include <cstdint>
#include <functional>
#include <string>

#include "model/config.h"
#include "model/shard_plan.h"
#include "tests/testing/temp_directory.h"

namespace witan {

struct TinyAdapterOptions {
  int64_t rank = 8;
  double alpha = 16;
  bool rank_stabilised = false;
  uint64_t seed = 1;
  DType dtype = DType::kF32;
  // Which weights it changes; null: all that it may.
  std::function<bool(const TensorSlice& weight)> changes;
};

// Writes an adapter to a temporary directory and removes it at the end.
class TinyAdapter {
 public:
  TinyAdapter(const ModelConfig& base, const TinyAdapterOptions& options);

  const std::string& directory() const { return directory_.path(); }

 private:
  TempDirectory directory_;
};

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_TINY_ADAPTER_H_
