#include "cli/bench/axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace witan::bench {
namespace {

constexpr double kTicks = 5;
// An axis that ends at 0 would have no length.
constexpr double kLeastEnd = 1e-6;
// Lets 0.30000000000000004 pass for 0.3.
constexpr double kTolerance = 1e-9;

}  // namespace

double RoundUp(double least) {
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= least * (1 - kTolerance)) return factor * power;
  }
  return 10 * power;
}

Axis Axis::UpTo(double max, double begin_pixel, double end_pixel) {
  Axis axis;
  axis.begin_pixel_ = begin_pixel;
  axis.end_pixel_ = end_pixel;
  axis.max_ = std::max(max, kLeastEnd);
  const double step = RoundUp(axis.max_ / kTicks);
  for (double i = 0; i * step <= axis.max_ * (1 + kTolerance); ++i) {
    axis.ticks_.push_back(i * step);
  }
  return axis;
}

Axis Axis::Linear(double max, double begin_pixel, double end_pixel) {
  const double end = std::max(max, kLeastEnd);
  const double step = RoundUp(end / kTicks);
  const double count = std::max(std::ceil(end / step - kTolerance), 1.0);
  return UpTo(count * step, begin_pixel, end_pixel);
}

Axis Axis::Logarithmic(double min, double max, double begin_pixel,
                       double end_pixel) {
  Axis axis;
  axis.is_logarithmic_ = true;
  axis.begin_pixel_ = begin_pixel;
  axis.end_pixel_ = end_pixel;
  // The largest round number that is at most `min`.
  axis.min_ = 1 / RoundUp(1 / std::max(min, kLeastEnd));
  axis.max_ = std::max(RoundUp(std::max(max, kLeastEnd)), 2 * axis.min_);
  for (double tick = axis.min_; tick <= axis.max_ * (1 + kTolerance);
       tick = RoundUp(tick * 1.5)) {
    axis.ticks_.push_back(tick);
  }
  return axis;
}

double Axis::Pixel(double value) const {
  const auto scale = [this](double v) {
    return is_logarithmic_ ? std::log(v) : v;
  };
  const double low = scale(min_);
  const double share =
      (scale(std::clamp(value, min_, max_)) - low) / (scale(max_) - low);
  return begin_pixel_ + share * (end_pixel_ - begin_pixel_);
}

std::string TickLabel(double value) {
  if (value >= 1e6) return fmt::format("{:g}M", value / 1e6);
  if (value >= 1e4) return fmt::format("{:g}k", value / 1e3);
  return fmt::format("{:g}", value);
}

}  // namespace witan::bench
