#include "cli/bench/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

#include "cli/bench/axis.h"
#include "cli/bench/svg.h"

namespace witan::bench {
namespace {

constexpr double kWidth = 1120;
constexpr double kHeight = 760;
constexpr double kHeaderHeight = 96;
constexpr double kMargin = 24;
// Points of a cumulative distribution that are drawn at most.
constexpr size_t kCurvePoints = 500;
// Labels of a logarithmic axis beyond which only powers of ten have one.
constexpr size_t kLogLabels = 9;
constexpr size_t kNumColors = 6;
// A logarithmic axis spans no more than this.
constexpr double kLogRatio = 1e4;

constexpr std::string_view kColors[kNumColors] = {
    "#2563eb", "#ea580c", "#16a34a", "#9333ea", "#0891b2", "#db2777"};
constexpr std::string_view kInk = "#0f172a";
constexpr std::string_view kFaint = "#64748b";
constexpr std::string_view kGrid = "#e2e8f0";
constexpr std::string_view kAlarm = "#dc2626";

// Where one panel draws its data.
struct Frame {
  double left = 0;
  double top = 0;
  double right = 0;
  double bottom = 0;
};

Frame FrameOf(int column, int row) {
  constexpr double kPanelWidth = (kWidth - 3 * kMargin) / 2;
  constexpr double kPanelHeight = (kHeight - kHeaderHeight - 2 * kMargin) / 2;
  const double left = kMargin + column * (kPanelWidth + kMargin);
  const double top = kHeaderHeight + row * (kPanelHeight + kMargin);
  return {left + 52, top + 28, left + kPanelWidth - 8, top + kPanelHeight - 36};
}

void DrawFrame(const Frame& frame, std::string_view title, const Axis& x,
               std::string_view x_title, const Axis& y, Svg* svg) {
  svg->Text({frame.left - 44, frame.top - 12}, title,
            {.size = 14, .fill = kInk, .bold = true});
  for (const double tick : y.ticks()) {
    const double at = y.Pixel(tick);
    svg->Line({frame.left, at}, {frame.right, at}, kGrid, 1);
    svg->Text({frame.left - 8, at + 4}, TickLabel(tick),
              {.size = 11, .anchor = Anchor::kEnd, .fill = kFaint});
  }
  const bool only_powers = x.ticks().size() > kLogLabels;
  for (const double tick : x.ticks()) {
    const double at = x.Pixel(tick);
    const bool is_power =
        TickLabel(tick).find_first_of("2345") == std::string::npos;
    svg->Line({at, frame.top}, {at, frame.bottom}, kGrid, 1);
    if (only_powers && !is_power) continue;
    svg->Text({at, frame.bottom + 16}, TickLabel(tick),
              {.size = 11, .anchor = Anchor::kMiddle, .fill = kFaint});
  }
  svg->Text({(frame.left + frame.right) / 2, frame.bottom + 32}, x_title,
            {.size = 11, .anchor = Anchor::kMiddle, .fill = kFaint});
}

// The timeline as steps, one per slice.
void DrawOverTime(const Frame& frame, std::string_view title,
                  const Report& report, std::string_view color,
                  double (*value)(const TimelineSlice&), Svg* svg) {
  double max = 0;
  for (const TimelineSlice& slice : report.timeline) {
    max = std::max(max, value(slice));
  }
  const Axis x = Axis::UpTo(report.duration_s, frame.left, frame.right);
  const Axis y = Axis::Linear(max, frame.bottom, frame.top);
  DrawFrame(frame, title, x, "seconds", y, svg);
  std::vector<Point> steps;
  for (const TimelineSlice& slice : report.timeline) {
    const double at = y.Pixel(value(slice));
    const double end =
        std::min(slice.begin_s + report.slice_s, report.duration_s);
    steps.push_back({x.Pixel(slice.begin_s), at});
    steps.push_back({x.Pixel(end), at});
  }
  if (steps.empty()) return;
  std::vector<Point> area = steps;
  area.push_back({steps.back().x, frame.bottom});
  area.push_back({steps.front().x, frame.bottom});
  svg->Polygon(area, color, 0.15);
  svg->Polyline(steps, color, 1.5);
  for (const TimelineSlice& slice : report.timeline) {
    if (slice.num_failed == 0) continue;
    const double at = x.Pixel(slice.begin_s + report.slice_s / 2);
    svg->Line({at, frame.bottom}, {at, frame.bottom - 14}, kAlarm, 2);
  }
}

struct Curve {
  std::string name;
  std::vector<double> samples;  // ascending, not empty
};

void DrawCurve(const Curve& curve, const Axis& x, const Axis& y,
               std::string_view color, Svg* svg) {
  const size_t count = curve.samples.size();
  const size_t num_points = std::min(count, kCurvePoints);
  std::vector<Point> points = {{x.Pixel(curve.samples.front()), y.Pixel(0)}};
  for (size_t i = 1; i <= num_points; ++i) {
    const size_t rank = (i * count + num_points - 1) / num_points;
    const double percent =
        100 * static_cast<double>(rank) / static_cast<double>(count);
    const double at = x.Pixel(curve.samples[rank - 1]);
    points.push_back({at, points.back().y});  // a step function
    points.push_back({at, y.Pixel(percent)});
  }
  svg->Polyline(points, color, 2);
}

// In the lower right corner, where a cumulative distribution seldom is.
void DrawLegend(const Frame& frame, const std::vector<Curve>& curves,
                Svg* svg) {
  size_t longest = 0;
  for (const Curve& curve : curves) {
    longest = std::max(longest, curve.name.size());
  }
  const double width = 44 + 6.6 * static_cast<double>(longest);
  const double height = 8 + 16 * static_cast<double>(curves.size());
  const Point corner = {frame.right - width - 8, frame.bottom - height - 6};
  svg->Rect(corner, width, height, "#ffffff");
  for (size_t i = 0; i < curves.size(); ++i) {
    const double at = corner.y + 16 + 16 * static_cast<double>(i);
    svg->Line({frame.right - 30, at - 4}, {frame.right - 14, at - 4},
              kColors[i], 3);
    svg->Text({frame.right - 36, at}, curves[i].name,
              {.size = 11, .anchor = Anchor::kEnd});
  }
}

void DrawCumulative(const Frame& frame, std::string_view title,
                    const std::vector<Curve>& curves, bool has_legend,
                    std::optional<double> objective_ms, Svg* svg) {
  // The fastest hundredth may lie decades before all others (tokens that come
  // together); it is drawn at the edge.
  double min = objective_ms.value_or(1e300);
  double max = objective_ms.value_or(0);
  for (const Curve& curve : curves) {
    min = std::min(min, Percentile(curve.samples, 1));
    max = std::max(max, curve.samples.back());
  }
  if (max <= 0) min = max = 1;
  const Axis x = Axis::Logarithmic(std::max(min, max / kLogRatio), max,
                                   frame.left, frame.right);
  const Axis y = Axis::Linear(100, frame.bottom, frame.top);
  DrawFrame(frame, title, x, "milliseconds", y, svg);
  if (objective_ms) {
    const double at = x.Pixel(*objective_ms);
    svg->Line({at, frame.top}, {at, frame.bottom}, kAlarm, 1.5, true);
  }
  if (has_legend && !curves.empty()) DrawLegend(frame, curves, svg);
  for (size_t i = 0; i < curves.size(); ++i) {
    DrawCurve(curves[i], x, y, kColors[i], svg);
  }
  if (curves.empty()) {
    svg->Text({(frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2},
              "no sample", {.anchor = Anchor::kMiddle, .fill = kFaint});
  }
}

using Extract = std::function<void(const Latencies&, std::vector<double>*)>;

// One curve per class that has samples, as many as there are colours.
std::vector<Curve> CurvesOf(const Plan& plan,
                            const std::vector<Record>& records,
                            const Extract& extract) {
  std::vector<Curve> curves(plan.classes().size());
  for (size_t i = 0; i < curves.size(); ++i) {
    curves[i].name = plan.classes()[i].name;
  }
  for (const Record& record : records) {
    if (record.is_warmup || !record.ok()) continue;
    extract(LatenciesOf(record),
            &curves[static_cast<size_t>(record.class_index)].samples);
  }
  std::erase_if(curves, [](const Curve& c) { return c.samples.empty(); });
  if (curves.size() > kNumColors) curves.resize(kNumColors);
  for (Curve& curve : curves) {
    std::sort(curve.samples.begin(), curve.samples.end());
  }
  return curves;
}

void DrawHeader(const RunFacts& facts, const Plan& plan, const Report& report,
                Svg* svg) {
  const ClassReport& total = report.total;
  svg->Text({kMargin, 36},
            fmt::format("{}, tp={} ep={}", facts.model, facts.tp, facts.ep),
            {.size = 20, .fill = kInk, .bold = true});
  const double seconds = std::max(report.duration_s, 1e-9);
  std::string counts = fmt::format(
      "{} requests completed, {} failed in {:.1f} s: {:.1f} output tokens/s, "
      "{:.2f} requests/s",
      total.num_completed, total.num_failed, report.duration_s,
      static_cast<double>(total.output_tokens) / seconds,
      static_cast<double>(total.num_completed) / seconds);
  if (facts.objectives.any()) {
    counts +=
        fmt::format("; {} kept {}", total.num_good, Describe(facts.objectives));
  }
  svg->Text({kMargin, 58}, counts, {.size = 13});
  std::string load = Describe(plan.classes().front());
  if (plan.classes().size() > 1) {
    load = fmt::format("{}: {}, and {} more", plan.classes().front().name, load,
                       plan.classes().size() - 1);
  }
  svg->Text({kMargin, 78}, load, {.size = 12, .fill = kFaint});
  svg->Text({kWidth - kMargin, 36}, facts.started_at,
            {.size = 12, .anchor = Anchor::kEnd, .fill = kFaint});
}

}  // namespace

std::string PlotSvg(const RunFacts& facts, const Plan& plan,
                    const Report& report, const std::vector<Record>& records) {
  Svg svg(kWidth, kHeight);
  svg.Rect({0, 0}, kWidth, kHeight, "#ffffff");
  DrawHeader(facts, plan, report, &svg);
  const bool has_legend = plan.classes().size() > 1;
  DrawOverTime(
      FrameOf(0, 0), "Output tokens per second", report, kColors[0],
      [](const TimelineSlice& slice) { return slice.output_tokens_per_second; },
      &svg);
  DrawOverTime(
      FrameOf(1, 0), "Requests in flight", report, kColors[2],
      [](const TimelineSlice& slice) { return slice.in_flight; }, &svg);
  DrawCumulative(FrameOf(0, 1), "Time to first token, % of requests within",
                 CurvesOf(plan, records,
                          [](const Latencies& l, std::vector<double>* out) {
                            out->push_back(l.ttft_ms);
                          }),
                 has_legend, facts.objectives.ttft_ms, &svg);
  DrawCumulative(FrameOf(1, 1), "Inter-token latency, % of tokens within",
                 CurvesOf(plan, records,
                          [](const Latencies& l, std::vector<double>* out) {
                            out->insert(out->end(), l.inter_token_ms.begin(),
                                        l.inter_token_ms.end());
                          }),
                 has_legend, facts.objectives.inter_token_ms, &svg);
  return svg.Finish();
}

}  // namespace witan::bench
