#ifndef WITAN_WORKER_SLOTS_H_
#define WITAN_WORKER_SLOTS_H_

// What a rank remembers about each running sequence between steps, by slot
// (base/step_plan.h). Owned and used by the rank's step thread.

#include <absl/status/status.h>

#include <cstdint>
#include <vector>

#include "base/request.h"
#include "base/step_plan.h"
#include "kernels/backend.h"
#include "model/memory_plan.h"

namespace witan {

// One step's rows with everything filled in from the slots.
struct ResolvedStep {
  std::vector<TokenId> token_ids;  // [T]
  std::vector<int32_t> block_ids;  // [S, block_table_stride]
  int64_t block_table_stride = 0;
  // [S] as in AttentionBatch; empty if the model has no long variant.
  std::vector<int32_t> rope_first_rows;
  // [T] index of the row's adapter, -1: none; empty if no row has one.
  std::vector<int32_t> adapter_of_row;
  std::vector<int32_t> sample_slots;      // slots whose last row is sampled
  std::vector<int32_t> sample_rows;       // that row
  std::vector<int64_t> sample_positions;  // of the token to be drawn
  // [K] the scored rows of the plan, whose slots they are, and what follows.
  std::vector<int32_t> score_rows;
  std::vector<int32_t> score_slots;
  std::vector<TokenId> score_token_ids;
};

class SlotTable {
 public:
  // long_rope_first_row: row of the rope table where the angles of long
  // sequences begin; 0: there are none.
  SlotTable(const EngineLimits& limits, int64_t vocab_size,
            int64_t long_rope_first_row = 0);

  // Checks the plan against limits and slots, then applies what is new in it.
  // The plan comes from the network: INVALID_ARGUMENT names the first thing
  // that does not fit, and the table is then of no further use.
  absl::Status Resolve(const StepPlan& plan, ResolvedStep& step);

  // The step's tokens, by ResolvedStep::sample_slots.
  void Commit(const ResolvedStep& step, std::span<const TokenId> tokens);

  // Valid until the next Resolve or Commit.
  SampleRow RowToSample(int32_t slot, int64_t position) const;
  // How likely `token_id` was; valid until the next Resolve.
  SampleRow RowToScore(int32_t slot, TokenId token_id) const;

 private:
  struct Slot {
    bool started = false;
    bool has_token = false;
    bool long_rope = false;
    int32_t adapter = kNoAdapter;
    int32_t choice = 0;
    SamplingParams sampling;
    SamplingParams scoring;  // of the prompt's tokens
    int64_t num_prompt_tokens = 0;
    int64_t num_positions = 0;  // positions whose K and V are written
    TokenId last_token = 0;
    std::vector<int32_t> block_ids;
    // Positions whose tokens came with the SlotStart.
    int64_t num_history_tokens = 0;
    // Distinct tokens of prompt and output with their count in the output;
    // ascending; kept only while the parameters use penalties. A token counts
    // once it has a row: what was drawn may yet be replaced by a forced one.
    std::vector<TokenId> seen_ids;
    std::vector<int32_t> output_counts;
    // As many tokens before the one to be drawn as bad words look back on.
    std::vector<TokenId> recent_ids;
    size_t max_recent_ids = 0;
    // What must not be drawn next; made when a row is sampled.
    std::vector<TokenId> banned_ids;
  };

  absl::Status CheckShape(const StepPlan& plan) const;
  absl::Status CheckTokens(const SlotStart& start) const;
  absl::Status Start(const SlotStart& start);
  absl::Status ResolveSequence(const StepPlan& plan, int s, ResolvedStep& step);
  void ResolveAdapters(const StepPlan& plan, ResolvedStep& step) const;
  // The next row of `slot` is `token`.
  static void FeedToken(Slot& slot, TokenId token);
  static void FindBannedTokens(Slot& slot);
  absl::Status ResolveScores(const StepPlan& plan, ResolvedStep& step) const;
  static void CountToken(Slot& slot, TokenId token, int32_t output_count);

  const EngineLimits limits_;
  const int64_t vocab_size_;
  const int64_t long_rope_first_row_;
  std::vector<Slot> slots_;
};

}  // namespace witan

#endif  // WITAN_WORKER_SLOTS_H_
