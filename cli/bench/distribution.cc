#include "cli/bench/distribution.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/status.h"

namespace witan::bench {
namespace {

constexpr char kForms[] =
    "use a number of tokens, uniform:MIN-MAX, normal:MEAN,STDDEV, "
    "lognormal:MEDIAN,SIGMA or exponential:MEAN, the last three with bounds "
    "as in normal:128,32,16-512";

std::vector<std::string> SplitAt(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (true) {
    const size_t end = text.find(separator, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

// "MIN-MAX".
absl::StatusOr<std::pair<int64_t, int64_t>> ParseRange(
    const std::string& text) {
  const std::vector<std::string> ends = SplitAt(text, '-');
  if (ends.size() != 2) {
    return InvalidArgument("\"{}\" is not a range MIN-MAX", text);
  }
  ASSIGN_OR_RETURN(const int64_t min,
                   ParseCount(ends[0], 1, kMaxContextTokens));
  ASSIGN_OR_RETURN(const int64_t max,
                   ParseCount(ends[1], 1, kMaxContextTokens));
  if (min > max) {
    return InvalidArgument("the range {} ends before it begins", text);
  }
  return std::pair(min, max);
}

absl::StatusOr<double> ParseInRange(const std::string& text, double min,
                                    double max, const char* what) {
  ASSIGN_OR_RETURN(const double value, ParseNumber(text));
  if (!(value >= min && value <= max)) {
    return InvalidArgument("the {} {} is not from {} to {}", what, text, min,
                           max);
  }
  return value;
}

}  // namespace

absl::StatusOr<double> ParseNumber(const std::string& text) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto parsed =
      std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (parsed.ec != std::errc() || parsed.ptr != end || !std::isfinite(value)) {
    return InvalidArgument("\"{}\" is not a number", text);
  }
  return value;
}

absl::StatusOr<int64_t> ParseCount(const std::string& text, int64_t min,
                                   int64_t max) {
  int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end || value < min ||
      value > max) {
    return InvalidArgument("\"{}\" is not a whole number from {} to {}", text,
                           min, max);
  }
  return value;
}

absl::StatusOr<Distribution> Distribution::Parse(const std::string& text) {
  Distribution result;
  result.text_ = text;
  const size_t colon = text.find(':');
  const std::string kind = text.substr(0, colon);
  if (colon == std::string::npos) {
    const auto count = ParseCount(text, 1, kMaxContextTokens);
    if (!count.ok()) {
      return InvalidArgument("{}; {}", MessageOf(count.status()), kForms);
    }
    result.min_ = result.max_ = *count;
    return result;
  }
  const std::string rest = text.substr(colon + 1);
  if (kind == "uniform") {
    ASSIGN_OR_RETURN(const auto range, ParseRange(rest));
    std::tie(result.min_, result.max_) = range;
    return result;
  }
  std::vector<std::string> parts = SplitAt(rest, ',');
  std::optional<std::pair<int64_t, int64_t>> bounds;
  if (parts.back().find('-') != std::string::npos) {
    ASSIGN_OR_RETURN(bounds, ParseRange(parts.back()));
    parts.pop_back();
  }
  const size_t num_parameters = kind == "exponential" ? 1 : 2;
  if ((kind != "normal" && kind != "lognormal" && kind != "exponential") ||
      parts.size() != num_parameters) {
    return InvalidArgument("\"{}\" is not a distribution; {}", text, kForms);
  }
  const double limit = static_cast<double>(kMaxContextTokens);
  ASSIGN_OR_RETURN(result.center_,
                   ParseInRange(parts[0], 1, limit,
                                kind == "lognormal" ? "median" : "mean"));
  double usual_max = 8 * result.center_;
  result.kind_ = Kind::kExponential;
  if (kind == "normal") {
    ASSIGN_OR_RETURN(result.spread_,
                     ParseInRange(parts[1], 0, limit, "standard deviation"));
    usual_max = result.center_ + 4 * result.spread_;
    result.kind_ = Kind::kNormal;
  } else if (kind == "lognormal") {
    ASSIGN_OR_RETURN(result.spread_, ParseInRange(parts[1], 0, 10, "sigma"));
    usual_max = result.center_ * std::exp(4 * result.spread_);
    result.kind_ = Kind::kLognormal;
  }
  const int64_t rounded_max =
      static_cast<int64_t>(std::ceil(std::min(usual_max, limit)));
  std::tie(result.min_, result.max_) =
      bounds.value_or(std::pair(int64_t{1}, rounded_max));
  return result;
}

int64_t Distribution::Draw(Random& random) const {
  double value = 0;
  switch (kind_) {
    case Kind::kUniform:
      return min_ + random.Below(max_ - min_ + 1);
    case Kind::kNormal:
      value = center_ + spread_ * random.Normal();
      break;
    case Kind::kLognormal:
      value = center_ * std::exp(spread_ * random.Normal());
      break;
    case Kind::kExponential:
      value = random.Exponential(center_);
      break;
  }
  return std::llround(
      std::clamp(value, static_cast<double>(min_), static_cast<double>(max_)));
}

}  // namespace witan::bench
