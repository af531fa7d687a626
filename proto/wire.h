#ifndef WITAN_PROTO_WIRE_H_
#define WITAN_PROTO_WIRE_H_

// The wall between the worker protocol's messages and its structs
// (base/worker_protocol.h). Whatever arrives is hostile until it came through
// here: sizes against base/limits.h, ranges, enum values, finite floats, and
// ragged arrays that fit each other (against the limits of a group and the
// slots' state a plan is checked by the worker's SlotTable). Refusals are
// INVALID_ARGUMENT and name message and field; nothing that was let through can
// fail a CHECK of the receiver because of its shape.

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

}  // namespace witan

#endif  // WITAN_PROTO_WIRE_H_
