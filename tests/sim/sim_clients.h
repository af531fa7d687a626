#ifndef WITAN_TESTS_SIM_SIM_CLIENTS_H_
#define WITAN_TESTS_SIM_SIM_CLIENTS_H_

// The load: requests of one or more choices that arrive at random moments, some
// of them with deadlines, stop tokens, clients that have read enough or go
// away, and patience when the cluster cannot serve.

#include <cstdint>
#include <memory>
#include <vector>

#include "coordinator/cluster/token_sink.h"
#include "coordinator/schedule/sequence.h"
#include "tests/sim/sim_clock.h"
#include "tests/sim/sim_coordinator.h"
#include "tests/sim/sim_profile.h"
#include "tests/sim/sim_random.h"
#include "tests/sim/token_checker.h"

namespace witan {

class SimClients {
 public:
  // References outlive the clients.
  SimClients(SimClock& clock, SimRandom& random, const SimProfile& profile,
             SimCoordinator& coordinator, TokenChecker& tokens,
             int64_t vocab_size);

  // Schedules all requests of the profile.
  void Start();
  // To replica `replica`, now, by a client that reads to the end. Returns the
  // sequence.
  SequenceId SubmitPlain(int replica, int64_t num_prompt_tokens,
                         int64_t max_tokens);
  // Nothing else will come by itself.
  bool done() const { return num_to_come_ == 0; }

 private:
  class Sink;
  // Of one sequence (TokenChecker::OnSubmit).
  struct Wishes {
    int64_t stop_at = -1;
    bool forces = false;
  };

  void SendRequest();
  SequenceSpec DrawSpec();
  std::vector<TokenId> DrawTokens(int64_t num_tokens);
  std::vector<TokenId> DrawPrompt();
  // Its client reads slowly: it stops for a while, now and then.
  void ReadSlowly(SequenceId id);
  SequenceId SendSequence(SequenceSpec spec, Wishes wishes, int num_retries);
  void OnRefused(SequenceSpec spec, Wishes wishes, int num_retries);

  SimClock& clock_;
  SimRandom& random_;
  const SimProfile& profile_;
  SimCoordinator& coordinator_;
  TokenChecker& tokens_;
  const int64_t vocab_size_;
  int64_t num_to_come_ = 0;
  SequenceId next_id_ = 1;
  uint64_t next_seed_ = 1;
  std::vector<std::vector<TokenId>> prefixes_;
};

}  // namespace witan

#endif  // WITAN_TESTS_SIM_SIM_CLIENTS_H_
