#include "worker/decoder.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/limits.h"
#include "base/status.h"

namespace witan {

size_t Decoder::AttentionSendBytes(const ModelConfig& config, Layout layout,
                                   const EngineLimits& limits) {
  size_t bytes = 0;
  for (int member = 0; member < layout.tp; ++member) {
    const RankShard shard = MakeRankShard(config, layout, member);
    const size_t sum_bytes =
        TreeAllReduce::SendBytes(MaximalSubtrees(shard.attention_leaves).size(),
                                 limits.max_step_tokens, config.hidden_size);
    const size_t logits_bytes =
        limits.max_sequences * shard.vocab_rows.size() * sizeof(float);
    bytes = std::max({bytes, sum_bytes, logits_bytes});
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(
    const DecoderContext& context) {
  std::unique_ptr<Decoder> decoder(new Decoder(context));
  const ModelConfig& config = *context.config;
  decoder->kv_head_of_ = context.shard->KvHeadOf(config);
  decoder->leaf_columns_ = context.shard->AttentionLeafColumns(config);
  for (int member = 0; member < context.layout.tp; ++member) {
    decoder->vocab_rows_of_member_.push_back(
        MakeRankShard(config, context.layout, member).vocab_rows);
  }
  decoder->attention_sum_ = std::make_unique<TreeAllReduce>(
      *context.backend, *context.attention_comm, context.one_shot_max_bytes);
  ASSIGN_OR_RETURN(
      decoder->row_parallel_,
      RowParallelProduct::Create(config, *context.shard, context.limits,
                                 *context.backend));
  RETURN_IF_ERROR(decoder->AllocateWorkspace());
  if (config.has_experts()) {
    ASSIGN_OR_RETURN(decoder->experts_,
                     ExpertLayer::Create(config, *context.shard, context.limits,
                                         *context.backend, *context.expert_comm,
                                         context.one_shot_max_bytes));
  } else {
    ASSIGN_OR_RETURN(
        decoder->dense_,
        DenseLayer::Create(config, *context.shard, context.limits,
                           *context.backend, *decoder->row_parallel_,
                           *decoder->attention_sum_));
  }
  return decoder;
}

SumCounts Decoder::sum_counts() const {
  const SumCounts& attention = attention_sum_->counts();
  if (experts_ == nullptr) return attention;
  const SumCounts& experts = experts_->sum_counts();
  return {.one_shot = attention.one_shot + experts.one_shot,
          .two_shot = attention.two_shot + experts.two_shot};
}

absl::Status Decoder::AllocateWorkspace() {
  const ModelConfig& config = *context_.config;
  const size_t activation_bytes = SizeOf(ActivationDType(config.weights));
  const size_t rows = context_.limits.max_step_tokens;
  const size_t samples = context_.limits.max_sequences;
  const size_t hidden = config.hidden_size;
  const size_t query = context_.shard->query_heads.size() * config.head_dim;
  const size_t key = context_.shard->kv_heads.size() * config.head_dim;
  const bool joins_logits = context_.shard->rank == 0 && context_.layout.tp > 1;
  const std::pair<Buffer*, size_t> buffers[] = {
      {&residual_, rows * hidden * sizeof(float)},
      {&normed_, rows * hidden * activation_bytes},
      {&delta_, rows * hidden * activation_bytes},
      {&query_, rows * query * sizeof(float)},
      {&key_, rows * key * sizeof(float)},
      {&value_, rows * key * sizeof(float)},
      {&rotated_query_, rows * query * activation_bytes},
      {&attention_output_, rows * query * activation_bytes},
      {&logits_residual_, samples * hidden * sizeof(float)},
      {&logits_delta_, samples * hidden * activation_bytes},
      {&logits_normed_, samples * hidden * activation_bytes},
      {&logits_,
       joins_logits ? samples * config.vocab_size * sizeof(float) : 0},
  };
  for (const auto& [buffer, bytes] : buffers) {
    ASSIGN_OR_RETURN(*buffer, context_.backend->Allocate(bytes));
  }
  return absl::OkStatus();
}

absl::Status Decoder::Forward(const StepPlan& plan, const ResolvedStep& step) {
  const ModelConfig& config = *context_.config;
  Backend& backend = *context_.backend;
  const int64_t num_rows = plan.num_rows();
  num_step_rows_ = num_rows;
  const DType activation = ActivationDType(config.weights);
  const AttentionBatch batch{.row_begin = plan.row_begin,
                             .first_positions = plan.first_positions,
                             .block_ids = step.block_ids,
                             .block_table_stride = step.block_table_stride,
                             .rope_first_rows = step.rope_first_rows};
  const StepAdapters adapters{context_.adapters, step.adapter_of_row};
  const TensorView residual =
      residual_.View(DType::kF32, num_rows, config.hidden_size);
  const TensorView normed =
      normed_.View(activation, num_rows, config.hidden_size);
  const TensorView delta =
      delta_.View(activation, num_rows, config.hidden_size);

  backend.Embed(step.token_ids, context_.weights->embedding(), residual);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const LayerWeights& layer = context_.weights->layer(i);
    backend.AddNorm(residual, i == 0 ? ConstTensorView() : delta, {},
                    NormOf(layer.attention_norm), normed);
    RETURN_IF_ERROR(Attention(i, batch, adapters, num_rows));
    backend.AddNorm(residual, delta, layer.output_bias, NormOf(layer.ffn_norm),
                    normed);
    RETURN_IF_ERROR(experts_ != nullptr
                        ? experts_->Forward(layer, i, adapters, normed, delta)
                        : dense_->Forward(layer, i, adapters, normed, delta));
  }
  return absl::OkStatus();
}

Norm Decoder::NormOf(const NormWeights& weights) const {
  return {.weight = weights.weight,
          .bias = weights.bias,
          .epsilon = static_cast<float>(context_.config->norm_epsilon)};
}

void Decoder::Project(ConstTensorView x, const Projection& projection,
                      AdapterOfRow adapter_of_row, TensorView out) {
  Backend& backend = *context_.backend;
  backend.MatMul(x, projection.weight, out);
  if (!projection.bias.empty()) backend.AddBias(out, projection.bias);
  if (!adapter_of_row.empty()) {
    backend.AddLora(x, adapter_of_row, projection.adapters, out);
  }
  if (projection.head_norm.empty()) return;
  const int64_t head_dim = context_.config->head_dim;
  const TensorView heads(out.data, out.dtype,
                         out.rows * (out.columns / head_dim), head_dim);
  backend.AddNorm(heads, {}, {}, NormOf({.weight = projection.head_norm}),
                  heads);
}

absl::Status Decoder::Attention(int64_t layer_index,
                                const AttentionBatch& batch,
                                const StepAdapters& adapters,
                                int64_t num_rows) {
  const ModelConfig& config = *context_.config;
  const LayerWeights& layer = context_.weights->layer(layer_index);
  const KvLayer& cache = context_.cache->layer(layer_index);
  Backend& backend = *context_.backend;
  const DType activation = ActivationDType(config.weights);
  const int64_t query_columns = layer.query.rows;
  const int64_t key_columns = layer.key.rows;
  const TensorView normed =
      normed_.View(activation, num_rows, config.hidden_size);
  const TensorView query = query_.View(DType::kF32, num_rows, query_columns);
  const TensorView key = key_.View(DType::kF32, num_rows, key_columns);
  const TensorView value = value_.View(DType::kF32, num_rows, key_columns);
  const TensorView rotated =
      rotated_query_.View(activation, num_rows, query_columns);
  const TensorView output =
      attention_output_.View(activation, num_rows, query_columns);

  const auto factors = [&](TensorRole role) {
    return adapters.any() ? adapters.table->Of(role, layer_index)
                          : std::span<const LoraFactors>();
  };
  const AdapterOfRow of_row = adapters.adapter_of_row;
  Project(normed,
          {layer.query, layer.query_bias, layer.query_norm,
           factors(TensorRole::kQuery)},
          of_row, query);
  Project(
      normed,
      {layer.key, layer.key_bias, layer.key_norm, factors(TensorRole::kKey)},
      of_row, key);
  Project(normed,
          {layer.value, layer.value_bias, {}, factors(TensorRole::kValue)},
          of_row, value);
  backend.RopeWriteKv(query, key, value, context_.rope, batch, cache, rotated);
  const float scale =
      static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
  backend.PagedAttention(rotated, cache, batch, kv_head_of_, scale,
                         config.WindowOf(layer_index), output);
  row_parallel_->Run(
      output, layer.output, leaf_columns_, adapters, TensorRole::kOutput,
      layer_index,
      attention_sum_->PartialsBuffer(num_rows, config.hidden_size));
  return attention_sum_->Reduce(
      num_rows, config.hidden_size,
      delta_.View(activation, num_rows, config.hidden_size));
}

absl::StatusOr<ConstTensorView> Decoder::Logits(
    std::span<const int32_t> row_ids) {
  const int64_t num_rows = static_cast<int64_t>(row_ids.size());
  // The other attention groups computed the same rows; the first one's logits
  // are enough.
  if (num_rows == 0 || context_.shard->attention_group != 0) {
    return ConstTensorView();
  }
  const ModelConfig& config = *context_.config;
  Backend& backend = *context_.backend;
  const DType activation = ActivationDType(config.weights);
  const int64_t hidden = config.hidden_size;
  const TensorView residual =
      logits_residual_.View(DType::kF32, num_rows, hidden);
  const TensorView delta = logits_delta_.View(activation, num_rows, hidden);
  const TensorView normed = logits_normed_.View(activation, num_rows, hidden);
  backend.GatherRows(residual_.View(DType::kF32, num_step_rows_, hidden),
                     row_ids, residual);
  backend.GatherRows(delta_.View(activation, num_step_rows_, hidden), row_ids,
                     delta);
  backend.AddNorm(residual, delta, {}, NormOf(context_.weights->final_norm()),
                  normed);

  Communicator& comm = *context_.attention_comm;
  const int64_t local_vocab = context_.shard->vocab_rows.size();
  const TensorView local_logits(comm.SendBuffer(), DType::kF32, num_rows,
                                local_vocab);
  backend.MatMul(normed, context_.weights->lm_head(), local_logits);
  if (!context_.weights->lm_head_bias().empty()) {
    backend.AddBias(local_logits, context_.weights->lm_head_bias());
  }
  backend.Synchronize();
  std::vector<size_t> bytes_of_member;
  for (const IndexRange& rows : vocab_rows_of_member_) {
    bytes_of_member.push_back(num_rows * rows.size() * sizeof(float));
  }
  ASSIGN_OR_RETURN(Communicator::Views views, comm.Gather(bytes_of_member, 0));
  if (comm.rank() != 0) return ConstTensorView();
  return JoinVocabulary(views, num_rows);
}

ConstTensorView Decoder::JoinVocabulary(Communicator::Views views,
                                        int64_t num_rows) {
  if (views.size() == 1) {
    return ConstTensorView(views[0].data(), DType::kF32, num_rows,
                           context_.config->vocab_size);
  }
  const TensorView logits =
      logits_.View(DType::kF32, num_rows, context_.config->vocab_size);
  std::vector<int32_t> all_rows(num_rows);
  std::iota(all_rows.begin(), all_rows.end(), 0);
  for (size_t member = 0; member < views.size(); ++member) {
    const IndexRange& rows = vocab_rows_of_member_[member];
    if (rows.size() == 0) continue;
    context_.backend->GatherRows(
        ConstTensorView(views[member].data(), DType::kF32, num_rows,
                        rows.size()),
        all_rows,
        TensorView(logits.Row<float>(0) + rows.begin, DType::kF32, num_rows,
                   rows.size(), logits.row_stride));
  }
  return logits;
}

}  // namespace witan
