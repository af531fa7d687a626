#ifndef WITAN_PROTO_WIRE_H_
#define WITAN_PROTO_WIRE_H_

// The wall between the worker protocol's messages and its structs
// (base/worker_protocol.h). Whatever arrives is hostile until it came through
// here: sizes against base/limits.h, ranges, enum values, finite floats, and
// ragged arrays that fit each other. Refusals are INVALID_ARGUMENT and name
// message and field; nothing that was let through can fail a CHECK of the
// receiver because of its shape.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>

#include "base/step_plan.h"
#include "base/worker_protocol.h"
#include "proto/worker.pb.h"

namespace witan {

worker::v1::FromWorker ToProto(const WorkerMessage& message);
worker::v1::FromCoordinator ToProto(const CoordinatorMessage& message);

// `vocab_size` bounds the token ids of results.
absl::StatusOr<WorkerMessage> FromProto(const worker::v1::FromWorker& message,
                                        int64_t vocab_size);
absl::StatusOr<CoordinatorMessage> FromProto(
    const worker::v1::FromCoordinator& message);

// What a plan may refer to; a worker knows it from PrepareGroup and the model.
struct StepPlanBounds {
  int64_t vocab_size = 0;
  int64_t max_context_tokens = 0;
  int64_t max_step_tokens = 0;
  int64_t max_sequences = 0;
  int64_t num_blocks = 0;
};

// FromProto checks a plan against the limits of the system; this checks it
// against those of the group that shall run it. INVALID_ARGUMENT.
absl::Status CheckStepPlan(const StepPlan& plan, const StepPlanBounds& bounds);

}  // namespace witan

#endif  // WITAN_PROTO_WIRE_H_
