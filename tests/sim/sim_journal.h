#ifndef WITAN_TESTS_SIM_SIM_JOURNAL_H_
#define WITAN_TESTS_SIM_SIM_JOURNAL_H_

// What happened in a simulation, for people, and the first thing that must not
// happen.

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/sim/sim_clock.h"

namespace witan {

class SimJournal {
 public:
  // Without `tracing` only violations are kept.
  SimJournal(const SimClock& clock, bool tracing)
      : clock_(clock), tracing_(tracing) {}

  template <typename... Args>
  void Log(fmt::format_string<Args...> format, Args&&... args) {
    if (tracing_) Append(fmt::format(format, std::forward<Args>(args)...));
  }

  // A checker, by name, saw something wrong. The first one counts.
  template <typename... Args>
  void Fail(const char* checker, fmt::format_string<Args...> format,
            Args&&... args) {
    if (failed()) return;
    violation_ = fmt::format("{}: {}", checker,
                             fmt::format(format, std::forward<Args>(args)...));
    if (tracing_) Append("VIOLATION " + violation_);
  }

  bool failed() const { return !violation_.empty(); }
  const std::string& violation() const { return violation_; }
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  void Append(const std::string& what) {
    lines_.push_back(fmt::format(
        "{:14.6f} {}", static_cast<double>(clock_.now()) / kMicrosPerSecond,
        what));
  }

  const SimClock& clock_;
  const bool tracing_;
  std::string violation_;
  std::vector<std::string> lines_;
};

}  // namespace witan

#endif  // WITAN_TESTS_SIM_SIM_JOURNAL_H_
