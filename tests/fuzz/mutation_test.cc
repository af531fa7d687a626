// Seeded mutations of the seeds of every target: what a fuzzer does for hours,
// for a moment and always alike. A failure names the round that repeats it.

#include <gtest/gtest.h>

#include <random>

#include "tests/fuzz/corpus.h"
#include "tests/fuzz/target.h"

namespace witan::fuzz {
namespace {

// Rounds of a target, by what one costs.
int NumRounds(std::string_view target) {
  if (target == "chat_template") return 10000;
  if (target == "tokenizer" || target == "sentencepiece") return 10000;
  if (target == "tekken") return 5000;
  if (target == "gguf") return 20000;
  return 60000;
}

class Mutator {
 public:
  Mutator(uint64_t seed, const std::vector<std::string>& seeds,
          const std::vector<std::string>& words)
      : random_(seed), seeds_(seeds), words_(words) {}

  std::string Input(void (*reshape)(std::string*, uint64_t)) {
    std::string input = seeds_[Below(seeds_.size())];
    const size_t kind = reshape == nullptr ? 0 : Below(3);
    if (kind != 1) {
      for (size_t i = 1 + Below(4); i > 0; --i) ChangeBytes(&input);
    }
    if (kind != 0) {
      for (size_t i = 1 + Below(2); i > 0; --i) reshape(&input, random_());
    }
    return input;
  }

 private:
  size_t Below(size_t bound) { return random_() % bound; }

  void ChangeBytes(std::string* input) {
    const size_t at = Below(input->size() + 1);
    switch (Below(8)) {
      case 0:
        if (at < input->size()) {
          (*input)[at] ^= static_cast<char>(1 << Below(8));
        }
        break;
      case 1:
        if (at < input->size()) (*input)[at] = static_cast<char>(Below(256));
        break;
      case 2:
        input->resize(at);
        break;
      case 3:
        input->insert(at,
                      std::string(1 + Below(8), static_cast<char>(Below(256))));
        break;
      case 4:
        input->erase(at, 1 + Below(16));
        break;
      case 5: {
        const std::string& other = seeds_[Below(seeds_.size())];
        input->insert(at, other.substr(Below(other.size() + 1), 1 + Below(60)));
        break;
      }
      case 6:
        if (!words_.empty()) input->insert(at, words_[Below(words_.size())]);
        break;
      default:
        if (!words_.empty()) {
          input->replace(at, 1 + Below(4), words_[Below(words_.size())]);
        }
    }
  }

  std::mt19937_64 random_;
  const std::vector<std::string>& seeds_;
  const std::vector<std::string>& words_;
};

class MutationTest : public ::testing::TestWithParam<Target> {};

TEST_P(MutationTest, NoDamageCrashesTheParserOrSlipsThroughIt) {
  const std::vector<std::string> seeds = GetParam().seeds();
  const std::vector<std::string> words = DictionaryOf(GetParam().name);
  const int num_rounds = NumRounds(GetParam().name);
  int num_accepted = 0;
  for (int round = 0; round < num_rounds; ++round) {
    Mutator mutator(static_cast<uint64_t>(round), seeds, words);
    const Outcome outcome = GetParam().run(mutator.Input(GetParam().reshape));
    ASSERT_EQ(outcome.broken, "") << "round " << round;
    num_accepted += outcome.is_accepted ? 1 : 0;
  }
  // Both outcomes are common, or the damage tries nothing.
  EXPECT_GT(num_accepted, num_rounds / 100);
  EXPECT_LT(num_accepted, num_rounds * 9 / 10);
}

INSTANTIATE_TEST_SUITE_P(Targets, MutationTest,
                         ::testing::ValuesIn(Targets().begin(),
                                             Targets().end()),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

}  // namespace
}  // namespace witan::fuzz
