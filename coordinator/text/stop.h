#ifndef WITAN_COORDINATOR_TEXT_STOP_H_
#define WITAN_COORDINATOR_TEXT_STOP_H_

#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace witan {

// Finds stop strings in the text of one stream and holds back whatever may
// still become one. The stop string that ends first wins; of those that end
// together, the longest. The result does not depend on how the text is cut
// into pieces. An Aho-Corasick automaton: O(1) amortised per byte, whatever
// the text and the strings.
//
// A copy starts where the original stands and shares the automaton, so one
// matcher can be made per request and copied per choice. One thread at a time.
class StopMatcher {
 public:
  // InvalidArgument when there are more than kMaxStopStrings strings, or one is
  // empty, longer than kMaxStopStringBytes or not UTF-8. No string at all is
  // fine: then all text passes at once.
  static absl::StatusOr<StopMatcher> Create(
      const std::vector<std::string>& stop_strings, bool include_stop_string);

  struct Result {
    std::string text;      // certain now, in order
    bool matched = false;  // a stop string ended in this piece
    int stop_index = -1;   // which one, as given to Create
  };

  // `text` must end at a character boundary. After a match what follows is
  // dropped and nothing more is returned.
  Result Push(std::string_view text);

  // The held-back text, when no more will come; empty after a match.
  std::string Flush();

 private:
  struct Automaton;
  StopMatcher(std::shared_ptr<const Automaton> automaton,
              bool include_stop_string);

  std::shared_ptr<const Automaton> automaton_;
  bool include_stop_string_;
  bool matched_ = false;
  int state_ = 0;
  std::string held_;  // the prefix of a stop string that `state_` stands for
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_STOP_H_
