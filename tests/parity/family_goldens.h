#ifndef WITAN_TESTS_PARITY_FAMILY_GOLDENS_H_
#define WITAN_TESTS_PARITY_FAMILY_GOLDENS_H_

// Logits of transformers in float64, and the error that it makes in bfloat16:
// the files of tests/goldens/make_family_goldens.py and
// make_adapter_goldens.py.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/checkpoint.h"
#include "tests/testing/one_rank.h"
#include "tests/testing/test_paths.h"

namespace witan {

// Directories of tests/goldens/KIND, by name.
inline std::vector<std::string> GoldenNames(const std::string& kind) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(
           SourcePath("tests/goldens/" + kind))) {
    if (entry.is_directory()) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string GoldenTestName(
    const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(),
      [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

class FamilyGoldens {
 public:
  explicit FamilyGoldens(const std::string& path)
      : goldens_(*Checkpoint::OpenFile(path)) {}

  // Each position in one chunk, in both orders of the numerics contract: the
  // largest error is at most twice that of transformers in bfloat16. Where two
  // experts nearly tie, rounding chooses, and every logit is another.
  void ExpectParity(const std::string& name, const std::string& model,
                    const std::string& adapter = "") const {
    const auto errors = Get<float>("bfloat16_error");
    const auto is_tie = Get<int32_t>("is_tie");
    double theirs = 0;
    for (size_t row = 0; row < errors.size(); ++row) {
      if (is_tie[row] == 0) theirs = std::max(theirs, double{errors[row]});
    }
    ASSERT_GE(std::count(is_tie.begin(), is_tie.end(), 0), 10);
    for (const CpuPath path : {CpuPath::kAuto, CpuPath::kPortable}) {
      auto engine = OneRank::Create(model, path, 1, adapter);
      ASSERT_TRUE(engine.ok()) << engine.status();
      double max = 0;
      for (size_t row = 0; row < errors.size(); ++row) {
        if (is_tie[row] != 0) continue;
        const auto ours = (*engine)->LogitsOfLastPosition(PrefixOfRow(row));
        ASSERT_TRUE(ours.ok()) << ours.status();
        max = std::max(max, MaxError(*ours, row));
      }
      std::printf("%s: largest error %.4f, transformers in bfloat16 %.4f\n",
                  name.c_str(), max, theirs);
      EXPECT_LE(max, 2 * theirs);
      // Rounded somewhere, so that the bar is not met by chance of a wrong
      // file.
      EXPECT_GT(max, 0);
    }
  }

 private:
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

  std::unique_ptr<Checkpoint> goldens_;
};

}  // namespace witan

#endif  // WITAN_TESTS_PARITY_FAMILY_GOLDENS_H_
