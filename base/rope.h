#ifndef WITAN_BASE_ROPE_H_
#define WITAN_BASE_ROPE_H_

// How a model turns queries and keys by their positions, as data. The maths is
// in kernels/rope_table.cc.

#include <cstdint>
#include <vector>

namespace witan {

// How trained frequencies are changed for contexts longer than those of the
// training. Names and formulas are those of transformers'
// modeling_rope_utils.py; the papers are named there.
enum class RopeScaling : uint8_t {
  kNone,
  kLinear,    // positions divided by factor
  kLlama3,    // Llama 3.1: long wavelengths divided by factor, with a ramp
  kYarn,      // "YaRN", arXiv 2309.00071
  kLongRope,  // "LongRoPE", arXiv 2402.13753: a factor for every frequency
};

struct RopeParameters {
  RopeScaling scaling = RopeScaling::kNone;
  double theta = 0;
  // Elements of a head that are turned, even; those behind them are not.
  int64_t rotary_dim = 0;

  // kLinear, kLlama3, kYarn.
  double factor = 1;
  // The context of the training: kLlama3, kYarn, kLongRope.
  int64_t original_context_tokens = 0;
  // kLlama3: wavelengths above original / low are scaled, those below
  // original / high are not.
  double low_freq_factor = 1;
  double high_freq_factor = 1;
  // kYarn: rotations over the original context between which the ramp lies,
  // and whether its ends are rounded to whole indices.
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;
  // kLongRope: rotary_dim / 2 divisors of the frequencies, for sequences of at
  // most original_context_tokens and for longer ones.
  std::vector<double> short_factors;
  std::vector<double> long_factors;
  // What cosines and sines are multiplied with; of kLongRope for sequences of
  // at most original_context_tokens, and for longer ones.
  double attention_factor = 1;
  double long_attention_factor = 1;

  bool operator==(const RopeParameters&) const = default;

  // Whether long sequences have angles of their own. A sequence then changes
  // all its keys when it grows beyond original_context_tokens.
  bool has_long_variant() const { return scaling == RopeScaling::kLongRope; }
};

}  // namespace witan

#endif  // WITAN_BASE_ROPE_H_
