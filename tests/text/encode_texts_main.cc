// What Witan makes of many texts, for compare_tokenizers.py:
//
//     text_encode_texts DIRECTORY < TEXTS > RESULTS
//
// A text is its length in bytes (4 bytes, little-endian) and its bytes. Its
// result is three lists of token ids (with special tokens around the text;
// without; without, and with the spelling of special tokens as text) and what
// the first decodes to, with special tokens and without. A list is its length
// and its ids, 4 bytes each; the length is -1 where the text is refused. What
// it decodes to is written as texts are.

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "coordinator/text/tokenizer.h"

namespace witan {
namespace {

void WriteNumber(int32_t number) {
  std::fwrite(&number, sizeof(number), 1, stdout);
}

void WriteIds(const absl::StatusOr<std::vector<TokenId>>& ids) {
  if (!ids.ok()) return WriteNumber(-1);
  WriteNumber(static_cast<int32_t>(ids->size()));
  std::fwrite(ids->data(), sizeof(TokenId), ids->size(), stdout);
}

void WriteText(const std::string& text) {
  WriteNumber(static_cast<int32_t>(text.size()));
  std::fwrite(text.data(), 1, text.size(), stdout);
}

int Run(const char* directory) {
  const auto tokenizer = Tokenizer::Load(directory);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  uint32_t num_bytes = 0;
  std::string text;
  while (std::fread(&num_bytes, sizeof(num_bytes), 1, stdin) == 1) {
    text.resize(num_bytes);
    if (std::fread(text.data(), 1, num_bytes, stdin) != num_bytes) return 1;
    const auto with_special = (*tokenizer)->Encode(text, {});
    WriteIds(with_special);
    WriteIds((*tokenizer)->Encode(text, {.add_special_tokens = false}));
    WriteIds((*tokenizer)
                 ->Encode(text, {.add_special_tokens = false,
                                 .parse_special = false}));
    for (const bool skip_special : {false, true}) {
      const absl::StatusOr<std::string> decoded =
          with_special.ok() ? (*tokenizer)->Decode(*with_special, skip_special)
                            : absl::StatusOr<std::string>("");
      WriteText(decoded.value_or(""));
    }
  }
  return 0;
}

}  // namespace
}  // namespace witan

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s DIRECTORY < TEXTS > RESULTS\n", argv[0]);
    return 2;
  }
  return witan::Run(argv[1]);
}
