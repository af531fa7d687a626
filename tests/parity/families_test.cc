// Agreement with an independent program, family by family: logits of tiny
// random checkpoints against transformers in float64, judged by the error that
// transformers makes in bfloat16. The checkpoints, the goldens and their
// format: tests/goldens/make_family_goldens.py.

#include "model/families.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/checkpoint.h"
#include "model/families.h"
#include "tests/testing/one_rank.h"
#include "tests/testing/test_paths.h"

namespace witan {
namespace {

std::string Folder() { return SourcePath("tests/goldens/families"); }

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(Folder())) {
    if (entry.is_directory()) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class FamilyParityTest : public testing::TestWithParam<std::string> {
 protected:
  FamilyParityTest()
      : goldens_(*Checkpoint::OpenFile(Folder() + "/" + GetParam() +
                                       ".safetensors")) {}

  template <typename T>
  std::span<const T> Get(const std::string& name) const {
    const MappedTensor* tensor = goldens_->Find(name);
    EXPECT_NE(tensor, nullptr) << name;
    return {reinterpret_cast<const T*>(tensor->data.data()),
            tensor->data.size() / sizeof(T)};
  }

  // The tokens of row r's sequence up to its position.
  std::span<const TokenId> PrefixOfRow(size_t row) const {
    const auto offsets = Get<int32_t>("sequence_offsets");
    const int32_t position = Get<int32_t>("row_positions")[row];
    const auto next =
        std::upper_bound(offsets.begin(), offsets.end(), position);
    const int32_t begin = *(next - 1);
    return Get<TokenId>("token_ids").subspan(begin, position + 1 - begin);
  }

  double MaxError(std::span<const float> ours, size_t row) const {
    const auto logits = Get<float>("logits").subspan(row * ours.size());
    double max = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      max = std::max(max, std::abs(double{ours[i]} - double{logits[i]}));
    }
    return max;
  }

 private:
  std::unique_ptr<Checkpoint> goldens_;
};

// Both orders of the numerics contract, each position in one chunk.
TEST_P(FamilyParityTest, ErrorIsAtMostTwiceThatOfTransformersInBfloat16) {
  const auto errors = Get<float>("bfloat16_error");
  const auto is_tie = Get<int32_t>("is_tie");
  // Where two experts nearly tie, rounding chooses, and every logit is another.
  double theirs = 0;
  for (size_t row = 0; row < errors.size(); ++row) {
    if (is_tie[row] == 0) theirs = std::max(theirs, double{errors[row]});
  }
  ASSERT_GE(std::count(is_tie.begin(), is_tie.end(), 0), 12);
  for (const CpuPath path : {CpuPath::kAuto, CpuPath::kPortable}) {
    auto engine = OneRank::Create(Folder() + "/" + GetParam(), path, 1);
    ASSERT_TRUE(engine.ok()) << engine.status();
    double max = 0;
    for (size_t row = 0; row < errors.size(); ++row) {
      const auto ours = (*engine)->LogitsOfLastPosition(PrefixOfRow(row));
      ASSERT_TRUE(ours.ok()) << ours.status();
      if (is_tie[row] != 0) continue;
      max = std::max(max, MaxError(*ours, row));
    }
    std::printf("%s: largest error %.4f, transformers in bfloat16 %.4f\n",
                GetParam().c_str(), max, theirs);
    EXPECT_LE(max, 2 * theirs);
    // Rounded somewhere, so that the bar is not met by chance of a wrong file.
    EXPECT_GT(max, 0);
  }
}

std::string TestName(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(),
      [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Tiny, FamilyParityTest, testing::ValuesIn(Names()),
                         TestName);

TEST(FamilyGoldensTest, EveryArchitectureIsAmongThem) {
  std::set<std::string> seen;
  for (const std::string& name : Names()) {
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
