#include "cli/bench/svg.h"

#include <fmt/format.h>

namespace witan::bench {
namespace {

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        // Control characters have no place in XML 1.0.
        if (static_cast<unsigned char>(c) >= 0x20) out += c;
    }
  }
  return out;
}

std::string Coordinates(const std::vector<Point>& points) {
  std::string text;
  for (const Point& point : points) {
    text += fmt::format("{}{:.1f},{:.1f}", text.empty() ? "" : " ", point.x,
                        point.y);
  }
  return text;
}

std::string_view NameOf(Anchor anchor) {
  switch (anchor) {
    case Anchor::kMiddle:
      return "middle";
    case Anchor::kEnd:
      return "end";
    default:
      return "start";
  }
}

}  // namespace

Svg::Svg(double width, double height)
    : body_(fmt::format(
          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:g}\" "
          "height=\"{1:g}\" viewBox=\"0 0 {0:g} {1:g}\" "
          "font-family=\"system-ui, 'DejaVu Sans', Arial, sans-serif\">\n",
          width, height)) {}

void Svg::Rect(Point corner, double width, double height,
               std::string_view fill) {
  body_ += fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" "
      "fill=\"{}\"/>\n",
      corner.x, corner.y, width, height, fill);
}

void Svg::Line(Point from, Point to, std::string_view stroke, double width,
               bool dashed) {
  body_ += fmt::format(
      "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" "
      "stroke=\"{}\" stroke-width=\"{:g}\"{}/>\n",
      from.x, from.y, to.x, to.y, stroke, width,
      dashed ? " stroke-dasharray=\"5 4\"" : "");
}

void Svg::Polyline(const std::vector<Point>& points, std::string_view stroke,
                   double width) {
  body_ += fmt::format(
      "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" "
      "stroke-width=\"{:g}\" stroke-linejoin=\"round\"/>\n",
      Coordinates(points), stroke, width);
}

void Svg::Polygon(const std::vector<Point>& points, std::string_view fill,
                  double opacity) {
  body_ += fmt::format(
      "<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"{:g}\"/>\n",
      Coordinates(points), fill, opacity);
}

void Svg::Text(Point at, std::string_view text, const TextStyle& style) {
  body_ += fmt::format(
      "<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"{:g}\" "
      "text-anchor=\"{}\" fill=\"{}\"{}>{}</text>\n",
      at.x, at.y, style.size, NameOf(style.anchor), style.fill,
      style.bold ? " font-weight=\"600\"" : "", Escaped(text));
}

std::string Svg::Finish() const { return body_ + "</svg>\n"; }

}  // namespace witan::bench
