// Agreement with an independent program: logits of both Witlings against a
// float64 reference, judged by the error that transformers makes in bfloat16.
// The goldens and their format: tests/goldens/make_goldens.py.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "base/file.h"
#include "model/checkpoint.h"
#include "model/families.h"
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

// Of some positions: those of whole sequences, or only those whose next token
// the greedy reference chose.
struct Positions {
  double our_max_error = 0;
  double their_max_error = 0;  // transformers in bfloat16, same logits
  // All but one position in a hundred err less: a near-tie of the router, which
  // makes the largest error, hides nothing here.
  double our_common_error = 0;
  double their_common_error = 0;
  int64_t count = 0;
  int64_t num_qualified = 0;  // the reference's margin exceeds our error
  int64_t num_equal = 0;      // of those, where our first choice is its
};

struct Comparison {
  Positions all;
  Positions greedy;
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
    const auto prompt_lengths = goldens_.Get<int32_t>("prompt_lengths");
    const auto token_ids = goldens_.Get<int32_t>("token_ids");
    Comparison result;
    result.num_prompts = static_cast<int64_t>(prompt_lengths.size());
    for (size_t p = 0; p < prompt_lengths.size(); ++p) {
      const auto sequence =
          token_ids.subspan(offsets[p], offsets[p + 1] - offsets[p]);
      auto ours = engine_.LogitsOfAllPositions(sequence);
      EXPECT_TRUE(ours.ok()) << ours.status();
      if (!ours.ok()) return result;
      auto last = engine_.LogitsOfLastPosition(sequence);
      EXPECT_TRUE(last.ok()) << last.status();
      if (!last.ok()) return result;
      EXPECT_EQ(*last, ours->back())
          << "one chunk and token by token differ in sequence " << p;
      for (size_t i = 0; i < ours->size(); ++i) {
        for (const float logit : (*ours)[i]) {
          result.hash =
              (result.hash ^ std::bit_cast<uint32_t>(logit)) * 1099511628211ull;
        }
        seen_.push_back(Look((*ours)[i], seen_.size()));
        seen_.back().greedy = i + 1 >= static_cast<size_t>(prompt_lengths[p]) &&
                              i + 1 < ours->size();
      }
    }
    EXPECT_EQ(next_row_, goldens_.Get<int32_t>("row_positions").size());
    result.all = Count([](const Seen&) { return true; });
    result.greedy = Count([](const Seen& seen) { return seen.greedy; });
    return result;
  }

 private:
  struct Seen {
    double error = 0;
    TokenId top = 0;
    bool greedy = false;
  };

  Seen Look(const std::vector<float>& ours, size_t position) {
    Seen seen;
    seen.top = static_cast<TokenId>(std::max_element(ours.begin(), ours.end()) -
                                    ours.begin());
    const auto add_error = [&seen](double our_logit, double reference) {
      seen.error = std::max(seen.error, std::abs(our_logit - reference));
    };
    const auto columns = goldens_.Get<int32_t>("columns");
    const auto column_logits = goldens_.Get<float>("column_logits");
    const size_t num_columns =
        columns.size() / goldens_.Get<int32_t>("token_ids").size();
    for (size_t c = position * num_columns; c < (position + 1) * num_columns;
         ++c) {
      add_error(ours[columns[c]], column_logits[c]);
    }
    const auto row_positions = goldens_.Get<int32_t>("row_positions");
    if (next_row_ < row_positions.size() &&
        static_cast<size_t>(row_positions[next_row_]) == position) {
      const auto logits = goldens_.Get<float>("logits");
      for (size_t v = 0; v < ours.size(); ++v) {
        add_error(ours[v], logits[next_row_ * ours.size() + v]);
      }
      ++next_row_;
    }
    return seen;
  }

  template <typename Chosen>
  Positions Count(const Chosen& chosen) const {
    const auto their_error = goldens_.Get<float>("bfloat16_error");
    const auto margin = goldens_.Get<float>("margin");
    const auto top_token = goldens_.Get<int32_t>("top_token");
    Positions positions;
    std::vector<double> ours, theirs;
    for (size_t i = 0; i < seen_.size(); ++i) {
      if (!chosen(seen_[i])) continue;
      ours.push_back(seen_[i].error);
      theirs.push_back(their_error[i]);
    }
    std::sort(ours.begin(), ours.end());
    std::sort(theirs.begin(), theirs.end());
    positions.count = static_cast<int64_t>(ours.size());
    if (ours.empty()) return positions;
    positions.our_max_error = ours.back();
    positions.their_max_error = theirs.back();
    positions.our_common_error = ours[ours.size() * 99 / 100];
    positions.their_common_error = theirs[theirs.size() * 99 / 100];
    for (size_t i = 0; i < seen_.size(); ++i) {
      if (!chosen(seen_[i]) || margin[i] <= positions.our_max_error) continue;
      ++positions.num_qualified;
      positions.num_equal += seen_[i].top == top_token[i];
    }
    return positions;
  }

  const Goldens& goldens_;
  OneRank& engine_;
  std::vector<Seen> seen_;
  size_t next_row_ = 0;
};

Comparison Compare(const std::string& model, CpuPath path) {
  const Goldens goldens(model);
  auto engine = OneRank::Create(SourcePath("examples/witling/" + model), path);
  EXPECT_TRUE(engine.ok()) << engine.status();
  if (!goldens.ok() || !engine.ok()) return {};
  return Comparer(goldens, **engine).Run();
}

double PercentQualified(const Positions& positions) {
  return 100.0 * static_cast<double>(positions.num_qualified) /
         static_cast<double>(std::max<int64_t>(1, positions.count));
}

// Of the greedy tokens, so many must have a margin above our error.
constexpr double kMinPercent = 90;

// Of every position, in the prompt too: no logit is further off than twice what
// bfloat16 costs transformers, and tokens with a margin above our error are
// equal.
void ExpectAgreement(const std::string& model, const Comparison& c) {
  for (const auto& [name, positions] :
       {std::pair("all positions", c.all), {"greedy tokens", c.greedy}}) {
    std::printf(
        "%s, %s: %lld; largest logit error %.4f, transformers in bfloat16 %.4f "
        "on the same logits; at 99 %% of them %.4f and %.4f; margin above the "
        "largest at %.1f %%, first choice equal at %lld of these %lld\n",
        model.c_str(), name, static_cast<long long>(positions.count),
        positions.our_max_error, positions.their_max_error,
        positions.our_common_error, positions.their_common_error,
        PercentQualified(positions),
        static_cast<long long>(positions.num_equal),
        static_cast<long long>(positions.num_qualified));
    EXPECT_GT(positions.our_max_error, 0);
    EXPECT_LE(positions.our_max_error, 2 * positions.their_max_error);
    EXPECT_LE(positions.our_common_error, 2 * positions.their_common_error);
    EXPECT_EQ(positions.num_equal, positions.num_qualified);
  }
  EXPECT_EQ(c.num_prompts, 50);
  EXPECT_GE(PercentQualified(c.greedy), kMinPercent);
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
