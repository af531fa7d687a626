#ifndef WITAN_COORDINATOR_CLUSTER_TOKEN_SINK_H_
#define WITAN_COORDINATOR_CLUSTER_TOKEN_SINK_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "base/request.h"
#include "coordinator/schedule/sequence.h"

namespace witan {

// Where the tokens of one sequence go. Owned by the Replica from Submit until
// after OnFinished; every call comes on the replica's thread, must return
// quickly and must not call back into the Replica (ReplicaLoop::Cancel and
// Submit are fine, they only queue).
class TokenSink {
 public:
  virtual ~TokenSink() = default;

  // The next token; indices are 0, 1, 2 ... A stop token is delivered too
  // (IsStopToken tells). False: stop here, a stop string matched; the sequence
  // then ends with kStop and this was its last token.
  virtual bool OnToken(int64_t index, const SampledToken& token) = 0;

  // Log-probabilities of the prompt's tokens from `first_index` on, where
  // sampling.num_prompt_logprobs asks for them: indices are 1, 2, 3 ..., and
  // all come before the first token that is drawn.
  virtual void OnPromptScores(int64_t /*first_index*/,
                              std::vector<SampledToken> /*scores*/) {}

  // The token that comes next whatever the model draws; none: what it draws.
  // Asked before the first token and after each OnToken that wants more.
  virtual std::optional<TokenId> NextForcedToken() { return std::nullopt; }

  // Exactly once, last. Not OK: UNAVAILABLE (no group, or its group died),
  // DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INVALID_ARGUMENT.
  virtual void OnFinished(absl::StatusOr<FinishReason> reason,
                          const SequenceUsage& usage) = 0;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_TOKEN_SINK_H_
