#ifndef WITAN_PROTO_WIRE_STEP_H_
#define WITAN_PROTO_WIRE_STEP_H_

// The part of proto/wire.h that each step carries: its plan and its result.
// Only proto/ includes this.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <vector>

#include "base/step_plan.h"
#include "proto/worker.pb.h"

namespace witan::wire {

absl::Status CheckEpoch(uint64_t epoch);

void Fill(worker::v1::StepPlan& out, const StepPlan& in);
absl::StatusOr<StepPlan> Read(const worker::v1::StepPlan& in);

void Fill(worker::v1::StepResult& out, const StepResult& in);
absl::StatusOr<StepResult> Read(const worker::v1::StepResult& in,
                                int64_t vocab_size);

template <typename T>
std::vector<T> ToVector(const google::protobuf::RepeatedField<T>& field) {
  return {field.begin(), field.end()};
}

template <typename T>
void Fill(google::protobuf::RepeatedField<T>& field,
          const std::vector<T>& values) {
  field.Add(values.begin(), values.end());
}

}  // namespace witan::wire

#endif  // WITAN_PROTO_WIRE_STEP_H_
