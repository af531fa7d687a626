// Rope, the KV cache and attention against the oracle, and their exactness
// under chunking, batching and sharding of heads.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <random>
#include <string>
#include <vector>

#include "base/limits.h"
#include "kernels/backend.h"
#include "tests/kernels/every_path.h"
#include "tests/testing/reference_ops.h"

namespace witan {
namespace {

constexpr double kTheta = 1e4;
constexpr float kScale = 0.3f;

// A sequence's q, k, v before rope, and what a backend makes of it.
struct Sequence {
  Sequence(std::mt19937& random, int64_t num_positions_in, int64_t num_heads_in,
           int64_t num_kv_heads_in, int64_t head_dim_in)
      : num_positions(num_positions_in),
        num_heads(num_heads_in),
        num_kv_heads(num_kv_heads_in),
        head_dim(head_dim_in),
        q(TestTensor::Random(random, DType::kF32, num_positions,
                             num_heads * head_dim)),
        k(TestTensor::Random(random, DType::kF32, num_positions,
                             num_kv_heads * head_dim)),
        v(TestTensor::Random(random, DType::kF32, num_positions,
                             num_kv_heads * head_dim)) {}
  int64_t num_positions, num_heads, num_kv_heads, head_dim;
  TestTensor q, k, v;
};

// A cache full of NaN with `num_blocks` blocks.
class Cache {
 public:
  Cache(Backend& backend, const Sequence& s, int64_t num_blocks, DType dtype)
      : bytes_(
            backend.KvBytes(num_blocks, s.num_kv_heads, s.head_dim, dtype) + 64,
            '\xff') {
    char* aligned = bytes_.data() +
                    (64 - reinterpret_cast<uintptr_t>(bytes_.data()) % 64) % 64;
    layer = {aligned, num_blocks, s.num_kv_heads, s.head_dim, dtype};
  }
  KvLayer layer;

 private:
  std::vector<char> bytes_;
};

std::vector<int32_t> HeadMap(int64_t num_heads, int64_t num_kv_heads) {
  std::vector<int32_t> map;
  for (int64_t n = 0; n < num_heads; ++n) {
    map.push_back(static_cast<int32_t>(n * num_kv_heads / num_heads));
  }
  return map;
}

RopeParameters Rope(int64_t rotary_dim, double theta) {
  RopeParameters rope;
  rope.rotary_dim = rotary_dim;
  rope.theta = theta;
  return rope;
}

TestTensor RopeTable(int64_t num_positions, int64_t head_dim) {
  TestTensor table(DType::kF32, num_positions, head_dim);
  const std::vector<float> values =
      MakeRopeTable(num_positions, Rope(head_dim, kTheta));
  std::memcpy(table.view().data, values.data(), values.size() * sizeof(float));
  return table;
}

// Runs the sequence in chunks that end at `ends`; returns the attention output
// of all its rows. Blocks are handed out backwards.
TestTensor Attend(Backend& backend, const Sequence& s, DType a,
                  const std::vector<int64_t>& ends, int64_t window,
                  TestTensor* rotated_q = nullptr) {
  const int64_t num_blocks =
      (s.num_positions + kBlockTokens - 1) / kBlockTokens + 1;
  Cache cache(backend, s, num_blocks, a);
  std::vector<int32_t> block_ids;
  for (int64_t b = 0; b < num_blocks; ++b) {
    block_ids.push_back(static_cast<int32_t>(num_blocks - 1 - b));
  }
  const TestTensor rope = RopeTable(s.num_positions, s.head_dim);
  TestTensor q(a, s.num_positions, s.num_heads * s.head_dim);
  TestTensor out(a, s.num_positions, s.num_heads * s.head_dim);
  const std::vector<int32_t> heads = HeadMap(s.num_heads, s.num_kv_heads);
  int64_t begin = 0;
  for (const int64_t end : ends) {
    const std::vector<int32_t> row_begin = {0,
                                            static_cast<int32_t>(end - begin)};
    const std::vector<int32_t> first = {static_cast<int32_t>(begin)};
    const AttentionBatch batch = {row_begin, first, block_ids, num_blocks};
    backend.RopeWriteKv(s.q.view().Rows(begin, end),
                        s.k.view().Rows(begin, end),
                        s.v.view().Rows(begin, end), rope.view(), batch,
                        cache.layer, q.view().Rows(begin, end));
    backend.PagedAttention(q.view().Rows(begin, end), cache.layer, batch, heads,
                           kScale, window, out.view().Rows(begin, end));
    begin = end;
  }
  if (rotated_q != nullptr) *rotated_q = q;
  return out;
}

class AttentionTest : public EveryPath {
 protected:
  std::mt19937 random_{11};
};
WITAN_EVERY_PATH(AttentionTest);

TEST_P(AttentionTest, AgreesWithTheOracleWhateverTheWindow) {
  const auto backend = MakeBackendOfParam(2);
  struct Case {
    int64_t positions, heads, kv_heads, head_dim, window;
  };
  for (const Case& c : {Case{1, 1, 1, 2, 0},
                        {40, 4, 1, 32, 0},
                        {35, 6, 2, 24, 5},
                        {300, 2, 2, 64, 0},
                        {300, 5, 1, 16, 257},
                        {70, 4, 4, 128, 33},
                        {34, 3, 3, 6, 1}}) {
    const Sequence s(random_, c.positions, c.heads, c.kv_heads, c.head_dim);
    TestTensor q(activations(), 1, 1);
    const TestTensor out =
        Attend(*backend, s, activations(), {c.positions}, c.window, &q);
    std::vector<int64_t> positions;
    for (int64_t p = 0; p < c.positions; ++p) positions.push_back(p);
    const Worst rope =
        Compare(q.view(), ReferenceRope(s.q.values(), positions, c.head_dim,
                                        kTheta, activations()));
    EXPECT_LE(rope.ratio, 1) << rope.text;

    // The oracle reads q, k and v as they are stored: rounded after rope.
    const auto rounded = [&](const Matrix& m) {
      TestTensor t(activations(), m.rows, m.columns);
      for (int64_t r = 0; r < m.rows; ++r) {
        for (int64_t i = 0; i < m.columns; ++i) t.Set(r, i, m.At(r, i));
      }
      return t.values();
    };
    // k by the op itself, as if it were q: its bits were just judged.
    Sequence k_as_q = s;
    k_as_q.num_heads = s.num_kv_heads;
    k_as_q.q = s.k;
    TestTensor k(activations(), 1, 1);
    Attend(*backend, k_as_q, activations(), {c.positions}, 1, &k);
    const Matrix keys = k.values(), values = rounded(s.v.values()),
                 queries = q.values();
    const AttentionOracle oracle = {c.head_dim, kScale, activations()};
    Expected expected(c.positions, c.heads * c.head_dim);
    const std::vector<int32_t> heads = HeadMap(c.heads, c.kv_heads);
    for (int64_t n = 0; n < c.heads; ++n) {
      Matrix head_keys(c.positions, c.head_dim);
      Matrix head_values(c.positions, c.head_dim);
      const int64_t column = heads[static_cast<size_t>(n)] * c.head_dim;
      for (int64_t p = 0; p < c.positions; ++p) {
        for (int64_t d = 0; d < c.head_dim; ++d) {
          head_keys.At(p, d) = keys.At(p, column + d);
          head_values.At(p, d) = values.At(p, column + d);
        }
      }
      for (int64_t p = 0; p < c.positions; ++p) {
        const std::span<const double> query(
            &queries
                 .values[static_cast<size_t>((p * c.heads + n) * c.head_dim)],
            static_cast<size_t>(c.head_dim));
        const int64_t begin =
            c.window > 0 ? std::max<int64_t>(0, p + 1 - c.window) : 0;
        oracle.Attend(query, head_keys, head_values, begin, p + 1, p,
                      n * c.head_dim, expected);
      }
    }
    const Worst worst = Compare(out.view(), expected);
    EXPECT_LE(worst.ratio, 1)
        << c.positions << " positions, " << c.heads << " heads of "
        << c.head_dim << ", window " << c.window << ": " << worst.text;
  }
}

TEST_P(AttentionTest, GivesTheSameBitsForAnyChunking) {
  for (const int64_t window : {0, 100}) {
    const Sequence s(random_, 300, 4, 2, 32);
    const std::string whole =
        Attend(*MakeBackendOfParam(), s, activations(), {300}, window).Bits();
    std::vector<int64_t> ones;
    for (int64_t p = 1; p <= 300; ++p) ones.push_back(p);
    for (const std::vector<int64_t>& ends : {ones,
                                             {7, 255, 256, 257, 300},
                                             {31, 32, 33, 64, 299, 300},
                                             {260, 300}}) {
      for (const int num_threads : {1, 3}) {
        EXPECT_EQ(Attend(*MakeBackendOfParam(num_threads), s, activations(),
                         ends, window)
                      .Bits(),
                  whole)
            << ends.size() << " chunks, window " << window;
      }
    }
  }
}

TEST_P(AttentionTest, GivesAHeadTheSameBitsInAnySubsetOfHeads) {
  const Sequence s(random_, 90, 6, 2, 24);
  const auto backend = MakeBackendOfParam();
  const TestTensor whole = Attend(*backend, s, activations(), {90}, 0);
  for (int64_t n = 0; n < s.num_heads; ++n) {
    Sequence one(random_, 90, 1, 1, 24);
    const int64_t kv_head = n * s.num_kv_heads / s.num_heads;
    for (int64_t p = 0; p < 90; ++p) {
      for (int64_t d = 0; d < 24; ++d) {
        one.q.Set(p, d, s.q.Get(p, n * 24 + d));
        one.k.Set(p, d, s.k.Get(p, kv_head * 24 + d));
        one.v.Set(p, d, s.v.Get(p, kv_head * 24 + d));
      }
    }
    const TestTensor alone = Attend(*backend, one, activations(), {90}, 0);
    const size_t head_bytes = 24 * SizeOf(activations());
    for (int64_t p = 0; p < 90; ++p) {
      ASSERT_EQ(alone.RowBits(p),
                whole.RowBits(p).substr(static_cast<size_t>(n) * head_bytes,
                                        head_bytes))
          << "head " << n << " position " << p;
    }
  }
}

// Positions 0 to p must not see what lies behind, even if it is infinite: it
// would turn into NaN when multiplied by a probability of 0.
TEST_P(AttentionTest, NeverLetsAMaskedSlotReachAnOperand) {
  Sequence s(random_, 41, 4, 1, 32);
  const auto backend = MakeBackendOfParam();
  const TestTensor clean = Attend(*backend, s, activations(), {41}, 0);
  const TestTensor clean_window = Attend(*backend, s, activations(), {41}, 5);
  const double infinity = std::numeric_limits<double>::infinity();
  for (int64_t d = 0; d < 32; ++d) s.v.Set(21, d, infinity);
  const TestTensor dirty = Attend(*backend, s, activations(), {41}, 0);
  const TestTensor dirty_window = Attend(*backend, s, activations(), {41}, 5);
  for (int64_t p = 0; p < 41; ++p) {
    if (p < 21) {
      ASSERT_EQ(dirty.RowBits(p), clean.RowBits(p)) << p;
    } else {
      ASSERT_TRUE(std::isinf(dirty.Get(p, 0))) << p;
    }
    if (p < 21 || p > 25) {
      ASSERT_EQ(dirty_window.RowBits(p), clean_window.RowBits(p)) << p;
    }
  }
}

TEST_P(AttentionTest, GivesASequenceTheSameBitsInAnyBatch) {
  const std::vector<int64_t> lengths = {1, 33, 64, 130};
  const auto backend = MakeBackendOfParam(2);
  std::vector<Sequence> sequences;
  for (const int64_t length : lengths) {
    sequences.emplace_back(random_, length, 4, 2, 32);
  }
  // The last row of each, all in one step, over blocks that interleave.
  const int64_t stride = 6, num_blocks = 4 * stride;
  Cache cache(*backend, sequences[0], num_blocks, activations());
  std::vector<int32_t> block_ids(static_cast<size_t>(num_blocks));
  for (size_t i = 0; i < block_ids.size(); ++i) {
    block_ids[i] = static_cast<int32_t>(i % stride * 4 + i / stride);
  }
  const TestTensor rope = RopeTable(130, 32);
  const std::vector<int32_t> heads = HeadMap(4, 2);
  TestTensor q_last(activations(), 4, 128);
  std::vector<int32_t> row_begin = {0}, first;
  for (size_t i = 0; i < lengths.size(); ++i) {
    const Sequence& s = sequences[i];
    const std::vector<int32_t> rows = {0, static_cast<int32_t>(lengths[i])};
    const std::vector<int32_t> zero = {0};
    const AttentionBatch alone = {
        rows, zero,
        std::span<const int32_t>(block_ids).subspan(i * stride, stride),
        stride};
    const TestTensor q(activations(), lengths[i], 128);
    backend->RopeWriteKv(s.q.view(), s.k.view(), s.v.view(), rope.view(), alone,
                         cache.layer, q.view());
    for (int64_t c = 0; c < 128; ++c) {
      q_last.Set(static_cast<int64_t>(i), c, q.Get(lengths[i] - 1, c));
    }
    row_begin.push_back(row_begin.back() + 1);
    first.push_back(static_cast<int32_t>(lengths[i] - 1));
  }
  const AttentionBatch batch = {row_begin, first, block_ids, stride};
  const TestTensor out(activations(), 4, 128);
  backend->PagedAttention(q_last.view(), cache.layer, batch, heads, kScale, 0,
                          out.view());
  for (size_t i = 0; i < lengths.size(); ++i) {
    const TestTensor alone =
        Attend(*backend, sequences[i], activations(), {lengths[i]}, 0);
    EXPECT_EQ(out.RowBits(static_cast<int64_t>(i)),
              alone.RowBits(lengths[i] - 1));
  }
}

TEST(RopeTableTest, AgreesWithLongDoubleFarOut) {
  const int64_t num_positions = 3'000'000, head_dim = 4;
  const std::vector<float> table =
      MakeRopeTable(num_positions, Rope(head_dim, 5e5));
  for (int64_t p = 0; p < num_positions; p += 997) {
    for (int64_t i = 0; i < 2; ++i) {
      const long double angle =
          static_cast<long double>(p) * std::pow(5e5L, -2.0L * i / head_dim);
      const float* row = &table[static_cast<size_t>(p * head_dim)];
      // Half an ulp of a float near 1, and the frequency's error in a double.
      const double tolerance = 0x1p-24 + static_cast<double>(angle) * 0x1p-51;
      ASSERT_NEAR(row[i], static_cast<double>(std::cos(angle)), tolerance) << p;
      ASSERT_NEAR(row[2 + i], static_cast<double>(std::sin(angle)), tolerance)
          << p;
    }
  }
}

// angle / position of every pair, in the long double arithmetic of the formulas
// of the papers named in base/rope.h.
std::vector<long double> Frequencies(const RopeParameters& rope, bool is_long) {
  const int64_t half = rope.rotary_dim / 2;
  const long double two_pi = 2 * std::numbers::pi_v<long double>;
  const auto original = static_cast<long double>(rope.original_context_tokens);
  std::vector<long double> frequencies;
  for (int64_t i = 0; i < half; ++i) {
    long double f = std::pow(static_cast<long double>(rope.theta),
                             -static_cast<long double>(i) / half);
    if (rope.scaling == RopeScaling::kLinear) f /= rope.factor;
    if (rope.scaling == RopeScaling::kLongRope) {
      f /= (is_long ? rope.long_factors : rope.short_factors)[i];
    }
    if (rope.scaling == RopeScaling::kLlama3) {
      const long double wavelength = two_pi / f;
      const long double smooth =
          (original / wavelength - rope.low_freq_factor) /
          (rope.high_freq_factor - rope.low_freq_factor);
      if (wavelength > original / rope.low_freq_factor) {
        f /= rope.factor;
      } else if (wavelength >= original / rope.high_freq_factor) {
        f = (1 - smooth) * f / rope.factor + smooth * f;
      }
    }
    if (rope.scaling == RopeScaling::kYarn) {
      const auto dimension = [&](long double rotations) {
        return rope.rotary_dim * std::log(original / (rotations * two_pi)) /
               (2 * std::log(static_cast<long double>(rope.theta)));
      };
      const long double low =
          std::max(0.0L, std::floor(dimension(rope.beta_fast)));
      const long double high = std::min<long double>(
          rope.rotary_dim - 1, std::ceil(dimension(rope.beta_slow)));
      const long double ramp = std::clamp((i - low) / (high - low), 0.0L, 1.0L);
      f = f / rope.factor * ramp + f * (1 - ramp);
    }
    frequencies.push_back(f);
  }
  return frequencies;
}

TEST(RopeTableTest, ScalesFrequenciesAsThePapersSay) {
  RopeParameters base = Rope(64, 5e5);
  base.factor = 8;
  base.original_context_tokens = 8192;
  base.low_freq_factor = 1;
  base.high_freq_factor = 4;
  base.attention_factor = 1.1;
  base.long_attention_factor = 1.3;
  for (int i = 0; i < 32; ++i) {
    base.short_factors.push_back(1 + 0.05 * i);
    base.long_factors.push_back(1 + 2.0 * i);
  }
  for (const RopeScaling scaling :
       {RopeScaling::kLinear, RopeScaling::kLlama3, RopeScaling::kYarn,
        RopeScaling::kLongRope}) {
    RopeParameters rope = base;
    rope.scaling = scaling;
    for (const bool is_long : {false, true}) {
      if (is_long && !rope.has_long_variant()) continue;
      constexpr int64_t kPositions = 2000;
      const std::vector<float> table = MakeRopeTable(kPositions, rope, is_long);
      const std::vector<long double> frequencies = Frequencies(rope, is_long);
      const double scale = is_long ? 1.3 : 1.1;
      for (int64_t p = 0; p < kPositions; p += 37) {
        for (int64_t i = 0; i < 32; ++i) {
          const long double angle = p * frequencies[i];
          const float* row = &table[static_cast<size_t>(p * 64)];
          const double tolerance =
              0x1p-23 + static_cast<double>(angle) * 0x1p-50;
          ASSERT_NEAR(row[i], scale * std::cos(static_cast<double>(angle)),
                      tolerance)
              << static_cast<int>(scaling) << ", pair " << i << " at " << p;
          ASSERT_NEAR(row[32 + i], scale * std::sin(static_cast<double>(angle)),
                      tolerance)
              << static_cast<int>(scaling) << ", pair " << i << " at " << p;
        }
      }
    }
  }
}

// Of a head of 24, 16 elements turn; a sequence may begin at any row.
TEST_P(AttentionTest, RotatesPartOfAHeadByTheRowsOfItsSequence) {
  const auto backend = MakeBackendOfParam();
  constexpr int64_t kDim = 24, kRotary = 16, kPositions = 40, kFirstRow = 7;
  const Sequence s(random_, kPositions, 2, 1, kDim);
  Cache cache(*backend, s, 3, activations());
  const std::vector<int32_t> block_ids = {2, 1}, row_begin = {0, kPositions};
  const std::vector<int32_t> first = {0}, rope_rows = {kFirstRow};
  const TestTensor rope = RopeTable(kFirstRow + kPositions, kRotary);
  const TestTensor q(activations(), kPositions, 2 * kDim);
  backend->RopeWriteKv(s.q.view(), s.k.view(), s.v.view(), rope.view(),
                       {row_begin, first, block_ids, 2, rope_rows}, cache.layer,
                       q.view());
  const double unit = activations() == DType::kBF16 ? 0x1p-8 : 0x1p-23;
  for (int64_t p = 0; p < kPositions; ++p) {
    for (int64_t c = 0; c < 2 * kDim; ++c) {
      const int64_t i = c % kDim, head = c - i, half = kRotary / 2;
      double exact = s.q.Get(p, c);
      if (i < kRotary) {
        const int64_t pair = i % half;
        const double cosine = rope.Get(kFirstRow + p, pair);
        const double sine = rope.Get(kFirstRow + p, half + pair);
        const double a = s.q.Get(p, head + pair);
        const double b = s.q.Get(p, head + half + pair);
        exact = i < half ? a * cosine - b * sine : b * cosine + a * sine;
      }
      ASSERT_NEAR(q.Get(p, c), exact, std::abs(exact) * unit + 0x1p-20)
          << p << ", " << c;
    }
  }
}

}  // namespace
}  // namespace witan
