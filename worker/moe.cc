#include "worker/moe.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace witan {

size_t ExpertLayer::SendBytes(const ModelConfig& config, Layout layout,
                              const EngineLimits& limits) {
  size_t bytes = 0;
  if (!config.has_experts()) return bytes;
  for (int member = 0; member < layout.ep; ++member) {
    const RankShard shard = MakeRankShard(config, layout, member);
    bytes = std::max(bytes, TreeAllReduce::SendBytes(
                                MaximalSubtrees(shard.expert_leaves).size(),
                                limits.max_step_tokens, config.hidden_size));
  }
  return bytes;
}

ExpertLayer::ExpertLayer(const ModelConfig& config, const RankShard& shard,
                         Backend& backend, Communicator& comm,
                         int64_t one_shot_max_bytes)
    : config_(config),
      shard_(shard),
      backend_(backend),
      subtrees_(MaximalSubtrees(shard.expert_leaves)),
      sum_(backend, comm, one_shot_max_bytes) {}

absl::StatusOr<std::unique_ptr<ExpertLayer>> ExpertLayer::Create(
    const ModelConfig& config, const RankShard& shard,
    const EngineLimits& limits, Backend& backend, Communicator& comm,
    int64_t one_shot_max_bytes) {
  std::unique_ptr<ExpertLayer> layer(
      new ExpertLayer(config, shard, backend, comm, one_shot_max_bytes));
  RETURN_IF_ERROR(layer->AllocateWorkspace(limits));
  return layer;
}

absl::Status ExpertLayer::AllocateWorkspace(const EngineLimits& limits) {
  const size_t rows = limits.max_step_tokens;
  const size_t choices = rows * config_.experts_per_token;
  const size_t activation_bytes = SizeOf(ActivationDType(config_.weights));
  const std::pair<Buffer*, size_t> buffers[] = {
      {&router_logits_, rows * config_.num_experts * sizeof(float)},
      {&expert_ids_, choices * sizeof(int32_t)},
      {&expert_weights_, choices * sizeof(float)},
      {&offsets_, (shard_.experts.size() + 1) * sizeof(int32_t)},
      {&source_rows_, choices * sizeof(int32_t)},
      {&slot_of_choice_, choices * sizeof(int32_t)},
      {&gate_, choices * config_.intermediate_size * sizeof(float)},
      {&up_, choices * config_.intermediate_size * sizeof(float)},
      {&activated_, choices * config_.intermediate_size * activation_bytes},
      {&expert_output_, choices * config_.hidden_size * activation_bytes},
      {&exact_output_, limits.max_adapters > 0
                           ? choices * config_.hidden_size * sizeof(float)
                           : 0},
  };
  for (const auto& [buffer, bytes] : buffers) {
    ASSIGN_OR_RETURN(*buffer, backend_.Allocate(bytes));
  }
  return absl::OkStatus();
}

void ExpertLayer::GroupedProduct(ConstTensorView x, bool gather,
                                 const ExpertRows& rows,
                                 std::span<const ConstTensorView> w,
                                 const StepAdapters& adapters, TensorRole role,
                                 int64_t layer_index, TensorView y) {
  backend_.GroupedMatMul(x, gather, rows, w, y);
  if (!adapters.any() || rows.num_experts == 0) return;
  backend_.AddGroupedLora(x, gather, rows, adapters.adapter_of_row,
                          adapters.table->max_adapters(),
                          adapters.table->Of(role, layer_index), y);
}

absl::Status ExpertLayer::Forward(const LayerWeights& layer,
                                  int64_t layer_index,
                                  const StepAdapters& adapters,
                                  ConstTensorView x, TensorView out) {
  const int64_t num_rows = x.rows;
  const int64_t top_k = config_.experts_per_token;
  const int64_t num_choices = num_rows * top_k;
  const int64_t ffn = config_.intermediate_size;
  const DType activation = x.dtype;
  const TensorView router_logits =
      router_logits_.View(DType::kF32, num_rows, config_.num_experts);
  const TensorView expert_ids = expert_ids_.View(DType::kI32, num_rows, top_k);
  const TensorView expert_weights =
      expert_weights_.View(DType::kF32, num_rows, top_k);
  ExpertRows rows{
      .first_expert = shard_.experts.begin,
      .num_experts = shard_.experts.size(),
      .offsets = static_cast<int32_t*>(offsets_.data()),
      .source_rows = static_cast<int32_t*>(source_rows_.data()),
      .slot_of_choice = static_cast<int32_t*>(slot_of_choice_.data())};

  backend_.MatMul(x, layer.router, router_logits);
  if (adapters.any()) {
    backend_.AddLora(x, adapters.adapter_of_row,
                     adapters.table->Of(TensorRole::kRouter, layer_index),
                     router_logits);
  }
  backend_.RouterTopK(router_logits, config_.routing, static_cast<int>(top_k),
                      expert_ids, expert_weights);
  backend_.GroupByExpert(expert_ids, rows);
  const TensorView gate = gate_.View(DType::kF32, num_choices, ffn);
  const TensorView up = up_.View(DType::kF32, num_choices, ffn);
  const TensorView activated = activated_.View(activation, num_choices, ffn);
  const TensorView output =
      expert_output_.View(activation, num_choices, config_.hidden_size);
  GroupedProduct(x, /*gather=*/true, rows, layer.expert_gate, adapters,
                 TensorRole::kExpertGate, layer_index, gate);
  GroupedProduct(x, /*gather=*/true, rows, layer.expert_up, adapters,
                 TensorRole::kExpertUp, layer_index, up);
  const int32_t* const num_used = rows.offsets + rows.num_experts;
  backend_.SiluMul(gate, up, num_used, activated);
  if (adapters.any()) {
    const TensorView exact =
        exact_output_.View(DType::kF32, num_choices, config_.hidden_size);
    GroupedProduct(activated, /*gather=*/false, rows, layer.expert_down,
                   adapters, TensorRole::kExpertDown, layer_index, exact);
    backend_.Round(exact, num_used, output);
  } else {
    backend_.GroupedMatMul(activated, /*gather=*/false, rows, layer.expert_down,
                           output);
  }
  backend_.CombineExperts(output, rows, expert_ids, expert_weights,
                          config_.num_experts, subtrees_,
                          sum_.PartialsBuffer(num_rows, config_.hidden_size));
  return sum_.Reduce(num_rows, config_.hidden_size, out);
}

}  // namespace witan
