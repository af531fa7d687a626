#ifndef WITAN_CLI_BENCH_AXIS_H_
#define WITAN_CLI_BENCH_AXIS_H_

#include <string>
#include <vector>

namespace witan::bench {

// Maps values to pixels along one direction of a plot, and says where its ticks
// are. A value.
class Axis {
 public:
  // From 0 to the first round number that is at least `max`.
  static Axis Linear(double max, double begin_pixel, double end_pixel);
  // From 0 to `max` itself, with round ticks in between.
  static Axis UpTo(double max, double begin_pixel, double end_pixel);
  // Of positive values; both ends are round (1, 2 or 5 times a power of ten)
  // and enclose [min, max].
  static Axis Logarithmic(double min, double max, double begin_pixel,
                          double end_pixel);

  // Values beyond the ends are drawn at the ends.
  double Pixel(double value) const;
  const std::vector<double>& ticks() const { return ticks_; }
  double min() const { return min_; }
  double max() const { return max_; }

 private:
  bool is_logarithmic_ = false;
  double begin_pixel_ = 0;
  double end_pixel_ = 0;
  double min_ = 0;
  double max_ = 0;
  std::vector<double> ticks_;  // ascending, within the ends
};

// The smallest of 1, 2, 5 times a power of ten that is at least `least`.
// REQUIRES: least > 0.
double RoundUp(double least);

// "0.5", "250", "12k".
std::string TickLabel(double value);

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_AXIS_H_
