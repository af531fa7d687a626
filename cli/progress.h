#ifndef WITAN_CLI_PROGRESS_H_
#define WITAN_CLI_PROGRESS_H_

// The loading bar of `witan serve`: on a terminal one line that is drawn over
// itself, elsewhere one line per 5 %. Pure: returns what to write.

#include <cstdint>
#include <string>
#include <string_view>

namespace witan {

struct LoadState {
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;  // 0: not known yet
  int num_workers = 0;      // registered
  int num_ranks = 0;        // needed
  bool operator==(const LoadState&) const = default;
};

class ProgressLine {
 public:
  ProgressLine(std::string name, bool is_terminal)
      : name_(std::move(name)), is_terminal_(is_terminal) {}

  // What to write for a new state; empty when there is nothing new to see.
  std::string Show(const LoadState& state);
  // What to write so that a whole line can follow, and the bar again after it.
  std::string Erase() const;
  std::string Redraw() const { return drawn_; }
  // What to write at the end of loading; the bar is gone from then on.
  std::string Finish();

 private:
  std::string Line(const LoadState& state) const;

  const std::string name_;
  const bool is_terminal_;
  std::string drawn_;          // on the terminal now
  int64_t last_percent_ = -1;  // elsewhere: the last multiple of 5 written
};

}  // namespace witan

#endif  // WITAN_CLI_PROGRESS_H_
