// Every input of the corpus, each of which was once new to a fuzzer or broke
// something: all promises are kept, and of every target inputs are accepted
// and refused.

#include <gtest/gtest.h>

#include "tests/fuzz/corpus.h"
#include "tests/fuzz/target.h"

namespace witan::fuzz {
namespace {

// How many inputs of a corpus are accepted at least, and refused. Not all of
// them: a parser that takes more than it did makes some of the refused pass.
struct Counts {
  int num_accepted;
  int num_refused;
};

Counts ExpectedCounts(std::string_view target) {
  if (target == "safetensors") return {4, 40};
  if (target == "gguf") return {4, 20};
  if (target == "adapter") return {3, 6};
  if (target == "config") return {4, 40};
  if (target == "tokenizer") return {10, 40};
  if (target == "sentencepiece") return {6, 3};
  if (target == "tekken") return {2, 1};
  if (target == "chat_template") return {40, 40};
  if (target == "from_worker") return {7, 20};
  if (target == "from_coordinator") return {6, 20};
  if (target == "request") return {9, 20};
  return {1, 1};
}

class CorpusReplayTest : public ::testing::TestWithParam<Target> {};

TEST_P(CorpusReplayTest, EveryInputKeepsThePromises) {
  Counts seen = {0, 0};
  for (const auto& [name, input] : CorpusOf(GetParam().name)) {
    const Outcome outcome = GetParam().run(input);
    EXPECT_EQ(outcome.broken, "") << name;
    ++(outcome.is_accepted ? seen.num_accepted : seen.num_refused);
  }
  const Counts expected = ExpectedCounts(GetParam().name);
  EXPECT_GE(seen.num_accepted, expected.num_accepted);
  EXPECT_GE(seen.num_refused, expected.num_refused);
}

// Some seeds are there to be refused: half of those of chat_template are how a
// template fails.
TEST_P(CorpusReplayTest, ManySeedsAreAccepted) {
  size_t num_accepted = 0;
  const std::vector<std::string> seeds = GetParam().seeds();
  for (const std::string& seed : seeds) {
    const Outcome outcome = GetParam().run(seed);
    EXPECT_EQ(outcome.broken, "");
    num_accepted += outcome.is_accepted ? 1 : 0;
  }
  EXPECT_GT(num_accepted, seeds.size() / 3);
}

INSTANTIATE_TEST_SUITE_P(Targets, CorpusReplayTest,
                         ::testing::ValuesIn(Targets().begin(),
                                             Targets().end()),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

}  // namespace
}  // namespace witan::fuzz
