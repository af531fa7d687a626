#include "tests/testing/one_rank.h"

#include "base/file.h"
#include "base/limits.h"
#include "base/status.h"
#include "model/families.h"
#include "worker/comm/rendezvous.h"
#include "worker/rope.h"

namespace witan {
namespace {

constexpr int64_t kContext = 1024;

absl::StatusOr<std::unique_ptr<Communicator>> Alone(size_t max_send_bytes) {
  auto rendezvous = MakeLocalRendezvous({.rank = 0,
                                         .size = 1,
                                         .epoch = 1,
                                         .max_send_bytes = max_send_bytes,
                                         .timeout_ms = kCollectiveTimeoutMs});
  const std::string endpoint = rendezvous[0]->endpoint();
  return rendezvous[0]->Connect({&endpoint, 1}, kConnectTimeoutMs);
}

}  // namespace

absl::StatusOr<std::unique_ptr<OneRank>> OneRank::Create(
    const std::string& model_directory, CpuPath path, int num_threads,
    const std::string& adapter_directory) {
  std::unique_ptr<OneRank> rank(new OneRank);
  ASSIGN_OR_RETURN(
      const std::string json,
      ReadFile(model_directory + "/config.json", kMaxConfigFileBytes));
  ASSIGN_OR_RETURN(rank->config_, ParseModelConfig(json));
  const Layout layout{1, 1};
  rank->shard_ = MakeRankShard(rank->config_, layout, 0);
  rank->limits_ = {.max_context_tokens = kContext,
                   .max_step_tokens = kContext,
                   .max_sequences = 1,
                   .num_blocks = 1 + kContext / kBlockTokens,
                   .max_adapters = adapter_directory.empty() ? 0 : 1,
                   .max_adapter_rank = 64};
  ASSIGN_OR_RETURN(rank->checkpoint_, Checkpoint::Open(model_directory));
  RETURN_IF_ERROR(CheckCheckpoint(rank->config_, *rank->checkpoint_));
  rank->weights_ = std::make_unique<Weights>(
      rank->config_, rank->shard_, *rank->checkpoint_, /*num_threads=*/1);
  ASSIGN_OR_RETURN(rank->backend_,
                   MakeCpuBackend({.num_threads = num_threads,
                                   .path = path,
                                   .weights = rank->config_.weights}));
  rank->rope_ = MakeRope(rank->config_, kContext);
  ASSIGN_OR_RETURN(rank->cache_, PagedKvCache::Allocate(
                                     *rank->backend_, rank->config_,
                                     rank->shard_, rank->limits_.num_blocks));
  if (!adapter_directory.empty()) {
    ASSIGN_OR_RETURN(rank->adapters_,
                     AdapterTable::Create(rank->config_, rank->shard_,
                                          rank->limits_, *rank->backend_));
    ASSIGN_OR_RETURN(const auto adapter,
                     Adapter::Open(adapter_directory, rank->config_));
    RETURN_IF_ERROR(rank->adapters_->Load(0, *adapter));
  }
  ASSIGN_OR_RETURN(
      rank->attention_comm_,
      Alone(Decoder::AttentionSendBytes(rank->config_, layout, rank->limits_)));
  ASSIGN_OR_RETURN(
      rank->expert_comm_,
      Alone(ExpertLayer::SendBytes(rank->config_, layout, rank->limits_)));
  ASSIGN_OR_RETURN(
      rank->decoder_,
      Decoder::Create(
          {.config = &rank->config_,
           .shard = &rank->shard_,
           .layout = layout,
           .limits = rank->limits_,
           .backend = rank->backend_.get(),
           .weights = rank->weights_.get(),
           .cache = rank->cache_.get(),
           .adapters = rank->adapters_.get(),
           .rope = ConstTensorView(rank->rope_.data(), DType::kF32,
                                   NumRopeRows(rank->config_, kContext),
                                   rank->config_.rope.rotary_dim),
           .attention_comm = rank->attention_comm_.get(),
           .expert_comm = rank->expert_comm_.get()}));
  return rank;
}

absl::StatusOr<std::vector<float>> OneRank::Run(std::span<const TokenId> tokens,
                                                int64_t first_position) {
  StepPlan plan{.epoch = 1, .step = 1};
  const int64_t num_rows = static_cast<int64_t>(tokens.size());
  if (first_position == 0) {
    const int64_t max_short = LongRopeFirstRow(config_, kContext);
    slots_ =
        std::make_unique<SlotTable>(limits_, config_.vocab_size, max_short);
    SlotStart start{.slot = 0};
    if (adapters_ != nullptr) start.adapter = 0;
    start.long_rope = max_short > 0 && num_rows > max_short;
    plan.slot_starts = {std::move(start)};
  }
  plan.token_ids.assign(tokens.begin(), tokens.end());
  plan.row_begin = {0, static_cast<int32_t>(num_rows)};
  plan.slots = {0};
  plan.first_positions = {static_cast<int32_t>(first_position)};
  plan.samples = {1};
  const int64_t end = first_position + num_rows;
  for (int64_t p = first_position; p < end; ++p) {
    const bool in_new_block = p % kBlockTokens == 0;
    if (in_new_block) {
      plan.new_block_ids.push_back(static_cast<int32_t>(1 + p / kBlockTokens));
    }
  }
  plan.new_block_begin = {0, static_cast<int32_t>(plan.new_block_ids.size())};
  ResolvedStep step;
  RETURN_IF_ERROR(slots_->Resolve(plan, step));
  RETURN_IF_ERROR(decoder_->Forward(plan, step));
  ASSIGN_OR_RETURN(const ConstTensorView logits,
                   decoder_->Logits(step.sample_rows));
  backend_->Synchronize();
  const float* row = logits.Row<float>(0);
  return std::vector<float>(row, row + logits.columns);
}

absl::StatusOr<std::vector<std::vector<float>>> OneRank::LogitsOfAllPositions(
    std::span<const TokenId> tokens) {
  std::vector<std::vector<float>> logits;
  for (size_t i = 0; i < tokens.size(); ++i) {
    ASSIGN_OR_RETURN(logits.emplace_back(),
                     Run(tokens.subspan(i, 1), static_cast<int64_t>(i)));
  }
  return logits;
}

absl::StatusOr<std::vector<float>> OneRank::LogitsOfLastPosition(
    std::span<const TokenId> tokens) {
  return Run(tokens, 0);
}

}  // namespace witan
