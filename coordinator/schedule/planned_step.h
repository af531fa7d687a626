#ifndef WITAN_COORDINATOR_SCHEDULE_PLANNED_STEP_H_
#define WITAN_COORDINATOR_SCHEDULE_PLANNED_STEP_H_

// What the scheduler remembers of a step until its result comes.

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/step_plan.h"
#include "coordinator/schedule/sequence.h"

namespace witan {

struct PlannedRows {
  Sequence* sequence = nullptr;
  int64_t num_rows = 0;
  int64_t end = 0;  // position behind the last row
  int64_t num_scores = 0;
  bool samples = false;
};

struct PlannedStep {
  StepNumber step = 0;
  int num_samples = 0;
  int64_t num_scores = 0;
  std::vector<PlannedRows> sequences;  // in plan order
};

// A step while it is put together.
struct StepDraft {
  StepPlan plan;
  PlannedStep step;
  Micros now = 0;
  int64_t num_decode_rows = 0;
  int64_t num_prefill_rows = 0;
  int64_t num_parked = 0;
  std::vector<Sequence*> prefills;  // running, by priority
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_PLANNED_STEP_H_
