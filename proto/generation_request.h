#ifndef WITAN_PROTO_GENERATION_REQUEST_H_
#define WITAN_PROTO_GENERATION_REQUEST_H_

// Public requests, checked and with defaults filled in. Every refusal names the
// field, its value and what is allowed. What is not set comes from the model's
// generation_config.json, else from the default named in inference.proto.

#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/request.h"
#include "model/config.h"
#include "model/generation_config.h"
#include "proto/inference.pb.h"

namespace witan {

// What requests are checked against.
struct ModelFacts {
  std::string name;  // as clients call it
  ModelConfig config;
  GenerationConfig generation;
  // Prompt and output together, as served: at most the model's own.
  int64_t max_context_tokens = 0;
  // Requests may name an adapter as their model.
  bool has_adapters = false;
};

struct ToolCall {
  std::string id;         // empty: none
  std::string name;       // of the function
  std::string arguments;  // JSON
};

struct ChatTurn {
  std::string role;
  std::string content;
  std::optional<std::string> reasoning_content;
  std::vector<ToolCall> tool_calls;
  std::optional<std::string> tool_call_id;
  std::optional<std::string> name;
};

struct GenerationRequest {
  std::string request_id;  // empty: the server draws one
  std::string tenant = kDefaultTenant;
  int32_t priority = 0;
  std::string adapter_name;  // empty: the model as it is; may not be loaded

  // Exactly one of the three is nonempty.
  std::string text;
  std::vector<TokenId> token_ids;
  std::vector<ChatTurn> messages;

  bool add_special_tokens = true;
  bool add_generation_prompt = true;                      // chat
  std::map<std::string, std::string> template_arguments;  // chat; JSON or text
  std::vector<std::string> tools;                         // chat; JSON

  // seed 0 unless has_seed; bad_words are the tokenizer's affair.
  SamplingParams sampling;
  bool has_seed = false;
  std::vector<std::string> bad_words;
  StopRules stop;  // max_tokens is set by FitToContext
  std::optional<int64_t> max_tokens;
  bool include_stop_string = false;
  bool skip_special_tokens = true;
  int num_choices = 1;
  bool echo = false;
  std::optional<int64_t> thinking_budget_tokens;
};

// INVALID_ARGUMENT, or NOT_FOUND for another model than the served one.
absl::StatusOr<GenerationRequest> ReadRequest(const v1::GenerateRequest& in,
                                              const ModelFacts& model);
absl::StatusOr<GenerationRequest> ReadRequest(const v1::ChatRequest& in,
                                              const ModelFacts& model);

// The other requests, which are used as they are once they passed.
absl::Status CheckRequest(const v1::CancelRequest& in);
absl::Status CheckRequest(const v1::TokenizeRequest& in,
                          const ModelFacts& model);
absl::Status CheckRequest(const v1::DetokenizeRequest& in,
                          const ModelFacts& model);
absl::Status CheckRequest(const v1::GetModelRequest& in,
                          const ModelFacts& model);

// Sets request.stop.max_tokens: as asked for, else what `context_tokens` has
// left. INVALID_ARGUMENT when prompt and output do not fit.
absl::Status FitToContext(GenerationRequest& request, int64_t num_prompt_tokens,
                          int64_t context_tokens);

// OK for an empty name and the served one, else NOT_FOUND.
absl::Status CheckModelName(const std::string& name, const ModelFacts& model);

// 1 to kMaxRequestIdBytes of [A-Za-z0-9._:-].
absl::Status CheckRequestId(const std::string& request_id);

// 1 to kMaxTenantBytes of the same characters.
absl::Status CheckTenant(const std::string& tenant);

absl::Status CheckTokenIds(
    const std::string& field,
    const google::protobuf::RepeatedField<int32_t>& token_ids,
    int64_t vocab_size);

// What a request that sets nothing gets.
v1::GenerationParameters DefaultParameters(const ModelFacts& model);

}  // namespace witan

#endif  // WITAN_PROTO_GENERATION_REQUEST_H_
