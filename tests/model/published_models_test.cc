// Published models (tests/testing/published_configs) are read and counted.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/config.h"
#include "model/families.h"
#include "tests/testing/published_configs.h"

namespace witan {
namespace {

class PublishedModelsTest : public testing::TestWithParam<PublishedModel> {};

TEST_P(PublishedModelsTest, HasThePublishedNumberOfParameters) {
  const PublishedModel& model = GetParam();
  const auto config = ParseModelConfig(model.config_json);
  ASSERT_TRUE(config.ok()) << config.status();
  const ParameterCount count = CountParameters(*config);
  EXPECT_EQ(count.total, model.num_parameters);
  EXPECT_EQ(count.active, model.num_active_parameters);
}

std::string TestName(const testing::TestParamInfo<PublishedModel>& info) {
  std::string name = info.param.name;
  std::replace_if(
      name.begin(), name.end(),
      [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Hub, PublishedModelsTest,
                         testing::ValuesIn(PublishedModels()), TestName);

TEST(PublishedModelsTest, EveryFamilyIsAmongThem) {
  for (const std::string& architecture : KnownArchitectures()) {
    if (architecture == "PhimoeForCausalLM") continue;  // another spelling
    const std::vector<PublishedModel> models = PublishedModels();
    EXPECT_TRUE(std::any_of(models.begin(), models.end(),
                            [&](const PublishedModel& model) {
                              return model.architecture == architecture;
                            }))
        << architecture;
  }
}

}  // namespace
}  // namespace witan
