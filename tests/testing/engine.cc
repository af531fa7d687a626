#include "tests/testing/engine.h"

#include <algorithm>
#include <bit>

#include "base/status.h"
#include "model/config.h"
#include "tests/testing/fake_worker_group.h"

namespace witan {
namespace {

constexpr Micros kNow = 0;  // nothing here depends on time

bool SameBits(const TokenLogprob& a, const TokenLogprob& b) {
  return a.token_id == b.token_id && std::bit_cast<uint32_t>(a.logprob) ==
                                         std::bit_cast<uint32_t>(b.logprob);
}

void ForceNext(SequenceId id, const EngineOptions& options,
               const std::vector<SequenceSpec>& specs, Scheduler& scheduler,
               EngineRun& run) {
  if (options.forces_every == 0 || id % options.forces_every != 0) return;
  const auto spec =
      std::find_if(specs.begin(), specs.end(),
                   [id](const SequenceSpec& s) { return s.id == id; });
  std::vector<TokenId> history = spec->prompt;
  for (const SampledToken& token : run.outputs[id]) {
    history.push_back(token.token_id);
  }
  const std::optional<TokenId> token =
      FakeForcedToken(history, std::ssize(spec->prompt), options.vocab_size);
  if (token && scheduler.Force(id, *token, kNow)) ++run.num_forced;
}

}  // namespace

absl::StatusOr<EngineRun> RunSequences(
    ThreadCluster& cluster, const ThreadClusterOptions& cluster_options,
    const EngineOptions& options, const std::vector<SequenceSpec>& specs,
    const std::vector<int64_t>& arrival_steps, StepNumber& first_step) {
  ASSIGN_OR_RETURN(const ModelConfig config,
                   ReadModelConfig(cluster_options.model_directory));
  Scheduler scheduler(
      {.max_step_tokens = options.max_step_tokens > 0
                              ? options.max_step_tokens
                              : cluster_options.max_step_tokens,
       .max_prefill_chunk_tokens = options.max_prefill_chunk_tokens,
       .max_sequences = cluster_options.max_sequences,
       .num_blocks = cluster_options.num_blocks,
       .max_context_tokens = cluster_options.max_context_tokens,
       .prefix_cache = options.prefix_cache,
       .identity = {.max_short_rope_tokens =
                        config.rope.has_long_variant()
                            ? config.rope.original_context_tokens
                            : 0},
       .look_ahead = options.look_ahead},
      cluster_options.epoch, first_step);
  EngineRun run;
  size_t next_spec = 0;
  int64_t num_in_flight = 0;
  size_t num_finished = 0;
  while (num_finished < specs.size()) {
    while (true) {
      while (next_spec < specs.size() &&
             (arrival_steps.empty() ||
              arrival_steps[next_spec] <= run.num_steps)) {
        RETURN_IF_ERROR(scheduler.Add(specs[next_spec++], kNow));
      }
      std::optional<StepPlan> plan = scheduler.Plan(kNow);
      if (!plan.has_value()) {
        // Idle before the next arrival: it comes now.
        if (num_in_flight > 0 || next_spec == specs.size()) break;
        RETURN_IF_ERROR(scheduler.Add(specs[next_spec++], kNow));
        continue;
      }
      run.max_rows_of_a_step =
          std::max<int64_t>(run.max_rows_of_a_step, plan->num_rows());
      run.max_sequences_of_a_step =
          std::max<int64_t>(run.max_sequences_of_a_step, plan->num_sequences());
      first_step = plan->step + 1;
      cluster.Post(*plan);
      ++run.num_steps;
      ++num_in_flight;
    }
    if (num_in_flight == 0) return Internal("nothing runs and nothing ends");
    ASSIGN_OR_RETURN(StepResult result, cluster.Take());
    --num_in_flight;
    RETURN_IF_ERROR(scheduler.Apply(result, kNow));
    for (std::vector<SchedulerEvent> events = scheduler.TakeEvents();
         !events.empty(); events = scheduler.TakeEvents()) {
      for (SchedulerEvent& event : events) {
        if (auto* token = std::get_if<TokenEvent>(&event)) {
          run.outputs[token->id].push_back(token->token);
          ForceNext(token->id, options, specs, scheduler, run);
        } else if (auto* scored = std::get_if<PromptScoresEvent>(&event)) {
          auto& scores = run.scores[scored->id];
          scores.insert(scores.end(), scored->scores.begin(),
                        scored->scores.end());
        } else {
          const auto& finish = std::get<FinishEvent>(event);
          RETURN_IF_ERROR(finish.reason.status());
          ++num_finished;
        }
      }
    }
  }
  // The void rows of a last step planned ahead.
  for (; num_in_flight > 0; --num_in_flight) {
    ASSIGN_OR_RETURN(StepResult result, cluster.Take());
    RETURN_IF_ERROR(scheduler.Apply(result, kNow));
  }
  run.stats = scheduler.stats();
  if (run.stats.num_free_blocks != run.stats.num_blocks) {
    return Internal("{} of {} blocks are free after the run",
                    run.stats.num_free_blocks, run.stats.num_blocks);
  }
  return run;
}

bool SameBits(const std::vector<SampledToken>& a,
              const std::vector<SampledToken>& b) {
  return std::equal(
      a.begin(), a.end(), b.begin(), b.end(),
      [](const SampledToken& x, const SampledToken& y) {
        return SameBits(TokenLogprob{x.token_id, x.logprob},
                        TokenLogprob{y.token_id, y.logprob}) &&
               std::equal(x.top_logprobs.begin(), x.top_logprobs.end(),
                          y.top_logprobs.begin(), y.top_logprobs.end(),
                          [](const TokenLogprob& p, const TokenLogprob& q) {
                            return SameBits(p, q);
                          });
      });
}

}  // namespace witan
