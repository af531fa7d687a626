// Agreement with an independent program, family by family: logits of tiny
// random checkpoints against transformers in float64, judged by the error that
// transformers makes in bfloat16. The checkpoints, the goldens and their
// format: tests/goldens/make_family_goldens.py.

#include "model/families.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "model/config.h"
#include "tests/parity/family_goldens.h"

namespace witan {
namespace {

std::string Folder() { return SourcePath("tests/goldens/families"); }

class FamilyParityTest : public testing::TestWithParam<std::string> {};

TEST_P(FamilyParityTest, ErrorIsAtMostTwiceThatOfTransformersInBfloat16) {
  const std::string directory = Folder() + "/" + GetParam();
  FamilyGoldens(directory + ".safetensors").ExpectParity(GetParam(), directory);
}

INSTANTIATE_TEST_SUITE_P(Tiny, FamilyParityTest,
                         testing::ValuesIn(GoldenNames("families")),
                         GoldenTestName);

TEST(FamilyGoldensTest, EveryArchitectureIsAmongThem) {
  std::set<std::string> seen;
  for (const std::string& name : GoldenNames("families")) {
    const auto config = ReadModelConfig(Folder() + "/" + name);
    ASSERT_TRUE(config.ok()) << config.status();
    seen.insert(config->architecture);
  }
  for (const std::string& architecture : KnownArchitectures()) {
    if (architecture == "PhiMoEForCausalLM") continue;  // another spelling
    EXPECT_TRUE(seen.contains(architecture)) << architecture;
  }
}

}  // namespace
}  // namespace witan
