#include "cli/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace witan {
namespace {

constexpr int kBarColumns = 30;
constexpr std::string_view kEraseLine = "\r\x1b[K";

}  // namespace

std::string ProgressBar::Show(const std::string& what,
                              std::optional<int64_t> percent,
                              const std::string& amount) {
  if (is_terminal_) {
    std::string line = fmt::format("{}: {}", what, amount);
    if (percent.has_value()) {
      const size_t filled = static_cast<size_t>(*percent * kBarColumns / 100);
      line =
          fmt::format("{} [{:-<{}}] {:3} %  {}", what, std::string(filled, '#'),
                      kBarColumns, *percent, amount);
    }
    if (line == drawn_) return "";
    drawn_ = line;
    return std::string(kEraseLine) + line;
  }
  if (!percent.has_value() || *percent / 5 * 5 <= last_percent_) return "";
  last_percent_ = *percent / 5 * 5;
  return fmt::format("{}: {:3} %  {}\n", what, *percent, amount);
}

std::string ProgressBar::Erase() const {
  return drawn_.empty() ? "" : std::string(kEraseLine);
}

std::string ProgressBar::Finish() {
  const std::string text = Erase();
  drawn_.clear();
  return text;
}

std::string ProgressLine::Show(const LoadState& state) {
  const std::string what = fmt::format("loading {}", name_);
  if (state.bytes_total <= 0) {
    return bar_.Show(
        what, std::nullopt,
        fmt::format("{} of {} workers", state.num_workers, state.num_ranks));
  }
  return bar_.Show(
      what,
      std::clamp<int64_t>(state.bytes_done * 100 / state.bytes_total, 0, 100),
      fmt::format("{:.1f} / {:.1f} MB, {} workers",
                  static_cast<double>(state.bytes_done) / 1e6,
                  static_cast<double>(state.bytes_total) / 1e6,
                  state.num_workers));
}

}  // namespace witan
