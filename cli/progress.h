#ifndef WITAN_CLI_PROGRESS_H_
#define WITAN_CLI_PROGRESS_H_

// Progress of what takes long: on a terminal one line that is drawn over
// itself, elsewhere one line per 5 %. Pure: returns what to write.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace witan {

class ProgressBar {
 public:
  explicit ProgressBar(bool is_terminal) : is_terminal_(is_terminal) {}

  // What to write for a new state; empty when there is nothing new to see.
  // `what` stands before the bar, `amount` behind it. Without a percentage
  // there is no bar, and elsewhere than on a terminal nothing at all.
  std::string Show(const std::string& what, std::optional<int64_t> percent,
                   const std::string& amount);
  // What to write so that a whole line can follow, and the bar again after it.
  std::string Erase() const;
  std::string Redraw() const { return drawn_; }
  // What to write at the end; the bar is gone from then on.
  std::string Finish();

 private:
  const bool is_terminal_;
  std::string drawn_;          // on the terminal now
  int64_t last_percent_ = -1;  // elsewhere: the last multiple of 5 written
};

struct LoadState {
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;  // 0: not known yet
  int num_workers = 0;      // registered
  int num_ranks = 0;        // needed
  bool operator==(const LoadState&) const = default;
};

// The loading bar of `witan serve`.
class ProgressLine {
 public:
  ProgressLine(std::string name, bool is_terminal)
      : name_(std::move(name)), bar_(is_terminal) {}

  // As those of ProgressBar.
  std::string Show(const LoadState& state);
  std::string Erase() const { return bar_.Erase(); }
  std::string Redraw() const { return bar_.Redraw(); }
  std::string Finish() { return bar_.Finish(); }

 private:
  const std::string name_;
  ProgressBar bar_;
};

}  // namespace witan

#endif  // WITAN_CLI_PROGRESS_H_
