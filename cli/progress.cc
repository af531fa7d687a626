#include "cli/progress.h"

#include <fmt/format.h>

#include <algorithm>

namespace witan {
namespace {

constexpr int kBarColumns = 30;
constexpr std::string_view kEraseLine = "\r\x1b[K";

int64_t Percent(const LoadState& state) {
  if (state.bytes_total <= 0) return 0;
  return std::clamp<int64_t>(state.bytes_done * 100 / state.bytes_total, 0,
                             100);
}

}  // namespace

std::string ProgressLine::Line(const LoadState& state) const {
  if (state.bytes_total <= 0) {
    return fmt::format("loading {}: {} of {} workers", name_, state.num_workers,
                       state.num_ranks);
  }
  const std::string amount = fmt::format(
      "{:3} %  {:.1f} / {:.1f} MB, {} workers", Percent(state),
      static_cast<double>(state.bytes_done) / 1e6,
      static_cast<double>(state.bytes_total) / 1e6, state.num_workers);
  if (!is_terminal_) return fmt::format("loading {}: {}", name_, amount);
  const size_t filled = static_cast<size_t>(Percent(state) * kBarColumns / 100);
  return fmt::format("loading {} [{:-<{}}] {}", name_, std::string(filled, '#'),
                     kBarColumns, amount);
}

std::string ProgressLine::Show(const LoadState& state) {
  const std::string line = Line(state);
  if (is_terminal_) {
    if (line == drawn_) return "";
    drawn_ = line;
    return std::string(kEraseLine) + line;
  }
  if (state.bytes_total <= 0) return "";
  const int64_t percent = Percent(state) / 5 * 5;
  if (percent <= last_percent_) return "";
  last_percent_ = percent;
  return line + "\n";
}

std::string ProgressLine::Erase() const {
  return drawn_.empty() ? "" : std::string(kEraseLine);
}

std::string ProgressLine::Finish() {
  const std::string text = Erase();
  drawn_.clear();
  return text;
}

}  // namespace witan
