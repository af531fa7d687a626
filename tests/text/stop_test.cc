#include "coordinator/text/stop.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

struct Outcome {
  std::string text;
  int stop_index = -1;
  bool operator==(const Outcome&) const = default;
};

// The definition, tried at every end: the first end at which a stop string
// ends, and there the longest.
Outcome NaiveStop(const std::string& text,
                  const std::vector<std::string>& stops, bool include) {
  for (size_t end = 1; end <= text.size(); ++end) {
    int best = -1;
    for (size_t i = 0; i < stops.size(); ++i) {
      const bool ends_here =
          end >= stops[i].size() &&
          text.compare(end - stops[i].size(), stops[i].size(), stops[i]) == 0;
      if (ends_here && (best < 0 || stops[i].size() > stops[best].size())) {
        best = static_cast<int>(i);
      }
    }
    if (best >= 0) {
      return {text.substr(0, include ? end : end - stops[best].size()), best};
    }
  }
  return {text, -1};
}

Outcome Stream(const std::string& text, const std::vector<std::string>& stops,
               bool include, const std::vector<size_t>& cuts) {
  StopMatcher matcher = *StopMatcher::Create(stops, include);
  Outcome outcome;
  size_t begin = 0;
  for (size_t i = 0; i <= cuts.size(); ++i) {
    const size_t end = i < cuts.size() ? cuts[i] : text.size();
    const StopMatcher::Result result =
        matcher.Push(std::string_view(text).substr(begin, end - begin));
    outcome.text += result.text;
    if (result.matched) {
      EXPECT_EQ(outcome.stop_index, -1);
      outcome.stop_index = result.stop_index;
    }
    begin = end;
  }
  outcome.text += matcher.Flush();
  return outcome;
}

TEST(StopTest, PassesEverythingWithoutStopStrings) {
  StopMatcher matcher = *StopMatcher::Create({}, false);
  EXPECT_EQ(matcher.Push("abc").text, "abc");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopTest, HoldsBackWhatMayBecomeAStopString) {
  StopMatcher matcher = *StopMatcher::Create({"</s>", "\n\nUser:"}, false);
  EXPECT_EQ(matcher.Push("Hello<").text, "Hello");
  EXPECT_EQ(matcher.Push("/").text, "");
  EXPECT_EQ(matcher.Push("b>\n").text, "</b>");
  EXPECT_EQ(matcher.Push("\n\n").text, "\n");
  EXPECT_EQ(matcher.Flush(), "\n\n");
}

TEST(StopTest, FindsAStopStringAcrossPieces) {
  StopMatcher matcher = *StopMatcher::Create({"STOP"}, false);
  EXPECT_EQ(matcher.Push("a S").text, "a ");
  EXPECT_EQ(matcher.Push("TO").text, "");
  const StopMatcher::Result result = matcher.Push("P tail");
  EXPECT_TRUE(result.matched);
  EXPECT_EQ(result.stop_index, 0);
  EXPECT_EQ(result.text, "");
  EXPECT_EQ(matcher.Push("more").text, "");
  EXPECT_FALSE(matcher.Push("STOP").matched);
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopTest, KeepsTheStopStringWhenAsked) {
  StopMatcher matcher = *StopMatcher::Create({"STOP"}, true);
  EXPECT_EQ(matcher.Push("a ST").text, "a ");
  EXPECT_EQ(matcher.Push("OP tail").text, "STOP");
}

TEST(StopTest, CopiesAreIndependent) {
  StopMatcher first = *StopMatcher::Create({"ab"}, false);
  first.Push("a");
  StopMatcher second = first;
  EXPECT_TRUE(first.Push("b").matched);
  EXPECT_EQ(second.Push("c").text, "ac");
}

TEST(StopTest, AgreesWithTheDefinitionHoweverTheTextIsCut) {
  std::mt19937 random(3);
  const auto word = [&](size_t max_size) {
    std::string text(1 + random() % max_size, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  int num_matched = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops(random() % 5);
    for (std::string& stop : stops) stop = word(6);
    const std::string text = word(30);
    const bool include = random() % 2 == 0;
    std::vector<size_t> cuts;
    for (size_t i = 1; i < text.size(); ++i) {
      if (random() % 3 == 0) cuts.push_back(i);
    }
    const Outcome expected = NaiveStop(text, stops, include);
    const Outcome actual = Stream(text, stops, include, cuts);
    EXPECT_EQ(actual.text, expected.text);
    ASSERT_EQ(actual.stop_index < 0, expected.stop_index < 0);
    if (expected.stop_index >= 0) {
      ++num_matched;
      // Equal strings are the same stop.
      EXPECT_EQ(stops[actual.stop_index], stops[expected.stop_index]);
    }
  }
  EXPECT_GT(num_matched, 1000);
}

// Quadratic matching would not end within the time limit of the test.
TEST(StopTest, IsLinearOnRepetitiveText) {
  std::vector<std::string> stops;
  for (int i = 0; i < kMaxStopStrings; ++i) {
    stops.push_back(std::string(kMaxStopStringBytes - 1 - i, 'a') + "b");
  }
  StopMatcher matcher = *StopMatcher::Create(stops, false);
  std::string text;
  for (int i = 0; i < 1 << 20; ++i) text += matcher.Push("a").text;
  text += matcher.Flush();
  EXPECT_EQ(text.size(), size_t{1} << 20);
}

TEST(StopTest, RefusesWhatExceedsALimit) {
  const auto error = [](const std::vector<std::string>& stops) {
    return std::string(MessageOf(StopMatcher::Create(stops, false).status()));
  };
  EXPECT_EQ(error(std::vector<std::string>(10000, "x")),
            "10000 stop strings exceed the limit of 16");
  EXPECT_EQ(error({"a", ""}), "stop string 1 is empty");
  EXPECT_EQ(error({std::string(257, 'a')}),
            "stop string 0 has 257 bytes; the limit is 256");
  EXPECT_EQ(error({"\xFF"}), "stop string 0 is not valid UTF-8");
}

}  // namespace
}  // namespace witan
