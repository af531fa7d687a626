#ifndef WITAN_CLI_BENCH_DISTRIBUTION_H_
#define WITAN_CLI_BENCH_DISTRIBUTION_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>

#include "cli/bench/random.h"

namespace witan::bench {

// A distribution of numbers of tokens, read from one of
//
//   128                       always this many
//   uniform:64-256            each of 64 to 256 equally likely
//   normal:MEAN,STDDEV        |
//   lognormal:MEDIAN,SIGMA    | rounded; SIGMA is that of the logarithm
//   exponential:MEAN          |
//
// The last three take bounds as a last part (normal:128,32,16-512); a draw
// outside becomes the bound. Without bounds they are 1 to MEAN + 4 STDDEV, 1 to
// MEDIAN e^(4 SIGMA) and 1 to 8 MEAN, so that every distribution has a maximum
// that can be compared with a model's context. A value.
class Distribution {
 public:
  // INVALID_ARGUMENT quotes `text` and says what is wrong with it; the name of
  // the option is the caller's to add.
  static absl::StatusOr<Distribution> Parse(const std::string& text);

  // Always 1.
  Distribution() = default;

  // [min(), max()].
  int64_t Draw(Random& random) const;
  int64_t min() const { return min_; }
  int64_t max() const { return max_; }
  // As it was given.
  const std::string& text() const { return text_; }

 private:
  enum class Kind : uint8_t { kUniform, kNormal, kLognormal, kExponential };

  Kind kind_ = Kind::kUniform;
  double center_ = 1;  // mean or median
  double spread_ = 0;  // standard deviation or sigma
  int64_t min_ = 1;
  int64_t max_ = 1;
  std::string text_ = "1";
};

// All of `text` as a decimal number without an exponent, for options; NaN is
// none. "must be a number" names `text`.
absl::StatusOr<double> ParseNumber(const std::string& text);
// All of `text` as a whole number in [min, max].
absl::StatusOr<int64_t> ParseCount(const std::string& text, int64_t min,
                                   int64_t max);

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_DISTRIBUTION_H_
