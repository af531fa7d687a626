#ifndef WITAN_COORDINATOR_CLUSTER_STEP_OBSERVER_H_
#define WITAN_COORDINATOR_CLUSTER_STEP_OBSERVER_H_

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/step_plan.h"
#include "coordinator/schedule/sequence.h"

namespace witan {

// A step that all ranks answered.
struct StepRecord {
  Epoch epoch = 0;
  StepNumber step = 0;
  // From when it was sent, or from the end of the step before if that came
  // later, until the last rank's answer arrived.
  Micros began_at = 0;
  Micros ended_at = 0;
  int num_sequences = 0;
  int num_rows = 0;
  std::vector<StepTimings> ranks;  // by rank
  int64_t num_running = 0;         // after it
  int64_t num_waiting = 0;
};

// Looks on while a Replica works. Called on its thread; must not block for
// long.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  virtual void OnStep(const StepRecord& record) = 0;
  // A sequence ended, for whatever reason.
  virtual void OnSequenceEnded(SequenceId id, const SequenceUsage& usage,
                               Micros now) = 0;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_CLUSTER_STEP_OBSERVER_H_
