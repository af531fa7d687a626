#ifndef WITAN_WORKER_SAMPLER_H_
#define WITAN_WORKER_SAMPLER_H_

// Draws the tokens of a step on world rank 0 and tells every rank of the world;
// scores the tokens of prompts.

#include <absl/status/statusor.h>

#include <functional>
#include <span>
#include <vector>

#include "base/request.h"
#include "kernels/backend.h"
#include "worker/comm/communicator.h"
#include "worker/slots.h"

namespace witan {

// Bytes that the send buffer of the world's communicator needs.
size_t SamplerSendBytes(int64_t max_sequences);

// Samples every row of `step` (world rank 0, which passes the logits, fp32
// [samples, V]; the others pass an empty view), broadcasts the token ids and
// commits them to `slots`. Returns the tokens on rank 0, nothing elsewhere.
absl::StatusOr<std::vector<SampledToken>> SampleStep(const ResolvedStep& step,
                                                     ConstTensorView logits,
                                                     Backend& backend,
                                                     Communicator& world,
                                                     SlotTable& slots);

// The log-probabilities of the scored rows of `step`, on world rank 0; nothing
// elsewhere. Logits are made for at most `max_rows` rows at a time, by
// `logits_of`, which every rank calls with the same rows.
absl::StatusOr<std::vector<SampledToken>> ScoreStep(
    const ResolvedStep& step, int64_t max_rows,
    const std::function<absl::StatusOr<ConstTensorView>(
        std::span<const int32_t> rows)>& logits_of,
    Backend& backend, const Communicator& world, const SlotTable& slots);

}  // namespace witan

#endif  // WITAN_WORKER_SAMPLER_H_
