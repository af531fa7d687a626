#include "model/layout_plan.h"

#include <algorithm>
#include <functional>
#include <tuple>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

constexpr int64_t kNullBlocks = 1;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The largest value in [0, max] that `holds`, which every smaller one does too
// and 0 is taken to.
int64_t LargestThat(int64_t max, const std::function<bool(int64_t)>& holds) {
  int64_t low = 0;
  int64_t high = max;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (holds(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// The ranks of one layout; their weights are counted once.
class RankGroup {
 public:
  RankGroup(const ModelConfig& config, Layout layout)
      : config_(config), layout_(layout) {
    for (int rank = 0; rank < layout.num_ranks(); ++rank) {
      shards_.push_back(MakeRankShard(config, layout, rank));
      weights_bytes_.push_back(WeightsBytes(config, shards_.back()));
    }
  }

  Layout layout() const { return layout_; }

  // Of every rank, for num_requests requests at once.
  std::vector<MemoryPlan> Needs(const LayoutQuestion& question,
                                int64_t num_requests) const {
    const EngineLimits limits = {
        .max_context_tokens = question.context_tokens,
        .max_step_tokens = question.max_step_tokens,
        .max_sequences = num_requests,
        .num_blocks = kNullBlocks + num_requests * BlocksPerRequest(question)};
    std::vector<MemoryPlan> plans;
    for (size_t rank = 0; rank < shards_.size(); ++rank) {
      plans.push_back(MakeEnginePlan(config_, layout_, shards_[rank], limits,
                                     config_.weights));
      plans.back().weights_bytes = weights_bytes_[rank];
    }
    return plans;
  }

  // Of the rank that needs the most.
  int64_t MostBytes(const LayoutQuestion& question,
                    int64_t num_requests) const {
    int64_t bytes = 0;
    for (const MemoryPlan& plan : Needs(question, num_requests)) {
      bytes = std::max(bytes, plan.total_bytes());
    }
    return bytes;
  }

  LayoutPlan Plan(const LayoutQuestion& question) const {
    const int64_t usable = UsableBytes(question.gpu_memory_bytes);
    LayoutPlan result;
    result.layout = layout_;
    result.num_replicas = std::min<int64_t>(
        question.num_gpus / layout_.num_ranks(), kMaxReplicas);
    const int64_t max_requests = std::min(
        {int64_t{kMaxStepSequences}, question.max_step_tokens,
         (int64_t{kMaxBlocks} - kNullBlocks) / BlocksPerRequest(question)});
    result.num_requests = LargestThat(max_requests, [&](int64_t num_requests) {
      return MostBytes(question, num_requests) <= usable;
    });
    const std::vector<MemoryPlan> needs =
        Needs(question, std::max<int64_t>(result.num_requests, 1));
    const auto most =
        std::max_element(needs.begin(), needs.end(),
                         [](const MemoryPlan& a, const MemoryPlan& b) {
                           return a.total_bytes() < b.total_bytes();
                         });
    result.rank = static_cast<int>(most - needs.begin());
    result.memory = *most;
    result.num_blocks = kMaxBlocks;
    for (const MemoryPlan& need : needs) {
      const int64_t spare = usable - (need.total_bytes() - need.kv_bytes);
      if (spare < 0) {
        result.num_blocks = 0;
      } else if (need.kv_bytes_per_block > 0) {
        // A rank without query heads keeps no KV and sets no bound.
        result.num_blocks =
            std::min(result.num_blocks, spare / need.kv_bytes_per_block);
      }
    }
    return result;
  }

 private:
  static int64_t BlocksPerRequest(const LayoutQuestion& question) {
    return CeilDiv(question.context_tokens, kBlockTokens);
  }

  const ModelConfig& config_;
  const Layout layout_;
  std::vector<RankShard> shards_;
  std::vector<int64_t> weights_bytes_;
};

// By number of ranks, then tp, then ep.
absl::StatusOr<std::vector<Layout>> LayoutsOf(const ModelConfig& config,
                                              const LayoutQuestion& question,
                                              int64_t max_ranks) {
  const Layout named = {question.tp.value_or(1), question.ep.value_or(1)};
  RETURN_IF_ERROR(MakeLayout(named.tp, named.ep).status());
  RETURN_IF_ERROR(CheckLayout(config, named));
  std::vector<Layout> layouts;
  for (int tp = 1; tp <= kNumLeaves; ++tp) {
    for (int ep = 1; ep <= kNumLeaves; ++ep) {
      const Layout layout = {tp, ep};
      if (question.tp.value_or(tp) != tp || question.ep.value_or(ep) != ep) {
        continue;
      }
      if (layout.num_ranks() > max_ranks || !CheckLayout(config, layout).ok()) {
        continue;
      }
      layouts.push_back(layout);
    }
  }
  if (layouts.empty()) {
    return InvalidArgument(
        "tp={} ep={} make {} ranks, and there are {} GPUs for one rank each; "
        "use at least {} GPUs, or a smaller tp or ep",
        named.tp, named.ep, named.num_ranks(), max_ranks, named.num_ranks());
  }
  std::stable_sort(layouts.begin(), layouts.end(), [](Layout a, Layout b) {
    return a.num_ranks() < b.num_ranks();
  });
  return layouts;
}

}  // namespace

int64_t LayoutPlan::kv_bytes_per_token() const {
  return memory.kv_bytes_per_block / kBlockTokens;
}

absl::StatusOr<std::vector<LayoutPlan>> PlanLayouts(
    const ModelConfig& config, const LayoutQuestion& question) {
  ASSIGN_OR_RETURN(const std::vector<Layout> layouts,
                   LayoutsOf(config, question, question.num_gpus));
  std::vector<LayoutPlan> plans;
  for (const Layout layout : layouts) {
    plans.push_back(RankGroup(config, layout).Plan(question));
  }
  return plans;
}

const LayoutPlan* BestLayout(const std::vector<LayoutPlan>& plans) {
  const auto rank = [](const LayoutPlan& plan) {
    return std::tuple(-plan.total_requests(), plan.layout.num_ranks(),
                      plan.memory.total_bytes());
  };
  const LayoutPlan* best = nullptr;
  for (const LayoutPlan& plan : plans) {
    if (!plan.fits()) continue;
    if (best == nullptr || rank(plan) < rank(*best)) best = &plan;
  }
  return best;
}

LayoutRemedies FindRemedies(const ModelConfig& config,
                            const LayoutQuestion& question) {
  const absl::StatusOr<std::vector<Layout>> layouts =
      LayoutsOf(config, question, kMaxRanks);
  const int64_t usable = UsableBytes(question.gpu_memory_bytes);
  LayoutRemedies remedies;
  int64_t least_bytes = 0;
  for (const Layout layout : *layouts) {
    const RankGroup group(config, layout);
    const int64_t bytes = group.MostBytes(question, 1);
    if (bytes <= usable && remedies.num_gpus == 0) {
      remedies.num_gpus = layout.num_ranks();  // they come by number of ranks
    }
    if (layout.num_ranks() > question.num_gpus) continue;
    if (least_bytes == 0 || bytes < least_bytes) least_bytes = bytes;
    const int64_t context =
        LargestThat(question.context_tokens, [&](int64_t context_tokens) {
          LayoutQuestion shorter = question;
          shorter.context_tokens = context_tokens;
          return group.MostBytes(shorter, 1) <= usable;
        });
    remedies.context_tokens = std::max(remedies.context_tokens, context);
  }
  // The least m with UsableBytes(m) >= least_bytes.
  remedies.gpu_memory_bytes =
      least_bytes + (least_bytes - 1) / (kReservedParts - 1);
  return remedies;
}

double CostPerMillionTokens(int64_t num_gpus, double gpu_hour_price,
                            double tokens_per_second) {
  constexpr double kSecondsPerHour = 3600;
  constexpr double kTokens = 1e6;
  return gpu_hour_price * static_cast<double>(num_gpus) /
         (tokens_per_second * kSecondsPerHour) * kTokens;
}

}  // namespace witan
