// Agreement with an independent program: logits of both Witlings against a
// float64 reference, judged by the error that transformers makes in bfloat16.
// The goldens and their format: tests/goldens/make_goldens.py.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/file.h"
#include "model/families.h"
#include "model/safetensors.h"
#include "tests/testing/one_rank.h"
#include "tests/testing/test_paths.h"

namespace witan {
namespace {

// One file of goldens. Names as in make_goldens.py.
class Goldens {
 public:
  explicit Goldens(const std::string& model) {
    auto checkpoint = Checkpoint::OpenFile(
        SourcePath("tests/goldens/" + model + ".safetensors"));
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    if (checkpoint.ok()) checkpoint_ = *std::move(checkpoint);
  }
  bool ok() const { return checkpoint_ != nullptr; }

  template <typename T>
  std::span<const T> Get(const std::string& name) const {
    const MappedTensor* tensor = checkpoint_->Find(name);
    EXPECT_NE(tensor, nullptr) << name;
    return {reinterpret_cast<const T*>(tensor->data.data()),
            tensor->data.size() / sizeof(T)};
  }

 private:
  std::unique_ptr<Checkpoint> checkpoint_;
};

struct Comparison {
  double our_max_error = 0;
  double their_max_error = 0;  // transformers in bfloat16, same logits
  // Positions, and those whose next token the greedy reference chose.
  int64_t num_positions = 0;
  int64_t num_greedy = 0;
  // Of each, those where the reference's margin exceeds our largest error.
  int64_t num_qualified = 0;
  int64_t num_greedy_qualified = 0;
  int64_t num_equal = 0;  // of num_qualified
  int64_t num_prompts = 0;
  // Of the bits of all our logits, in order.
  uint64_t hash = 14695981039346656037ull;
};

class Comparer {
 public:
  Comparer(const Goldens& goldens, OneRank& engine)
      : goldens_(goldens), engine_(engine) {}

  // Feeds every sequence token by token and in one chunk; both must agree to
  // the bit, so that the figures hold for prefill and decode.
  Comparison Run() {
    const auto offsets = goldens_.Get<int32_t>("sequence_offsets");
    const auto token_ids = goldens_.Get<int32_t>("token_ids");
    result_.num_prompts = static_cast<int64_t>(offsets.size()) - 1;
    result_.num_positions = static_cast<int64_t>(token_ids.size());
    for (size_t p = 0; p + 1 < offsets.size(); ++p) {
      const auto sequence =
          token_ids.subspan(offsets[p], offsets[p + 1] - offsets[p]);
      auto ours = engine_.LogitsOfAllPositions(sequence);
      EXPECT_TRUE(ours.ok()) << ours.status();
      if (!ours.ok()) return result_;
      auto last = engine_.LogitsOfLastPosition(sequence);
      EXPECT_TRUE(last.ok()) << last.status();
      if (!last.ok()) return result_;
      EXPECT_EQ(*last, ours->back())
          << "one chunk and token by token differ in sequence " << p;
      for (size_t i = 0; i < ours->size(); ++i) {
        Look((*ours)[i], static_cast<size_t>(offsets[p]) + i);
      }
    }
    EXPECT_EQ(next_row_, goldens_.Get<int32_t>("row_positions").size());
    CountGreedy();
    return result_;
  }

 private:
  void Look(const std::vector<float>& ours, size_t position) {
    for (const float logit : ours) {
      result_.hash =
          (result_.hash ^ std::bit_cast<uint32_t>(logit)) * 1099511628211ull;
    }
    our_top_.push_back(static_cast<TokenId>(
        std::max_element(ours.begin(), ours.end()) - ours.begin()));
    const auto columns = goldens_.Get<int32_t>("columns");
    const auto column_logits = goldens_.Get<float>("column_logits");
    const size_t num_columns = columns.size() / result_.num_positions;
    for (size_t c = position * num_columns; c < (position + 1) * num_columns;
         ++c) {
      AddError(ours[columns[c]], column_logits[c]);
    }
    result_.their_max_error =
        std::max<double>(result_.their_max_error,
                         goldens_.Get<float>("bfloat16_error")[position]);
    const auto row_positions = goldens_.Get<int32_t>("row_positions");
    if (next_row_ == row_positions.size() ||
        static_cast<size_t>(row_positions[next_row_]) != position) {
      return;
    }
    const auto logits = goldens_.Get<float>("logits");
    for (size_t v = 0; v < ours.size(); ++v) {
      AddError(ours[v], logits[next_row_ * ours.size() + v]);
    }
    ++next_row_;
  }

  void AddError(double ours, double reference) {
    result_.our_max_error =
        std::max(result_.our_max_error, std::abs(ours - reference));
  }

  void CountGreedy() {
    const auto offsets = goldens_.Get<int32_t>("sequence_offsets");
    const auto prompt_lengths = goldens_.Get<int32_t>("prompt_lengths");
    const auto margin = goldens_.Get<float>("margin");
    const auto top_token = goldens_.Get<int32_t>("top_token");
    for (size_t p = 0; p + 1 < offsets.size(); ++p) {
      for (int32_t i = offsets[p]; i < offsets[p + 1]; ++i) {
        const bool greedy =
            i >= offsets[p] + prompt_lengths[p] - 1 && i + 1 < offsets[p + 1];
        result_.num_greedy += greedy;
        if (margin[i] <= result_.our_max_error) continue;
        ++result_.num_qualified;
        result_.num_greedy_qualified += greedy;
        result_.num_equal += our_top_[i] == top_token[i];
      }
    }
  }

  const Goldens& goldens_;
  OneRank& engine_;
  Comparison result_;
  std::vector<TokenId> our_top_;
  size_t next_row_ = 0;
};

Comparison Compare(const std::string& model, CpuPath path) {
  const Goldens goldens(model);
  auto engine = OneRank::Create(SourcePath("examples/witling/" + model), path);
  EXPECT_TRUE(engine.ok()) << engine.status();
  if (!goldens.ok() || !engine.ok()) return {};
  return Comparer(goldens, **engine).Run();
}

double Percent(int64_t part, int64_t whole) {
  return 100.0 * static_cast<double>(part) /
         static_cast<double>(std::max<int64_t>(1, whole));
}

void ExpectAgreement(const std::string& model, const Comparison& c) {
  std::printf(
      "%s: %lld prompts; largest logit error %.4f, transformers in bfloat16 "
      "%.4f on the same logits; greedy tokens equal at %lld of %lld positions "
      "whose margin exceeds it: %.1f %% of the %lld greedy tokens, %.1f %% of "
      "all %lld positions\n",
      model.c_str(), static_cast<long long>(c.num_prompts), c.our_max_error,
      c.their_max_error, static_cast<long long>(c.num_equal),
      static_cast<long long>(c.num_qualified),
      Percent(c.num_greedy_qualified, c.num_greedy),
      static_cast<long long>(c.num_greedy),
      Percent(c.num_qualified, c.num_positions),
      static_cast<long long>(c.num_positions));
  EXPECT_EQ(c.num_prompts, 50);
  EXPECT_GT(c.our_max_error, 0);
  EXPECT_LE(c.our_max_error, 2 * c.their_max_error);
  EXPECT_EQ(c.num_equal, c.num_qualified);
  EXPECT_GE(Percent(c.num_greedy_qualified, c.num_greedy), 90);
}

TEST(TransformersTest, BaseModelIsWithinTwiceTheErrorOfTransformers) {
  ExpectAgreement("witling-base", Compare("witling-base", CpuPath::kAuto));
}

TEST(TransformersTest, InstructModelIsWithinTwiceTheErrorOfTransformers) {
  ExpectAgreement("witling-instruct",
                  Compare("witling-instruct", CpuPath::kAuto));
}

// The other order of additions is as close, with other bits.
TEST(TransformersTest, PortableOrderIsWithinTwiceTheErrorOfTransformers) {
  const Comparison portable = Compare("witling-instruct", CpuPath::kPortable);
  ExpectAgreement("witling-instruct", portable);
  if (__builtin_cpu_supports("avx512bf16")) {
    EXPECT_NE(portable.hash,
              Compare("witling-instruct", CpuPath::kAvx512Bf16).hash);
  }
}

}  // namespace
}  // namespace witan
