#ifndef WITAN_COORDINATOR_API_STREAM_CHUNK_H_
#define WITAN_COORDINATOR_API_STREAM_CHUNK_H_

// The messages of a Generate or Chat stream.

#include <absl/status/status.h>

#include <string>

#include "base/request.h"
#include "proto/inference.pb.h"

namespace witan {

v1::FinishReason ToProto(FinishReason reason);

// As metric::kRequests names it.
std::string OutcomeOf(FinishReason reason);
std::string OutcomeOf(const absl::Status& status);

// Of prompt and output.
int NumTokens(const v1::GenerateResponse& chunk);

// Appends `chunk` to `into`, the chunk before it of the same choice.
void Merge(v1::GenerateResponse& into, v1::GenerateResponse chunk);

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_STREAM_CHUNK_H_
