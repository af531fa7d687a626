#ifndef WITAN_CLI_GENERATION_H_
#define WITAN_CLI_GENERATION_H_

// The stream of one request, put together again and printed as it arrives.

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>
#include <grpcpp/support/sync_stream.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "proto/inference.pb.h"

namespace witan {

struct ChoiceResult {
  std::string prompt_text;
  std::vector<int32_t> prompt_token_ids;
  std::vector<v1::TokenLogprobs> prompt_logprobs;
  std::string reasoning;
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<v1::TokenLogprobs> logprobs;
  v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
  v1::Usage usage;
  v1::Timings timings;
};

struct GenerationResult {
  std::string request_id;
  uint64_t seed = 0;
  std::vector<ChoiceResult> choices;
};

// Adds `chunk`. DATA_LOSS unless its tokens, of prompt and output, follow those
// that came before and its choice exists: each token is delivered exactly once.
grpc::Status Append(const v1::GenerateResponse& chunk, int num_choices,
                    GenerationResult* result);

enum class TextKind { kPrompt, kReasoning, kAnswer };

// Receives text of the first choice as it arrives. False: it cannot be written,
// and nobody wants the rest.
using TextSink = std::function<bool(TextKind kind, std::string_view text)>;

// Hands the text of a choice, or of a chunk of it, to `sink` in order.
bool Show(const TextSink& sink, std::string_view prompt,
          std::string_view reasoning, std::string_view answer);

// DATA_LOSS unless every choice has its finish reason: a stream may end without
// an error and yet too soon, e.g. behind a proxy.
grpc::Status CheckFinished(int num_choices, const GenerationResult& result);

// Reads the stream of `context` to its end. OK: every choice has its finish
// reason; DATA_LOSS: what arrived is not the whole result; RESOURCE_EXHAUSTED:
// the sink wants no more, and the request was cancelled.
grpc::Status Receive(grpc::ClientContext& context,
                     grpc::ClientReaderInterface<v1::GenerateResponse>& stream,
                     int num_choices, const TextSink& sink,
                     GenerationResult* result);

// "stop", "length", "cancelled"; empty when unspecified.
std::string_view NameOf(v1::FinishReason reason);

// The object that --json prints: the only choice's fields beside seed and
// request_id, or an array "choices" when there are several. Numbers keep all
// their bits.
nlohmann::ordered_json ToJson(const GenerationResult& result);

// "24 tokens, the first after 0.052 s, then 77.4 tokens/s", over all choices.
std::string DescribeTimings(const GenerationResult& result);

}  // namespace witan

#endif  // WITAN_CLI_GENERATION_H_
