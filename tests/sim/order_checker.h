#ifndef WITAN_TESTS_SIM_ORDER_CHECKER_H_
#define WITAN_TESTS_SIM_ORDER_CHECKER_H_

// Whose turn it is, seen in the plans that leave one replica:
//   - rows: no step has more than it may, no prompt more than a chunk, and all
//     prompts together no more than they may beside decode rows;
//   - prompts: none gets rows while one of a higher priority wants more;
//   - admission: none of a lower priority begins while a higher one waits, and
//     a higher one begins soon where lower ones run and it would fit if they
//     gave way.
// The last two only without a prefix cache: with one a sequence may wait for
// what another one computes, which nobody outside can tell.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "base/step_plan.h"
#include "coordinator/cluster/replica.h"
#include "tests/sim/sim_journal.h"
#include "tests/sim/token_checker.h"

namespace witan {

class OrderChecker {
 public:
  // References outlive the checker.
  OrderChecker(SimJournal& journal, const TokenChecker& tokens,
               const ReplicaOptions& options);

  // The replica takes a sequence from the coordinator's edge.
  void OnSubmitted(SequenceId id);
  // A new group: nothing runs in it.
  void OnGroup(int64_t num_blocks, int64_t max_sequences);
  // `ids`: of the plan's sequences. Every token of a step before it that was
  // applied has been delivered.
  void OnPlan(const StepPlan& plan, const std::vector<SequenceId>& ids);

 private:
  struct Running {
    bool answers = false;  // it sampled since it was started
    int64_t last_plan = 0;
  };
  struct PromptRows {
    SequenceId id = 0;
    int32_t priority = 0;
    bool is_cut = false;  // it wants more, and a chunk has room for it
  };

  // Plans in which one would have fitted in the place of lower ones, and no
  // prompt of its priority or a higher one went before it.
  struct Wait {
    std::optional<int32_t> priority;
    int64_t num_plans = 0;
    int64_t num_below = 0;  // most that ran below it meanwhile
  };

  std::vector<PromptRows> ReadRows(const StepPlan& plan,
                                   const std::vector<SequenceId>& ids);
  void CheckPrompts(const StepPlan& plan,
                    const std::vector<PromptRows>& prompts) const;
  void CheckAdmission(const StepPlan& plan,
                      const std::vector<PromptRows>& prompts,
                      const std::vector<SequenceId>& started);
  // Whether any of those that wait at `priority` would fit beside all that is
  // not below it; and how many are below.
  bool WouldFit(int32_t priority, int64_t* num_below) const;
  void ForgetEnded();

  SimJournal& journal_;
  const TokenChecker& tokens_;
  const int64_t max_step_tokens_;
  const int64_t max_chunk_tokens_;
  const int64_t max_beside_decode_;
  const bool knows_who_waits_;
  int64_t num_blocks_ = 0;
  int64_t max_sequences_ = 0;

  int64_t num_plans_ = 0;
  std::map<SequenceId, Running> running_;  // or preempted, or just over
  std::map<int32_t, std::set<SequenceId>> waiting_;  // by priority: never begun
  Wait wait_;                                        // of the highest of them
};

}  // namespace witan

#endif  // WITAN_TESTS_SIM_ORDER_CHECKER_H_
