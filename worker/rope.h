#ifndef WITAN_WORKER_ROPE_H_
#define WITAN_WORKER_ROPE_H_

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace witan {

// The rope table of a model, fp32 [NumRopeRows, rotary_dim]: the rows of long
// sequences, if they have angles of their own, from LongRopeFirstRow on
// (model/memory_plan.h).
std::vector<float> MakeRope(const ModelConfig& config,
                            int64_t max_context_tokens);

}  // namespace witan

#endif  // WITAN_WORKER_ROPE_H_
