// Agreement with an independent program: logits of tiny checkpoints with LoRA
// adapters against transformers in float64 with the adapter merged into the
// weights. The adapters and their goldens:
// tests/goldens/make_adapter_goldens.py.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/file.h"
#include "base/limits.h"
#include "tests/parity/family_goldens.h"

namespace witan {
namespace {

class AdapterParityTest : public testing::TestWithParam<std::string> {};

TEST_P(AdapterParityTest, ErrorIsAtMostTwiceThatOfTransformersInBfloat16) {
  const std::string adapter =
      SourcePath("tests/goldens/adapters/" + GetParam());
  const auto config =
      ReadFile(adapter + "/adapter_config.json", kMaxConfigFileBytes);
  ASSERT_TRUE(config.ok()) << config.status();
  const auto family = nlohmann::json::parse(*config)
                          .at("base_model_name_or_path")
                          .get<std::string>();
  const std::string model = SourcePath("tests/goldens/families/" + family);
  FamilyGoldens(adapter + ".safetensors")
      .ExpectParity(GetParam(), model, adapter);
}

INSTANTIATE_TEST_SUITE_P(Tiny, AdapterParityTest,
                         testing::ValuesIn(GoldenNames("adapters")),
                         GoldenTestName);

}  // namespace
}  // namespace witan
