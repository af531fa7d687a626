#ifndef WITAN_TESTS_TESTING_TINY_MODEL_H_
#define WITAN_TESTS_TESTING_TINY_MODEL_H_

// Random checkpoints for tests: real Hugging Face directories (config.json,
// generation_config.json, safetensors, tokenizer.json, tokenizer_config.json)
// with weights whose scale gives lively logits (standard deviation about 2).

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/request.h"
#include "model/config.h"
#include "tests/testing/temp_directory.h"

namespace witan {

// Hidden 64, 2 layers, 8 heads of 16, 2 KV heads, 8 experts top-2, FFN 96,
// vocabulary 320, context 512, bf16.
ModelConfig TinyModelConfig();

// The same with everything that the family has: biases, norms of heads,
// windows, its kind of routing; a dense FFN of 336 columns.
// REQUIRES: a known architecture.
ModelConfig TinyFamilyConfig(const std::string& architecture);

struct TinyModelOptions {
  ModelConfig config = TinyModelConfig();
  uint64_t seed = 1;
  int num_shards = 1;  // above 1: that many files and an index
  std::vector<TokenId> eos_token_ids = {2};
};

// Tokens of the tokenizer: six special ones (see TinyToken), then byte b as
// kTinyFirstByteToken + b. There are no merges.
enum TinyToken : TokenId {
  kTinyPad = 0,        // <|pad|>
  kTinyBos = 1,        // <|bos|>, put before every prompt
  kTinyEnd = 2,        // <|end|>
  kTinyUser = 3,       // <|user|>
  kTinyAssistant = 4,  // <|assistant|>
  kTinySystem = 5,     // <|system|>
  kTinyFirstByteToken = 6,
};
constexpr int64_t kTinyTokenizerSize = kTinyFirstByteToken + 256;

// Writes a checkpoint to a temporary directory and removes it at the end.
class TinyModel {
 public:
  // With config.vocab_size < kTinyTokenizerSize the tokenizer is left out.
  // Equal options give equal files on every machine.
  explicit TinyModel(const TinyModelOptions& options = {});

  const std::string& directory() const { return directory_.path(); }
  const ModelConfig& config() const { return config_; }

 private:
  TempDirectory directory_;
  ModelConfig config_;
};

// One tensor as safetensors stores it; the dtype is the format's name.
struct StoredTensor {
  std::string dtype;  // "BF16"
  std::vector<int64_t> shape;
  std::string bytes;
};

// The bytes of a .safetensors file: tensors by ascending name.
std::string SafetensorsFile(const std::map<std::string, StoredTensor>& tensors);

// `config` as config.json text.
std::string ConfigJson(const ModelConfig& config);

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_TINY_MODEL_H_
