// A .gguf file. What is accepted lies in the file, aligned and apart; what its
// metadata and tensors are turned into is read, or refused with a reason.

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "base/status.h"
#include "coordinator/text/tokenizer.h"
#include "model/config.h"
#include "model/families.h"
#include "model/gguf_config.h"
#include "model/gguf_model.h"
#include "model/gguf_tensors.h"
#include "model/gguf_tokenizer.h"
#include "tests/fuzz/target.h"
#include "tests/testing/gguf_file.h"

namespace witan::fuzz {
namespace {

constexpr auto kF32 = static_cast<uint32_t>(GgmlType::kF32);
constexpr auto kQ4_K = static_cast<uint32_t>(GgmlType::kQ4_K);

void CheckTable(const Gguf& gguf, std::span<const std::byte> file,
                Promises* promises) {
  std::vector<std::pair<const std::byte*, const std::byte*>> ranges;
  for (const GgufTensor& tensor : gguf.tensors) {
    const GgmlTypeTraits& traits = TraitsOf(tensor.type);
    int64_t num_elements = 1;
    for (const int64_t size : tensor.shape) num_elements *= size;
    promises->Expect(
        static_cast<int64_t>(tensor.data.size()) * traits.block_elements ==
            num_elements * traits.block_bytes,
        "a tensor's bytes are those of its shape");
    const std::byte* begin = tensor.data.data();
    const std::byte* end = begin + tensor.data.size();
    promises->Expect(begin >= file.data() && end <= file.data() + file.size(),
                     "a tensor lies in the file");
    promises->Expect(begin - file.data() == tensor.file_offset,
                     "a tensor's offset is that of its bytes");
    ranges.emplace_back(begin, end);
  }
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) {
    promises->Expect(ranges[i - 1].second <= ranges[i].first,
                     "tensors do not overlap");
  }
}

// A refusal of a later step is as good as one of the first.
void CheckRefusal(const absl::Status& status, Promises* promises) {
  if (!status.ok()) promises->Refused(status);
}

void CheckTensors(const GgufModel& model, Promises* promises) {
  const auto tensors = TensorsOfGguf(model);
  CheckRefusal(tensors.status(), promises);
  if (!tensors.ok()) return;
  for (const auto& [name, tensor] : *tensors) {
    if (tensor.shape.size() > 2) continue;
    const int64_t rows = tensor.shape.size() == 1 ? 1 : tensor.shape.front();
    const int64_t columns = tensor.row_elements();
    const auto row = std::make_unique<std::byte[]>(
        static_cast<size_t>(columns) * SizeOf(tensor.dtype));
    ReadElements(tensor, {0, 1}, {0, columns}, row.get());
    ReadElements(tensor, {rows - 1, rows}, {columns / 2, columns}, row.get());
  }
}

void CheckTokenizer(const GgufModel& model, Promises* promises) {
  const auto texts = TokenizerOfGguf(model);
  CheckRefusal(texts.status(), promises);
  if (!texts.ok()) return;
  const auto tokenizer =
      Tokenizer::FromFiles({.tokenizer = texts->tokenizer,
                            .tokenizer_config = texts->tokenizer_config});
  CheckRefusal(tokenizer.status(), promises);
  if (tokenizer.ok()) {
    promises->Expect((*tokenizer)->Encode("a b", {}).ok(), "a text has tokens");
  }
}

GgufFile Seed(uint32_t type, uint64_t size) {
  GgufFile file;
  file.Text("general.architecture", "llama")
      .Integer("llama.embedding_length", static_cast<uint32_t>(size))
      .Integer("llama.block_count", 1)
      .Integer("llama.context_length", 64)
      .Integer("llama.feed_forward_length", 32)
      .Integer("llama.attention.head_count", 2)
      .Float("llama.attention.layer_norm_rms_epsilon", 1e-5F)
      .Text("llama.rope.scaling.type", "linear")
      .Float("llama.rope.scaling.factor", 2)
      .Tensor("token_embd.weight", type, {size, 2},
              std::string(type == kF32 ? size * 8 : 288, 'e'))
      .Tensor("blk.0.attn_q.weight", type, {size, size},
              std::string(type == kF32 ? size * size * 4 : size * 144, 'q'))
      .Tensor("output_norm.weight", kF32, {size}, std::string(size * 4, 'n'));
  return file;
}

}  // namespace

Outcome RunGguf(std::string_view input) {
  Promises promises;
  // A copy of exactly the right size, so that a sanitizer sees every read
  // beyond it.
  const auto copy = std::make_unique<std::byte[]>(input.size());
  std::memcpy(copy.get(), input.data(), input.size());
  const std::span<const std::byte> file(copy.get(), input.size());
  absl::StatusOr<Gguf> gguf = ParseGguf(file);
  if (!gguf.ok()) {
    // A key or a name is quoted.
    promises.Expect(gguf.status().message().size() < 1000,
                    "a refusal is short");
    return promises.Refused(gguf.status());
  }
  CheckTable(*gguf, file, &promises);
  const GgufModel model = GgufModel::OfMemory(*std::move(gguf));
  const auto config = ConfigOfGguf(model);
  CheckRefusal(config.status(), &promises);
  if (config.ok()) CheckRefusal(ParseModelConfig(*config).status(), &promises);
  CheckRefusal(GenerationConfigOfGguf(model).status(), &promises);
  CheckTensors(model, &promises);
  CheckTokenizer(model, &promises);
  return promises.Accepted();
}

std::vector<std::string> GgufSeeds() {
  GgufFile byte_level = Seed(kF32, 4);
  byte_level.Text("tokenizer.ggml.model", "gpt2")
      .Text("tokenizer.ggml.pre", "smollm")
      .Texts("tokenizer.ggml.tokens", {"<s>", "a", "b", "ab"})
      .Integers("tokenizer.ggml.token_type", {3, 1, 1, 1})
      .Texts("tokenizer.ggml.merges", {"a b"})
      .Integer("tokenizer.ggml.bos_token_id", 0);
  GgufFile pieces = Seed(kQ4_K, 256);
  pieces.Text("tokenizer.ggml.model", "llama")
      .Texts("tokenizer.ggml.tokens", {"<unk>", "a", "b", "ab", "<0x20>"})
      .Integers("tokenizer.ggml.token_type", {2, 1, 1, 1, 6})
      .Floats("tokenizer.ggml.scores", {0, -1, -2, -3, 0})
      .Bool("tokenizer.ggml.add_space_prefix", false);
  return {GgufFile().Bytes(), Seed(kF32, 4).Bytes(), byte_level.Bytes(),
          pieces.Bytes()};
}

}  // namespace witan::fuzz
