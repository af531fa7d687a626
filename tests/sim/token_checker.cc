#include "tests/sim/token_checker.h"

#include <algorithm>

#include "base/status.h"
#include "tests/testing/fake_worker_group.h"

namespace witan {
namespace {

constexpr char kName[] = "tokens";
// From a deadline to the end that it makes, when the coordinator runs.
constexpr Micros kMaxLateness = 10 * kMicrosPerMilli;

}  // namespace

void TokenChecker::OnSubmit(const SequenceSpec& spec, int64_t stop_at,
                            bool forces) {
  Stream& stream = streams_[spec.id];
  stream.spec = spec;
  stream.stop_at = stop_at;
  stream.forces = forces;
  stream.history = spec.prompt;
  by_seed_[{spec.sampling.seed, spec.choice}] = spec.id;
  ++num_live_;
  ++counters_.num_submitted;
  journal_.Log("sequence {}: submitted, {} + {} tokens", spec.id,
               spec.prompt.size(), spec.stop.max_tokens);
}

void TokenChecker::OnRouted(SequenceId id, int replica, Micros now) {
  Stream& stream = streams_.at(id);
  stream.replica = replica;
  stream.submitted_at = now;
  const std::optional<Micros>& deadline = stream.spec.deadline;
  if (deadline) deadlines_[replica].insert({*deadline, id});
}

void TokenChecker::OnCancel(SequenceId id) {
  streams_.at(id).cancelled = true;
  journal_.Log("sequence {}: cancelled", id);
}

void TokenChecker::OnReaderPaused(SequenceId id, bool paused) {
  streams_.at(id).paused = paused;
  journal_.Log("sequence {}: {}", id, paused ? "paused" : "goes on");
}

std::optional<TokenId> TokenChecker::ForcedToken(SequenceId id) const {
  const Stream& stream = streams_.at(id);
  if (!stream.forces) return std::nullopt;
  return FakeForcedToken(stream.history, std::ssize(stream.spec.prompt),
                         vocab_size_);
}

void TokenChecker::OnPromptScores(SequenceId id, int64_t first_index,
                                  const std::vector<SampledToken>& scores) {
  ++num_calls_;
  Stream& stream = streams_.at(id);
  const std::vector<TokenId>& prompt = stream.spec.prompt;
  if (stream.ended || stream.stopped || first_index != stream.num_scores + 1) {
    journal_.Fail(kName, "sequence {} brings the score of {} after {}", id,
                  first_index, stream.num_scores);
    return;
  }
  for (const SampledToken& score : scores) {
    const auto next = prompt.begin() + ++stream.num_scores;
    if (next >= prompt.end() ||
        score != FakeScore({prompt.begin(), next}, *next)) {
      journal_.Fail(kName, "sequence {} brings a wrong score of token {}", id,
                    stream.num_scores);
      return;
    }
    ++counters_.num_scored;
  }
}

bool TokenChecker::OnToken(SequenceId id, int64_t index,
                           const SampledToken& token) {
  ++num_calls_;
  ++counters_.num_tokens;
  Stream& stream = streams_.at(id);
  if (stream.ended || stream.stopped) {
    journal_.Fail(kName, "sequence {} brings token {} after its end", id,
                  index);
    return false;
  }
  if (index != stream.num_tokens) {
    journal_.Fail(kName, "sequence {} brings token {} where {} is next", id,
                  index, stream.num_tokens);
    return false;
  }
  const std::optional<TokenId> forced = ForcedToken(id);
  const SampledToken expected =
      forced ? SampledToken{.token_id = *forced}
             : FakeNextToken(stream.history, stream.spec.sampling,
                             stream.spec.choice, vocab_size_);
  if (token != expected) {
    journal_.Fail(kName, "sequence {}, token {} is {} instead of {}", id, index,
                  token.token_id, expected.token_id);
    return false;
  }
  if (forced) {
    ++counters_.num_forced;
    ++stream.num_sampled;
  } else if (stream.spec.sampling.num_prompt_logprobs >= 0 &&
             stream.num_scores + 1 != std::ssize(stream.spec.prompt)) {
    journal_.Fail(kName, "sequence {} brings token {} after {} scores", id,
                  index, stream.num_scores);
  }
  if (++stream.num_tokens > stream.num_sampled) {
    journal_.Fail(kName,
                  "sequence {} brings token {} before all ranks answered the "
                  "step that samples it",
                  id, index);
    return false;
  }
  stream.history.push_back(token.token_id);
  journal_.Log("sequence {}: token {} is {}", id, index, token.token_id);
  stream.stopped = index == stream.stop_at;
  return !stream.stopped;
}

void TokenChecker::OnFinished(SequenceId id,
                              const absl::StatusOr<FinishReason>& reason,
                              const SequenceUsage& usage, Micros now) {
  ++num_calls_;
  Stream& stream = streams_.at(id);
  if (stream.ended) {
    journal_.Fail(kName, "sequence {} ends twice", id);
    return;
  }
  stream.ended = true;
  --num_live_;
  const std::optional<Micros>& deadline = stream.spec.deadline;
  if (deadline) deadlines_[stream.replica].erase({*deadline, id});
  journal_.Log("sequence {}: ends after {} tokens: {}", id, stream.num_tokens,
               reason.ok() ? fmt::format("reason {}", static_cast<int>(*reason))
                           : reason.status().ToString());
  if (usage.num_output_tokens != stream.num_tokens ||
      usage.num_prompt_tokens !=
          static_cast<int64_t>(stream.spec.prompt.size())) {
    journal_.Fail(kName,
                  "sequence {} used {} + {} tokens, says its usage {} + "
                  "{}",
                  id, stream.spec.prompt.size(), stream.num_tokens,
                  usage.num_prompt_tokens, usage.num_output_tokens);
  }
  if (reason.ok()) {
    CheckReason(stream, *reason);
    stream.complete = *reason == FinishReason::kLength;
    if (usage.num_preemptions > 0) ++counters_.num_preempted;
    if (usage.num_cached_tokens > 0) ++counters_.num_cached;
  } else if (absl::IsUnavailable(reason.status())) {
    ++(stream.num_tokens > 0 ? counters_.num_ended_by_loss
                             : counters_.num_refused);
  } else if (absl::IsDeadlineExceeded(reason.status())) {
    ++counters_.num_expired;
    if (!deadline || *deadline > now) {
      journal_.Fail(kName, "sequence {} ends early: {}", id,
                    MessageOf(reason.status()));
    } else if (now - std::max({*deadline, awake_since_, stream.submitted_at}) >
               kMaxLateness) {
      journal_.Fail(kName, "sequence {} ends {} us after its deadline", id,
                    now - *deadline);
    }
  } else {
    journal_.Fail(kName, "sequence {} ends with {}", id,
                  reason.status().ToString());
  }
}

void TokenChecker::CheckReason(const Stream& stream, FinishReason reason) {
  const StopRules& stop = stream.spec.stop;
  const bool at_stop_token =
      stream.num_tokens > stop.min_tokens &&
      std::count(stop.stop_token_ids.begin(), stop.stop_token_ids.end(),
                 stream.history.back()) > 0;
  const bool stops = stream.stopped || at_stop_token;
  const bool full = stream.num_tokens == stop.max_tokens;
  bool right = false;
  if (reason == FinishReason::kCancelled) {
    ++counters_.num_cancelled;
    right = stream.cancelled;
  } else if (reason == FinishReason::kStop) {
    ++counters_.num_stopped;
    right = stops;
  } else {
    ++counters_.num_length;
    right = full && !stops;
  }
  if (!right) {
    journal_.Fail(kName, "sequence {} ends with reason {} after {} tokens",
                  stream.spec.id, static_cast<int>(reason), stream.num_tokens);
  }
}

std::optional<SequenceId> TokenChecker::Find(uint64_t seed,
                                             int32_t choice) const {
  const auto it = by_seed_.find({seed, choice});
  if (it == by_seed_.end()) return std::nullopt;
  return it->second;
}

void TokenChecker::OnSampled(SequenceId id) { ++streams_.at(id).num_sampled; }

bool TokenChecker::ended(SequenceId id) const { return streams_.at(id).ended; }

bool TokenChecker::paused(SequenceId id) const {
  return streams_.at(id).paused;
}

int32_t TokenChecker::priority(SequenceId id) const {
  return streams_.at(id).spec.priority;
}

int64_t TokenChecker::num_history_tokens(SequenceId id) const {
  return static_cast<int64_t>(streams_.at(id).history.size());
}

bool TokenChecker::has_tokens(SequenceId id) const {
  return streams_.at(id).num_tokens > 0;
}

const std::string& TokenChecker::tenant(SequenceId id) const {
  return streams_.at(id).spec.tenant;
}

bool TokenChecker::complete(SequenceId id) const {
  return streams_.at(id).complete;
}

void TokenChecker::CheckDeadlines(int replica, Micros now) {
  const auto& deadlines = deadlines_[replica];
  if (deadlines.empty() || deadlines.begin()->first > now) return;
  journal_.Fail(kName, "sequence {} lives {} us after its deadline",
                deadlines.begin()->second, now - deadlines.begin()->first);
}

void TokenChecker::CheckComplete(const std::vector<SequenceId>& ids) {
  for (const SequenceId id : ids) {
    if (!complete(id)) {
      journal_.Fail(kName, "sequence {} did not get all its tokens", id);
    }
  }
}

std::vector<SequenceId> TokenChecker::live() const {
  std::vector<SequenceId> ids;
  for (const auto& [id, stream] : streams_) {
    if (!stream.ended) ids.push_back(id);
  }
  return ids;
}

}  // namespace witan
