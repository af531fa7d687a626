#ifndef WITAN_BENCH_SVG_PLOT_H_
#define WITAN_BENCH_SVG_PLOT_H_

// Plots of measurements as one SVG file: panels side by side, both axes
// logarithmic, so that a straight line of slope one is "linear" and a level one
// "independent".

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace witan {

struct SvgPanel {
  std::string title;
  std::string x_label;
  std::string y_label;
  // What is compared with, drawn dashed through the last point: the slope of
  // the expectation (1: linear, 0: level).
  double slope = 0;
  std::vector<std::pair<double, double>> points;  // ascending x; all > 0
};

class SvgPlot {
 public:
  void Add(SvgPanel panel) { panels_.push_back(std::move(panel)); }

  std::string Text() const {
    const int num_columns = std::min<int>(2, static_cast<int>(panels_.size()));
    const int num_rows = (static_cast<int>(panels_.size()) + 1) / 2;
    std::string text = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" "
        "font-family=\"sans-serif\" font-size=\"11\">\n"
        "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        num_columns * kWidth, num_rows * kHeight);
    for (size_t i = 0; i < panels_.size(); ++i) {
      text += fmt::format("<g transform=\"translate({},{})\">\n",
                          static_cast<int>(i % 2) * kWidth,
                          static_cast<int>(i / 2) * kHeight);
      text += PanelText(panels_[i]) + "</g>\n";
    }
    return text + "</svg>\n";
  }

 private:
  static constexpr int kWidth = 420;
  static constexpr int kHeight = 300;
  static constexpr int kLeft = 60;
  static constexpr int kRight = 20;
  static constexpr int kTop = 34;
  static constexpr int kBottom = 44;

  // Whole decades around the values.
  static std::pair<int, int> Decades(double low, double high) {
    const int first = static_cast<int>(std::floor(std::log10(low)));
    const int last = static_cast<int>(std::ceil(std::log10(high)));
    return {first, std::max(last, first + 1)};
  }
  static std::string Power(int decade) {
    return fmt::format("{:g}", std::pow(10.0, decade));
  }

  static std::string PanelText(const SvgPanel& panel) {
    double low = panel.points.front().second;
    double high = low;
    for (const auto& [x, y] : panel.points) {
      low = std::min(low, y);
      high = std::max(high, y);
    }
    const auto [x_first, x_last] =
        Decades(panel.points.front().first, panel.points.back().first);
    const auto [y_first, y_last] = Decades(low, high);
    const auto at_x = [&, first = x_first, last = x_last](double x) {
      return kLeft + (std::log10(x) - first) / (last - first) *
                         (kWidth - kLeft - kRight);
    };
    const auto at_y = [&, first = y_first, last = y_last](double y) {
      return kHeight - kBottom -
             (std::log10(y) - first) / (last - first) *
                 (kHeight - kTop - kBottom);
    };
    std::string text =
        fmt::format("<text x=\"{}\" y=\"20\" font-size=\"13\">{}</text>\n",
                    kLeft, panel.title);
    for (int decade = x_first; decade <= x_last; ++decade) {
      const double x = at_x(std::pow(10.0, decade));
      text += Line(x, kTop, x, kHeight - kBottom, "#ddd", "");
      text += Label(x, kHeight - kBottom + 14, "middle", Power(decade));
    }
    for (int decade = y_first; decade <= y_last; ++decade) {
      const double y = at_y(std::pow(10.0, decade));
      text += Line(kLeft, y, kWidth - kRight, y, "#ddd", "");
      text += Label(kLeft - 6, y + 4, "end", Power(decade));
    }
    text += Label(kLeft + (kWidth - kLeft - kRight) / 2.0, kHeight - 10,
                  "middle", panel.x_label);
    text += fmt::format(
        "<text transform=\"translate(14,{}) rotate(-90)\" "
        "text-anchor=\"middle\">{}</text>\n",
        (kTop + kHeight - kBottom) / 2, panel.y_label);
    const auto [x_end, y_end] = panel.points.back();
    const double x_begin = panel.points.front().first;
    const double y_begin = y_end * std::pow(x_begin / x_end, panel.slope);
    if (y_begin >= std::pow(10.0, y_first)) {
      text += Line(at_x(x_begin), at_y(y_begin), at_x(x_end), at_y(y_end),
                   "#999", " stroke-dasharray=\"5 4\"");
    }
    std::string path;
    for (const auto& [x, y] : panel.points) {
      path += fmt::format("{:.1f},{:.1f} ", at_x(x), at_y(y));
      text += fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"#0645ad\"/>\n",
          at_x(x), at_y(y));
    }
    return text + fmt::format(
                      "<polyline points=\"{}\" fill=\"none\" "
                      "stroke=\"#0645ad\" stroke-width=\"1.5\"/>\n",
                      path);
  }

  static std::string Line(double x1, double y1, double x2, double y2,
                          const char* color, const char* more) {
    return fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" "
        "stroke=\"{}\"{}/>\n",
        x1, y1, x2, y2, color, more);
  }
  static std::string Label(double x, double y, const char* anchor,
                           const std::string& text) {
    return fmt::format(
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y,
        anchor, text);
  }

  std::vector<SvgPanel> panels_;
};

}  // namespace witan

#endif  // WITAN_BENCH_SVG_PLOT_H_
