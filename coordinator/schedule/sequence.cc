#include "coordinator/schedule/sequence.h"

#include <algorithm>

namespace witan {

bool IsStopToken(const StopRules& rules, int64_t index, TokenId token_id) {
  if (!StopRulesApply(rules, index)) return false;
  return std::find(rules.stop_token_ids.begin(), rules.stop_token_ids.end(),
                   token_id) != rules.stop_token_ids.end();
}

}  // namespace witan
