// Whether the ranks of a group hold the same model and compute the same bits.

#include <bit>
#include <utility>

#include "base/status.h"
#include "coordinator/cluster/replica.h"
#include "model/config_identity.h"
#include "model/manifest.h"

namespace witan {
namespace {

bool SameBits(const SampledToken& a, const SampledToken& b) {
  return a.token_id == b.token_id && std::bit_cast<uint32_t>(a.logprob) ==
                                         std::bit_cast<uint32_t>(b.logprob);
}

std::string Describe(const SampledToken& token) {
  return fmt::format("token {} with logprob {} ({:#010x})", token.token_id,
                     token.logprob, std::bit_cast<uint32_t>(token.logprob));
}

}  // namespace

absl::Status Replica::CheckIdentity() {
  RETURN_IF_ERROR(CheckConfigs());
  RETURN_IF_ERROR(CheckNumerics());
  Manifest manifest(options_.model);
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    const absl::Status status =
        Annotate(manifest.Add(static_cast<int>(rank),
                              ranks_[rank].prepared->piece_hashes),
                 RankName(static_cast<int>(rank)));
    if (!status.ok()) {
      BlameAllRanks();
      return status;
    }
  }
  absl::StatusOr<std::string> weights_id = manifest.WeightsId();
  if (!weights_id.ok()) {
    BlameAllRanks();
    return weights_id.status();
  }
  group_weights_id_ = *std::move(weights_id);
  if (first_serving_epoch_ == 0 || group_weights_id_ == weights_id_) {
    return absl::OkStatus();
  }
  BlameAllRanks();
  return FailedPrecondition(
      "the weights in {} changed: weights id {} in epoch {}, {} now; restart "
      "the coordinator to serve the new ones",
      options_.model_directory, weights_id_, first_serving_epoch_,
      group_weights_id_);
}

absl::Status Replica::CheckNumerics() {
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    const std::string& numerics_id = ranks_[rank].prepared->numerics_id;
    if (first_serving_epoch_ != 0 && numerics_id != numerics_id_) {
      BlameRank(static_cast<int>(rank));
      return FailedPrecondition(
          "{} would compute other bits than before: numerics id {} in epoch "
          "{}, {} now; start it with the --cpu-path of before, or restart the "
          "coordinator",
          RankName(static_cast<int>(rank)), numerics_id_, first_serving_epoch_,
          numerics_id);
    }
    if (numerics_id != ranks_[0].prepared->numerics_id) {
      BlameAllRanks();
      return FailedPrecondition(
          "{} and {} would compute different bits: numerics id {} vs {}; start "
          "them with the same --cpu-path",
          RankName(0), RankName(static_cast<int>(rank)),
          ranks_[0].prepared->numerics_id, numerics_id);
    }
  }
  return absl::OkStatus();
}

absl::Status Replica::CheckConfigs() {
  const std::string ours = ConfigText(options_.model);
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    const std::string difference =
        ConfigDifference(ranks_[rank].prepared->config, ours);
    if (difference.empty()) continue;
    BlameRank(static_cast<int>(rank));
    return FailedPrecondition(
        "{} and the coordinator read different models from {}: {} in "
        "config.json; copy the same files to both hosts, or restart the "
        "coordinator if they were replaced",
        RankName(static_cast<int>(rank)), options_.model_directory, difference);
  }
  return absl::OkStatus();
}

absl::Status Replica::CheckKnownAnswer(const StepResult& result) {
  if (result.tokens.size() != 1) {
    return Internal("the known-answer step brought {} tokens instead of 1",
                    result.tokens.size());
  }
  const SampledToken& answer = result.tokens.front();
  if (first_serving_epoch_ == 0) {
    first_serving_epoch_ = epoch_;
    weights_id_ = group_weights_id_;
    numerics_id_ = ranks_[0].prepared->numerics_id;
    known_answer_ = answer;
  } else if (!SameBits(answer, known_answer_)) {
    return Internal(
        "the known-answer step gave {}, and {} in epoch {}: one of the workers "
        "computes wrongly",
        Describe(answer), Describe(known_answer_), first_serving_epoch_);
  }
  return absl::OkStatus();
}

}  // namespace witan
