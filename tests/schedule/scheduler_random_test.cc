// Long random runs of the Scheduler in front of a FakeRank that checks every
// plan: whatever is cancelled, preempted, cut into chunks or planned ahead, the
// tokens of a sequence are the pure function of its history.

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>

#include "base/limits.h"
#include "coordinator/schedule/scheduler.h"
#include "tests/testing/fake_worker_group.h"

namespace witan {
namespace {

constexpr int64_t kVocab = 50;

struct Load {
  uint64_t seed = 0;
  SchedulerOptions options;
  int num_sequences = 0;
  int max_prompt_tokens = 0;
  int max_output_tokens = 0;
  double arrivals_per_turn = 1;
  double cancel_probability = 0;  // of each sequence, at some random turn
  double deadline_probability = 0;
  double stop_probability = 0;           // a sink that stops, and stop tokens
  double shared_prefix_probability = 0;  // the prompt begins like others
  double same_prompt_probability = 0;    // as the sequence before
  double pause_probability = 0;          // per turn, of some sequence
  double force_probability = 0;          // of a sequence whose sink forces
  double score_probability = 0;          // of a prompt that is scored
  int num_tenants = 1;
  int num_priorities = 1;
};

// What a sequence may and must do, seen from outside.
struct Expectation {
  SequenceSpec spec;
  std::vector<TokenId> history;
  int64_t num_output = 0;
  int64_t num_scores = 0;
  int64_t sink_stops_at = -1;
  bool forces = false;
  bool cancelled = false;
  bool stopped_by_sink = false;
  bool ended = false;
};

struct Outcome {
  SchedulerStats stats;
  int64_t max_sequences_of_a_step = 0;
  int64_t num_stopped = 0;
  int64_t num_cancelled = 0;
  int64_t num_expired = 0;
  int64_t num_length = 0;
  int64_t num_preempted_and_finished = 0;
  int64_t num_shared_blocks = 0;
  int64_t num_forced = 0;
  int64_t num_forced_rows = 0;
  int64_t num_scores = 0;
};

class RandomRun {
 public:
  explicit RandomRun(const Load& load)
      : load_(load),
        random_(load.seed),
        scheduler_(load.options, 1, 1),
        rank_(1, load.options.max_step_tokens, load.options.max_sequences,
              load.options.num_blocks, kVocab) {}

  // Uses ASSERT_*: check HasFatalFailure.
  void Run() {
    double due = 0;
    int64_t turns_without_progress = 0;
    while (num_ended_ < load_.num_sequences) {
      now_ += 1 + Below(20);
      due += load_.arrivals_per_turn;
      for (; due >= 1 && num_added_ < load_.num_sequences; due -= 1) AddOne();
      MaybeCancel();
      MaybePause();
      const bool apply = !results_.empty() && Below(2) == 0;
      bool progressed = false;
      if (apply) {
        ApplyOne();
        progressed = true;
      } else {
        progressed = PlanOne();
        if (!progressed && results_.empty() && !paused_.empty()) ResumeAll();
        if (!progressed && !results_.empty()) {
          ApplyOne();
          progressed = true;
        }
      }
      if (::testing::Test::HasFatalFailure()) return;
      turns_without_progress = progressed ? 0 : turns_without_progress + 1;
      ASSERT_LT(turns_without_progress, 10000) << "stuck";
    }
    while (!results_.empty()) ApplyOne();
    outcome_.num_shared_blocks = rank_.num_shared_blocks();
    outcome_.num_forced_rows = rank_.num_forced_rows();
    outcome_.stats = scheduler_.stats();
    EXPECT_FALSE(scheduler_.Plan(now_).has_value());
    EXPECT_EQ(outcome_.stats.num_running, 0);
    EXPECT_EQ(outcome_.stats.num_waiting, 0);
    EXPECT_EQ(outcome_.stats.num_free_blocks, load_.options.num_blocks - 1);
    EXPECT_EQ(outcome_.stats.num_finished, load_.num_sequences);
    EXPECT_EQ(scheduler_.NextDeadline(), std::nullopt);
  }

  const Outcome& outcome() const { return outcome_; }

 private:
  uint64_t Below(uint64_t n) { return random_() % n; }
  bool Chance(double probability) {
    return std::uniform_real_distribution<double>(0, 1)(random_) < probability;
  }

  void AddOne() {
    Expectation e;
    e.spec.id = ++num_added_;
    e.spec.sampling.seed = e.spec.id;  // names the sequence in a SlotStart
    e.spec.choice = static_cast<int32_t>(Below(3));
    e.spec.sampling.num_top_logprobs = Chance(0.5) ? 0 : -1;
    if (Chance(0.25)) e.spec.sampling.presence_penalty = 1;
    e.spec.stop.max_tokens = 1 + Below(load_.max_output_tokens);
    e.spec.prompt.resize(1 + Below(load_.max_prompt_tokens));
    for (TokenId& token : e.spec.prompt) {
      token = static_cast<TokenId>(Below(kVocab));
    }
    e.spec.tenant = std::to_string(Below(load_.num_tenants));
    e.spec.priority = static_cast<int32_t>(Below(load_.num_priorities));
    if (Chance(load_.shared_prefix_probability)) {
      const TokenId prefix = static_cast<TokenId>(Below(2));
      const size_t num_shared = 1 + Below(e.spec.prompt.size());
      for (size_t i = 0; i < num_shared; ++i) {
        e.spec.prompt[i] = (prefix + static_cast<TokenId>(i)) % kVocab;
      }
    }
    if (num_added_ > 1 && Chance(load_.same_prompt_probability)) {
      const SequenceSpec& last = expectations_.at(num_added_ - 1).spec;
      e.spec.prompt = last.prompt;
      e.spec.tenant = last.tenant;
    }
    if (Chance(load_.stop_probability)) {
      e.spec.stop.stop_token_ids = {static_cast<TokenId>(Below(kVocab))};
      e.spec.stop.min_tokens = Below(e.spec.stop.max_tokens + 1);
    }
    if (Chance(load_.stop_probability)) {
      e.sink_stops_at = Below(e.spec.stop.max_tokens);
    }
    e.forces = Chance(load_.force_probability);
    if (Chance(load_.score_probability)) {
      e.spec.sampling.num_prompt_logprobs = 0;
    }
    if (Chance(load_.deadline_probability)) {
      e.spec.deadline = now_ + Below(4000);
    }
    if (Chance(load_.cancel_probability)) to_cancel_.push_back(e.spec.id);
    e.history = e.spec.prompt;
    const absl::Status status = scheduler_.Add(e.spec, now_);
    ASSERT_TRUE(status.ok()) << status;
    const SequenceId id = e.spec.id;
    expectations_.emplace(id, std::move(e));
    ForceNext(expectations_.at(id));
    TakeEvents();
  }

  std::optional<TokenId> ForcedNext(const Expectation& e) const {
    if (!e.forces) return std::nullopt;
    return FakeForcedToken(e.history, std::ssize(e.spec.prompt), kVocab);
  }
  void ForceNext(const Expectation& e) {
    const std::optional<TokenId> token = ForcedNext(e);
    if (token) scheduler_.Force(e.spec.id, *token, now_);
  }

  void MaybeCancel() {
    if (to_cancel_.empty() || Below(8) != 0) return;
    std::swap(to_cancel_[Below(to_cancel_.size())], to_cancel_.back());
    Expectation& e = expectations_.at(to_cancel_.back());
    to_cancel_.pop_back();
    ASSERT_EQ(scheduler_.Finish(e.spec.id, FinishReason::kCancelled, now_),
              !e.ended);
    e.cancelled = !e.ended;
    TakeEvents();
  }

  void MaybePause() {
    if (num_added_ == 0 || !Chance(load_.pause_probability)) return;
    const SequenceId id = 1 + Below(num_added_);
    const bool is_live = !expectations_.at(id).ended;
    if (paused_.erase(id) > 0) {
      ASSERT_EQ(scheduler_.Resume(id), is_live);
    } else if (scheduler_.Pause(id)) {
      ASSERT_TRUE(is_live);
      paused_.insert(id);
    } else {
      ASSERT_FALSE(is_live);
    }
  }
  void ResumeAll() {
    for (const SequenceId id : paused_) scheduler_.Resume(id);
    paused_.clear();
  }

  bool PlanOne() {
    std::optional<StepPlan> plan = scheduler_.Plan(now_);
    TakeEvents();
    if (!plan) return false;
    CheckRows(*plan);
    absl::StatusOr<StepResult> result = rank_.Run(*plan, applied_);
    EXPECT_TRUE(result.ok()) << result.status() << " seed " << load_.seed;
    if (!result.ok()) {
      ADD_FAILURE();
      num_ended_ = load_.num_sequences;
      return true;
    }
    results_.push_back(*std::move(result));
    return true;
  }

  // What only the coordinator's side knows about a plan.
  void CheckRows(const StepPlan& plan) {
    for (const SlotStart& start : plan.slot_starts) {
      sequence_of_slot_[start.slot] = start.sampling.seed;
      answers_.erase(start.slot);
      // The history is complete: no token may be on its way.
      const Expectation& e = expectations_.at(start.sampling.seed);
      ASSERT_FALSE(e.ended) << e.spec.id;
      ASSERT_FALSE(paused_.contains(e.spec.id)) << e.spec.id;
      ASSERT_EQ(start.choice, e.spec.choice);
    }
    outcome_.max_sequences_of_a_step = std::max<int64_t>(
        outcome_.max_sequences_of_a_step, plan.num_sequences());
    bool prefilling = false;
    for (int s = 0; s < plan.num_sequences(); ++s) {
      const Expectation& e =
          expectations_.at(sequence_of_slot_.at(plan.slots[s]));
      ASSERT_FALSE(e.ended) << "a row for " << e.spec.id << ", which ended";
      const int64_t num_rows = plan.row_begin[s + 1] - plan.row_begin[s];
      const int64_t end = plan.first_positions[s] + num_rows;
      ASSERT_LE(num_rows, load_.options.max_prefill_chunk_tokens);
      ASSERT_LT(end, static_cast<int64_t>(e.spec.prompt.size()) +
                         e.spec.stop.max_tokens)
          << "a row beyond max_tokens";
      // Nothing is sampled in the middle of a prompt, everything after it.
      ASSERT_EQ(plan.samples[s] != 0,
                end >= static_cast<int64_t>(e.history.size()));
      // Once rows of prompts begin there are no decode rows any more.
      // Several tokens may be forced, which then have decode rows.
      const bool decodes = answers_.contains(plan.slots[s]) ||
                           plan.first_positions[s] + 1 >=
                               static_cast<int64_t>(std::max(
                                   e.history.size(), e.spec.prompt.size() + 1));
      if (plan.samples[s] != 0) answers_.insert(plan.slots[s]);
      prefilling = prefilling || !decodes;
      ASSERT_FALSE(prefilling && decodes && num_rows == 1 &&
                   plan.token_ids[plan.row_begin[s]] == kTokenOfPreviousStep);
    }
  }

  void ApplyOne() {
    applied_ = results_.front().step;
    const absl::Status status =
        scheduler_.Apply(std::move(results_.front()), now_);
    results_.pop_front();
    ASSERT_TRUE(status.ok()) << status;
    TakeEvents();
  }

  void TakeEvents() {
    // A sink that stops its sequence or forces a token makes further events.
    for (std::vector<SchedulerEvent> events = scheduler_.TakeEvents();
         !events.empty(); events = scheduler_.TakeEvents()) {
      for (SchedulerEvent& event : events) {
        if (auto* token = std::get_if<TokenEvent>(&event)) {
          OnToken(*token);
        } else if (auto* scored = std::get_if<PromptScoresEvent>(&event)) {
          OnScores(*scored);
        } else {
          OnFinish(std::get<FinishEvent>(event));
        }
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }

  void OnScores(const PromptScoresEvent& event) {
    Expectation& e = expectations_.at(event.id);
    if (e.stopped_by_sink) return;
    ASSERT_FALSE(e.ended);
    ASSERT_EQ(event.first_index, e.num_scores + 1);
    for (const SampledToken& score : event.scores) {
      const auto next = e.spec.prompt.begin() + ++e.num_scores;
      ASSERT_NE(next, e.spec.prompt.end());
      ASSERT_EQ(score, FakeScore({e.spec.prompt.begin(), next}, *next));
    }
    outcome_.num_scores += std::ssize(event.scores);
  }

  void OnToken(const TokenEvent& event) {
    Expectation& e = expectations_.at(event.id);
    if (e.stopped_by_sink) return;  // nobody listens any more
    ASSERT_FALSE(e.ended);
    ASSERT_EQ(event.index, e.num_output);
    const std::optional<TokenId> forced = ForcedNext(e);
    outcome_.num_forced += forced ? 1 : 0;
    ASSERT_EQ(event.token, forced ? SampledToken{.token_id = *forced}
                                  : FakeNextToken(e.history, e.spec.sampling,
                                                  e.spec.choice, kVocab))
        << "sequence " << event.id << " token " << event.index << " seed "
        << load_.seed;
    if (!forced && e.spec.sampling.num_prompt_logprobs >= 0) {
      ASSERT_EQ(e.num_scores, std::ssize(e.spec.prompt) - 1);
    }
    e.history.push_back(event.token.token_id);
    ++e.num_output;
    if (event.index == e.sink_stops_at) {
      e.stopped_by_sink =
          scheduler_.Finish(event.id, FinishReason::kStop, now_);
    } else {
      ForceNext(e);
    }
  }

  void OnFinish(const FinishEvent& event) {
    Expectation& e = expectations_.at(event.id);
    ASSERT_FALSE(e.ended) << "ends twice";
    e.ended = true;
    ++num_ended_;
    ASSERT_EQ(event.usage.num_output_tokens, e.num_output);
    ASSERT_EQ(event.usage.num_prompt_tokens,
              static_cast<int64_t>(e.spec.prompt.size()));
    const StopRules& stop = e.spec.stop;
    const bool at_stop_token =
        e.num_output > stop.min_tokens &&
        std::count(stop.stop_token_ids.begin(), stop.stop_token_ids.end(),
                   e.history.back()) > 0;
    if (!event.reason.ok()) {
      ASSERT_EQ(event.reason.status().code(),
                absl::StatusCode::kDeadlineExceeded);
      ASSERT_TRUE(e.spec.deadline.has_value());
      ASSERT_LE(*e.spec.deadline, now_);
      ++outcome_.num_expired;
    } else if (*event.reason == FinishReason::kCancelled) {
      ++outcome_.num_cancelled;
    } else if (*event.reason == FinishReason::kStop) {
      ASSERT_TRUE(e.stopped_by_sink || at_stop_token);
      ++outcome_.num_stopped;
    } else {
      ASSERT_EQ(e.num_output, stop.max_tokens);
      ASSERT_FALSE(at_stop_token);
      ++outcome_.num_length;
    }
    if (event.usage.num_preemptions > 0 && e.num_output == stop.max_tokens) {
      ++outcome_.num_preempted_and_finished;
    }
  }

  const Load load_;
  std::mt19937_64 random_;
  Scheduler scheduler_;
  FakeRank rank_;
  Micros now_ = 0;
  StepNumber applied_ = 0;
  int num_added_ = 0;
  int num_ended_ = 0;
  std::deque<StepResult> results_;
  std::map<SequenceId, Expectation> expectations_;
  std::map<int32_t, SequenceId> sequence_of_slot_;
  std::set<int32_t> answers_;  // slots that sampled since they were started
  std::vector<SequenceId> to_cancel_;
  std::set<SequenceId> paused_;
  Outcome outcome_;
};

// Runs `load` for num_seeds seeds and adds up what happened.
Outcome RunSeeds(Load load, int num_seeds) {
  Outcome sum;
  for (int seed = 1; seed <= num_seeds; ++seed) {
    load.seed = seed;
    RandomRun run(load);
    run.Run();
    if (::testing::Test::HasFailure()) {
      ADD_FAILURE() << "first failing seed: " << seed;
      return sum;
    }
    const Outcome& outcome = run.outcome();
    sum.stats.AddCounters(outcome.stats);
    sum.max_sequences_of_a_step =
        std::max(sum.max_sequences_of_a_step, outcome.max_sequences_of_a_step);
    sum.num_stopped += outcome.num_stopped;
    sum.num_cancelled += outcome.num_cancelled;
    sum.num_expired += outcome.num_expired;
    sum.num_length += outcome.num_length;
    sum.num_preempted_and_finished += outcome.num_preempted_and_finished;
    sum.num_shared_blocks += outcome.num_shared_blocks;
    sum.num_forced += outcome.num_forced;
    sum.num_scores += outcome.num_scores;
    sum.num_forced_rows += outcome.num_forced_rows;
  }
  return sum;
}

Load TinyPool(bool look_ahead, int64_t chunk) {
  Load load;
  load.options.max_step_tokens = 48;
  load.options.max_prefill_chunk_tokens = chunk;
  load.options.max_sequences = 8;
  load.options.num_blocks = 9;  // 8 blocks, one sequence may need 6
  load.options.max_context_tokens = 192;
  load.options.look_ahead = look_ahead;
  load.num_sequences = 40;
  load.max_prompt_tokens = 96;
  load.max_output_tokens = 96;
  load.arrivals_per_turn = 0.5;
  load.cancel_probability = 0.15;
  load.deadline_probability = 0.15;
  load.stop_probability = 0.2;
  return load;
}

class TinyPoolTest
    : public ::testing::TestWithParam<std::tuple<bool, int64_t>> {};

TEST_P(TinyPoolTest, TokensAreThePureFunctionOfHistoryWhateverHappens) {
  const auto [look_ahead, chunk] = GetParam();
  const Outcome outcome = RunSeeds(TinyPool(look_ahead, chunk), 60);
  // The premises: all of it did happen.
  EXPECT_GT(outcome.stats.num_preemptions, 100);
  EXPECT_GT(outcome.num_preempted_and_finished, 10);
  EXPECT_GT(outcome.stats.num_discarded_rows, 10);
  EXPECT_GT(outcome.num_stopped, 10);
  EXPECT_GT(outcome.num_cancelled, 10);
  EXPECT_GT(outcome.num_expired, 10);
  EXPECT_GT(outcome.num_length, 10);
  EXPECT_EQ(outcome.stats.num_look_ahead_steps > 0, look_ahead);
}

TEST_P(TinyPoolTest, SharedPrefixesPausesTenantsAndPrioritiesChangeNoToken) {
  const auto [look_ahead, chunk] = GetParam();
  Load load = TinyPool(look_ahead, chunk);
  load.shared_prefix_probability = 0.8;
  load.same_prompt_probability = 0.5;
  load.arrivals_per_turn = 2;
  load.pause_probability = 0.05;
  load.num_tenants = 2;
  load.num_priorities = 3;
  load.options.max_prefill_tokens_beside_decode = 20;
  load.options.num_blocks = 17;
  const Outcome outcome = RunSeeds(load, 60);
  EXPECT_GT(outcome.stats.num_preemptions, 100);
  EXPECT_GT(outcome.num_preempted_and_finished, 10);
  EXPECT_GT(outcome.stats.num_pauses, 100);
  EXPECT_GT(outcome.stats.num_parked, 20);
  EXPECT_GT(outcome.stats.num_prefix_evictions, 100);
  EXPECT_GT(outcome.num_shared_blocks, 500);
  EXPECT_EQ(outcome.num_shared_blocks * kBlockTokens,
            outcome.stats.num_prefix_hit_tokens);
  EXPECT_GT(outcome.num_expired, 10);
}

TEST_P(TinyPoolTest, ForcedTokensComeAtTheirIndexWhateverHappens) {
  const auto [look_ahead, chunk] = GetParam();
  Load load = TinyPool(look_ahead, chunk);
  load.force_probability = 0.7;
  load.shared_prefix_probability = 0.5;
  load.same_prompt_probability = 0.3;
  load.pause_probability = 0.05;
  load.num_tenants = 2;
  load.num_priorities = 2;
  load.options.num_blocks = 13;
  const Outcome outcome = RunSeeds(load, 60);
  EXPECT_GT(outcome.num_forced, 1000);
  EXPECT_GT(outcome.num_forced_rows, 300);
  EXPECT_GT(outcome.stats.num_preemptions, 100);
  EXPECT_GT(outcome.num_preempted_and_finished, 10);
  EXPECT_GT(outcome.stats.num_pauses, 100);
  EXPECT_GT(outcome.num_stopped, 10);
  EXPECT_GT(outcome.num_length, 10);
}

TEST_P(TinyPoolTest, EveryTokenOfAPromptIsScoredOnceWhateverHappens) {
  const auto [look_ahead, chunk] = GetParam();
  Load load = TinyPool(look_ahead, chunk);
  load.score_probability = 0.5;
  load.force_probability = 0.2;
  load.shared_prefix_probability = 0.8;
  load.same_prompt_probability = 0.5;
  load.pause_probability = 0.05;
  load.num_tenants = 2;
  load.num_priorities = 3;
  load.options.num_blocks = 13;
  const Outcome outcome = RunSeeds(load, 60);
  EXPECT_GT(outcome.num_scores, 10000);
  EXPECT_GT(outcome.stats.num_preemptions, 100);
  EXPECT_GT(outcome.stats.num_pauses, 100);
  EXPECT_GT(outcome.num_shared_blocks, 200);
}

TEST(SchedulerRandomTest, WithoutThePrefixCacheNothingIsShared) {
  Load load = TinyPool(true, 33);
  load.shared_prefix_probability = 0.8;
  load.options.prefix_cache = false;
  const Outcome outcome = RunSeeds(load, 20);
  EXPECT_EQ(outcome.num_shared_blocks, 0);
  EXPECT_EQ(outcome.stats.num_parked, 0);
  EXPECT_GT(outcome.stats.num_preemptions, 30);
}

INSTANTIATE_TEST_SUITE_P(
    AllChunks, TinyPoolTest,
    ::testing::Combine(::testing::Bool(),
                       ::testing::Values<int64_t>(1, 7, 32, 33, 1000)),
    [](const auto& info) {
      return std::string(std::get<0>(info.param) ? "Ahead" : "OneByOne") +
             "Chunk" + std::to_string(std::get<1>(info.param));
    });

TEST(SchedulerRandomTest, ABatchOf64SequencesReachesEveryOneOfThem) {
  Load load;
  load.options.max_step_tokens = 256;
  load.options.max_prefill_chunk_tokens = 64;
  load.options.max_sequences = 64;
  load.options.num_blocks = 300;
  load.options.max_context_tokens = 512;
  load.num_sequences = 300;
  load.max_prompt_tokens = 200;
  load.max_output_tokens = 200;
  load.arrivals_per_turn = 4;
  load.stop_probability = 0.1;
  const Outcome outcome = RunSeeds(load, 3);
  EXPECT_EQ(outcome.max_sequences_of_a_step, 64);
  EXPECT_GT(outcome.stats.num_preemptions, 0);
  EXPECT_GT(outcome.stats.num_discarded_rows, 0);
  EXPECT_GT(outcome.stats.num_look_ahead_steps, 0);
}

TEST(SchedulerRandomTest, ABudgetSmallerThanTheBatchStillServesEverybody) {
  Load load = TinyPool(true, 4);
  load.options.max_step_tokens = 3;
  const Outcome outcome = RunSeeds(load, 20);
  EXPECT_GT(outcome.stats.num_preemptions, 0);
  EXPECT_EQ(outcome.max_sequences_of_a_step, 2);
}

TEST(SchedulerRandomTest, ACacheForOneSequenceServesThemOneAfterTheOther) {
  Load load = TinyPool(true, 16);
  load.options.num_blocks = 7;  // exactly the longest
  load.deadline_probability = 0;
  const Outcome outcome = RunSeeds(load, 30);
  EXPECT_GT(outcome.stats.num_preemptions, 30);
}

TEST(SchedulerRandomTest, TheSameSeedGivesTheSameRun) {
  Load load = TinyPool(true, 7);
  load.seed = 5;
  RandomRun first(load), second(load);
  first.Run();
  second.Run();
  EXPECT_EQ(first.outcome().stats.num_steps, second.outcome().stats.num_steps);
  EXPECT_EQ(first.outcome().stats.num_preemptions,
            second.outcome().stats.num_preemptions);
  EXPECT_GT(first.outcome().stats.num_preemptions, 0);
}

}  // namespace
}  // namespace witan
