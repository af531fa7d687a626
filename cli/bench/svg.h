#ifndef WITAN_CLI_BENCH_SVG_H_
#define WITAN_CLI_BENCH_SVG_H_

#include <string>
#include <string_view>
#include <vector>

namespace witan::bench {

struct Point {
  double x = 0;
  double y = 0;
};

enum class Anchor : uint8_t { kStart, kMiddle, kEnd };

struct TextStyle {
  double size = 12;
  Anchor anchor = Anchor::kStart;
  std::string_view fill = "#334155";
  bool bold = false;
};

// A drawing in pixels from the upper left corner, as one self-contained SVG
// file: no scripts, no references to anything outside. A value.
class Svg {
 public:
  Svg(double width, double height);

  void Rect(Point corner, double width, double height, std::string_view fill);
  void Line(Point from, Point to, std::string_view stroke, double width,
            bool dashed = false);
  void Polyline(const std::vector<Point>& points, std::string_view stroke,
                double width);
  // Filled, without an outline.
  void Polygon(const std::vector<Point>& points, std::string_view fill,
               double opacity);
  // Any text: what XML does not allow is escaped or left out.
  void Text(Point at, std::string_view text, const TextStyle& style);

  // The file.
  std::string Finish() const;

 private:
  std::string body_;
};

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_SVG_H_
