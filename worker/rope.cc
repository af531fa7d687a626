#include "worker/rope.h"

#include "kernels/backend.h"
#include "model/memory_plan.h"

namespace witan {

std::vector<float> MakeRope(const ModelConfig& config,
                            int64_t max_context_tokens) {
  const int64_t first_long_row = LongRopeFirstRow(config, max_context_tokens);
  if (first_long_row == 0) {
    return MakeRopeTable(max_context_tokens, config.rope);
  }
  std::vector<float> table = MakeRopeTable(first_long_row, config.rope);
  const std::vector<float> long_rows =
      MakeRopeTable(max_context_tokens, config.rope, /*is_long=*/true);
  table.insert(table.end(), long_rows.begin(), long_rows.end());
  return table;
}

}  // namespace witan
