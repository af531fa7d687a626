#include "coordinator/text/stop.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"

namespace witan {

// A trie of the stop strings with failure links. A state is the longest end of
// the text so far that begins a stop string.
struct StopMatcher::Automaton {
  struct State {
    std::vector<std::pair<char, int>> children;
    int failure = 0;      // the next shorter such end
    int depth = 0;        // bytes of the end
    int stop_index = -1;  // of the longest stop string that ends here
  };
  std::vector<State> states{State()};
  std::vector<size_t> stop_lengths;

  int ChildOf(int state, char byte) const {
    for (const auto& [label, child] : states[state].children) {
      if (label == byte) return child;
    }
    return -1;
  }

  int Next(int state, char byte) const {
    while (true) {
      const int child = ChildOf(state, byte);
      if (child >= 0) return child;
      if (state == 0) return 0;
      state = states[state].failure;
    }
  }

  void Add(std::string_view stop, int index) {
    int state = 0;
    for (char byte : stop) {
      int child = ChildOf(state, byte);
      if (child < 0) {
        child = static_cast<int>(states.size());
        states[state].children.emplace_back(byte, child);
        states.emplace_back();
        states.back().depth = states[state].depth + 1;
      }
      state = child;
    }
    if (states[state].stop_index < 0) states[state].stop_index = index;
    stop_lengths.push_back(stop.size());
  }

  void LinkFailures() {
    std::vector<int> order = {0};  // breadth first
    for (size_t i = 0; i < order.size(); ++i) {
      const int state = order[i];
      for (const auto& [byte, child] : states[state].children) {
        if (state != 0) {
          states[child].failure = Next(states[state].failure, byte);
        }
        // A shorter stop string may end inside a longer one.
        if (states[child].stop_index < 0) {
          states[child].stop_index = states[states[child].failure].stop_index;
        }
        order.push_back(child);
      }
    }
  }
};

StopMatcher::StopMatcher(std::shared_ptr<const Automaton> automaton,
                         bool include_stop_string)
    : automaton_(std::move(automaton)),
      include_stop_string_(include_stop_string) {}

absl::StatusOr<StopMatcher> StopMatcher::Create(
    const std::vector<std::string>& stop_strings, bool include_stop_string) {
  if (stop_strings.size() > kMaxStopStrings) {
    return InvalidArgument("{} stop strings exceed the limit of {}",
                           stop_strings.size(), kMaxStopStrings);
  }
  auto automaton = std::make_shared<Automaton>();
  for (size_t i = 0; i < stop_strings.size(); ++i) {
    const std::string& stop = stop_strings[i];
    if (stop.empty()) return InvalidArgument("stop string {} is empty", i);
    if (stop.size() > kMaxStopStringBytes) {
      return InvalidArgument("stop string {} has {} bytes; the limit is {}", i,
                             stop.size(), kMaxStopStringBytes);
    }
    if (!IsValidUtf8(stop)) {
      return InvalidArgument("stop string {} is not valid UTF-8", i);
    }
    automaton->Add(stop, static_cast<int>(i));
  }
  automaton->LinkFailures();
  return StopMatcher(std::move(automaton), include_stop_string);
}

StopMatcher::Result StopMatcher::Push(std::string_view text) {
  Result result;
  if (matched_) return result;
  for (size_t i = 0; i < text.size(); ++i) {
    state_ = automaton_->Next(state_, text[i]);
    const int stop_index = automaton_->states[state_].stop_index;
    if (stop_index < 0) continue;
    matched_ = true;
    result.matched = true;
    result.stop_index = stop_index;
    held_ += text.substr(0, i + 1);
    if (!include_stop_string_) {
      held_.resize(held_.size() - automaton_->stop_lengths[stop_index]);
    }
    result.text = std::exchange(held_, {});
    return result;
  }
  held_ += text;
  const size_t num_certain =
      held_.size() - static_cast<size_t>(automaton_->states[state_].depth);
  result.text = held_.substr(0, num_certain);
  held_.erase(0, num_certain);
  return result;
}

std::string StopMatcher::Flush() {
  state_ = 0;
  return std::exchange(held_, {});
}

}  // namespace witan
