#ifndef WITAN_TESTS_SIM_TOKEN_CHECKER_H_
#define WITAN_TESTS_SIM_TOKEN_CHECKER_H_

// What clients are promised, checked at their sinks: every token index once and
// in order, each token the one that follows the true history and sampled by a
// step that all ranks answered, exactly one end, and an end for a reason.

#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/request.h"
#include "coordinator/schedule/sequence.h"
#include "tests/sim/sim_journal.h"

namespace witan {

struct TokenCounters {
  int64_t num_submitted = 0;
  int64_t num_tokens = 0;
  int64_t num_length = 0;
  int64_t num_stopped = 0;
  int64_t num_cancelled = 0;
  int64_t num_expired = 0;
  int64_t num_refused = 0;        // UNAVAILABLE without a token
  int64_t num_ended_by_loss = 0;  // UNAVAILABLE after some
  int64_t num_preempted = 0;      // sequences that were, and ended well
  int64_t num_cached = 0;         // sequences that were, in part
  int64_t num_forced = 0;         // tokens
  int64_t num_scored = 0;         // tokens of prompts
};

class TokenChecker {
 public:
  TokenChecker(SimJournal& journal, int64_t vocab_size)
      : journal_(journal), vocab_size_(vocab_size) {}

  // --- What clients do and see
  // ------------------------------------------------ Before the Replica gets
  // it. No two live sequences share seed and choice. `stop_at`: the client
  // wants no token after the one of this index; -1: all. `forces`: it forces
  // what FakeForcedToken names.
  void OnSubmit(const SequenceSpec& spec, int64_t stop_at, bool forces);
  // `replica` is to make it.
  void OnRouted(SequenceId id, int replica, Micros now);
  void OnCancel(SequenceId id);
  void OnReaderPaused(SequenceId id, bool paused);
  std::optional<TokenId> ForcedToken(SequenceId id) const;
  void OnPromptScores(SequenceId id, int64_t first_index,
                      const std::vector<SampledToken>& scores);
  // Whether the client wants more.
  bool OnToken(SequenceId id, int64_t index, const SampledToken& token);
  void OnFinished(SequenceId id, const absl::StatusOr<FinishReason>& reason,
                  const SequenceUsage& usage, Micros now);

  // --- What goes over the wire
  // -------------------------------------------------- The sequence that a slot
  // with these parameters belongs to, ended or not.
  std::optional<SequenceId> Find(uint64_t seed, int32_t choice) const;
  // All ranks answered a step that sampled for `id`.
  void OnSampled(SequenceId id);

  // --- Asked by the world
  // -------------------------------------------------------
  bool ended(SequenceId id) const;
  bool paused(SequenceId id) const;
  const std::string& tenant(SequenceId id) const;
  int32_t priority(SequenceId id) const;
  // The prompt and what the client got.
  int64_t num_history_tokens(SequenceId id) const;
  bool has_tokens(SequenceId id) const;
  // It got all its tokens.
  bool complete(SequenceId id) const;
  // The coordinator does nothing until then.
  void OnCoordinatorPause(Micros until) { awake_since_ = until; }
  // `replica` looked at its clock: nothing there lives past its deadline.
  void CheckDeadlines(int replica, Micros now);
  // Every sequence has ended in the way that somebody who waits for `ids`
  // wants.
  void CheckComplete(const std::vector<SequenceId>& ids);
  int64_t num_live() const { return num_live_; }
  // Of all sequences that are live, for the message of a failure.
  std::vector<SequenceId> live() const;
  int64_t num_calls() const { return num_calls_; }  // of sinks
  const TokenCounters& counters() const { return counters_; }

 private:
  struct Stream {
    SequenceSpec spec;
    int replica = 0;
    Micros submitted_at = 0;
    int64_t stop_at = -1;
    bool forces = false;
    std::vector<TokenId> history;
    int64_t num_tokens = 0;
    int64_t num_sampled = 0;
    int64_t num_scores = 0;
    bool cancelled = false;
    bool paused = false;
    bool stopped = false;  // by the client
    bool ended = false;
    bool complete = false;  // by length
  };

  void CheckReason(const Stream& stream, FinishReason reason);

  SimJournal& journal_;
  const int64_t vocab_size_;
  std::map<SequenceId, Stream> streams_;
  std::map<std::pair<uint64_t, int32_t>, SequenceId> by_seed_;
  // Of live ones, by replica.
  std::map<int, std::set<std::pair<Micros, SequenceId>>> deadlines_;
  Micros awake_since_ = 0;
  int64_t num_live_ = 0;
  int64_t num_calls_ = 0;
  TokenCounters counters_;
};

}  // namespace witan

#endif  // WITAN_TESTS_SIM_TOKEN_CHECKER_H_
