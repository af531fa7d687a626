// Exactness of every family that is served, on the checkpoints of
// tests/goldens/families: prompts past every window, sequences that grow past
// every switch of a rotation.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <string>
#include <vector>

#include "model/config.h"
#include "tests/exactness/runs.h"
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

class FamilyExactnessTest : public testing::TestWithParam<std::string> {
 protected:
  FamilyExactnessTest() : config_(*ReadModelConfig(directory())) {
    options_.model_directory = directory();
    options_.layout = {1, 1};
    specs_ = Specs(10, 100, config_.vocab_size);
    // Sequences of 1 to 40 prompt tokens grow past a context of 64.
    for (SequenceSpec& spec : specs_) spec.stop.max_tokens = 40;
  }

  std::string directory() const { return Folder() + "/" + GetParam(); }
  std::vector<Layout> Layouts() const {
    if (!config_.has_experts()) return {{2, 1}, {3, 1}, {8, 1}};
    return {{2, 2}, {1, 4}, {8, 8}, {3, 2}};
  }

  ModelConfig config_;
  ThreadClusterOptions options_;
  std::vector<SequenceSpec> specs_;
};

TEST_P(FamilyExactnessTest, EveryLayoutComputesTheSame) {
  const EngineRun reference = RunTogether(options_, specs_);
  EXPECT_EQ(reference.max_sequences_of_a_step, 10);
  for (const Layout layout : Layouts()) {
    SCOPED_TRACE("tp=" + std::to_string(layout.tp) +
                 " ep=" + std::to_string(layout.ep));
    options_.layout = layout;
    ExpectSame(RunTogether(options_, specs_), reference);
  }
}

TEST_P(FamilyExactnessTest, ASequenceAloneAndInAnyChunksComputesTheSame) {
  const EngineRun together = RunTogether(options_, specs_);
  ExpectSame(RunTogether(options_, specs_, {.max_prefill_chunk_tokens = 11}),
             together);
  for (const SequenceSpec& spec : specs_) {
    const EngineRun alone = RunTogether(options_, {spec});
    EXPECT_EQ(alone.max_sequences_of_a_step, 1);
    EXPECT_TRUE(
        SameBits(alone.outputs.at(spec.id), together.outputs.at(spec.id)))
        << "sequence " << spec.id;
  }
}

TEST_P(FamilyExactnessTest, PreemptedSequencesContinueWithTheSameBits) {
  const EngineRun reference = RunTogether(options_, specs_);
  options_.num_blocks = 12;
  const EngineRun preempted = RunTogether(options_, specs_);
  EXPECT_GT(preempted.stats.num_preemptions, reference.stats.num_preemptions);
  ExpectSame(preempted, reference);
}

TEST_P(FamilyExactnessTest, APrefixFromTheCacheChangesNoBit) {
  // The same prompts again, behind those that filled the cache.
  auto specs = specs_;
  std::vector<int64_t> arrival_steps(specs.size(), 0);
  for (const SequenceSpec& spec : specs_) {
    specs.push_back(spec);
    specs.back().id += 100;
    arrival_steps.push_back(60);
  }
  const EngineRun run =
      RunTogether(options_, specs, {}, nullptr, arrival_steps);
  EXPECT_GE(run.stats.num_prefix_hit_tokens, 3 * kBlockTokens);
  for (const SequenceSpec& spec : specs_) {
    EXPECT_TRUE(
        SameBits(run.outputs.at(spec.id), run.outputs.at(spec.id + 100)))
        << "sequence " << spec.id;
  }
}

TEST_P(FamilyExactnessTest, BothPathsOfTheSecondOrderComputeTheSame) {
  options_.cpu_path = CpuPath::kPortable;
  const EngineRun portable = RunTogether(options_, specs_);
  options_.cpu_path = CpuPath::kAvx2;
  ExpectSame(RunTogether(options_, specs_), portable);
}

std::string TestName(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(),
      [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Tiny, FamilyExactnessTest, testing::ValuesIn(Names()),
                         TestName);

}  // namespace
}  // namespace witan
