// How fast Witan encodes texts, on one thread; bench/tokenizing.py runs it
// beside the reference libraries:
//
//     bench_tokenize DIRECTORY ROUNDS < TEXTS
//
// A text is its length in bytes (4 bytes, little-endian) and its bytes. Prints
// the seconds of the fastest round over all texts and how many tokens they are.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "coordinator/text/tokenizer.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s DIRECTORY ROUNDS < TEXTS\n", argv[0]);
    return 2;
  }
  const auto tokenizer = witan::Tokenizer::Load(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  std::vector<std::string> texts;
  uint32_t num_bytes = 0;
  while (std::fread(&num_bytes, sizeof(num_bytes), 1, stdin) == 1) {
    std::string text(num_bytes, '\0');
    if (std::fread(text.data(), 1, num_bytes, stdin) != num_bytes) return 1;
    texts.push_back(std::move(text));
  }
  double best_seconds = std::numeric_limits<double>::infinity();
  size_t num_tokens = 0;
  for (int round = 0; round < std::atoi(argv[2]); ++round) {
    num_tokens = 0;
    const auto begin = std::chrono::steady_clock::now();
    for (const std::string& text : texts) {
      const auto ids =
          (*tokenizer)->Encode(text, {.add_special_tokens = false});
      if (!ids.ok()) {
        std::fprintf(stderr, "%s\n", ids.status().ToString().c_str());
        return 1;
      }
      num_tokens += ids->size();
    }
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - begin;
    best_seconds = std::min(best_seconds, seconds.count());
  }
  std::printf("%.6f %zu\n", best_seconds, num_tokens);
  return 0;
}
