#include "coordinator/api/stream_chunk.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace witan {

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

std::string OutcomeOf(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

std::string OutcomeOf(const absl::Status& status) {
  std::string name(absl::StatusCodeToString(status.code()));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return name;
}

int NumTokens(const v1::GenerateResponse& chunk) {
  return chunk.token_ids_size() + chunk.prompt().token_ids_size();
}

void Merge(v1::GenerateResponse& into, v1::GenerateResponse chunk) {
  if (chunk.has_prompt()) {
    v1::PromptPiece& prompt = *into.mutable_prompt();
    v1::PromptPiece& more = *chunk.mutable_prompt();
    if (prompt.token_ids().empty()) prompt.set_index(more.index());
    prompt.mutable_text()->append(more.text());
    prompt.mutable_token_ids()->MergeFrom(more.token_ids());
    prompt.mutable_logprobs()->MergeFrom(more.logprobs());
  }
  into.mutable_reasoning()->append(chunk.reasoning());
  into.mutable_text()->append(chunk.text());
  into.mutable_token_ids()->Add(chunk.token_ids().begin(),
                                chunk.token_ids().end());
  for (v1::TokenLogprobs& logprobs : *chunk.mutable_logprobs()) {
    *into.add_logprobs() = std::move(logprobs);
  }
  if (chunk.finish_reason() == v1::FINISH_REASON_UNSPECIFIED) return;
  into.set_finish_reason(chunk.finish_reason());
  into.mutable_usage()->Swap(chunk.mutable_usage());
  into.mutable_timings()->Swap(chunk.mutable_timings());
  into.set_seed(chunk.seed());
}

}  // namespace witan
