#ifndef WITAN_BASE_REQUEST_H_
#define WITAN_BASE_REQUEST_H_

// What a request asks for, after validation and after defaults were filled in.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace witan {

using TokenId = int32_t;

// Whose requests those are that name no tenant.
inline constexpr char kDefaultTenant[] = "default";

struct LogitBias {
  TokenId token_id = 0;
  float bias = 0;
  bool operator==(const LogitBias&) const = default;
};

// How one token is drawn from logits. Order of application: repetition,
// presence and frequency penalty, logit_bias, the tokens that must not come
// (bad_words, end_token_ids), temperature, top_k, min_p, top_p, then
// Gumbel-argmax (numerics contract 8). Immutable once admitted.
struct SamplingParams {
  float temperature = 1.0f;  // 0: argmax without noise
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;        // (0, 1]; 1: off
  float min_p = 0.0f;        // [0, 1]; 0: off
  // > 0; 1: off. Divides positive and multiplies negative logits of every
  // token that occurs in the prompt or the output.
  float repetition_penalty = 1.0f;
  // Subtracted once from every token that occurs in the output.
  float presence_penalty = 0.0f;
  // Subtracted once per occurrence in the output.
  float frequency_penalty = 0.0f;
  std::vector<LogitBias> logit_bias;  // ascending token ids, each once
  // Sequences of 1 to kMaxBadWordTokens tokens, none of which comes to its end
  // in the output: the last token is not drawn where those before it, of prompt
  // or output, are the others.
  std::vector<std::vector<TokenId>> bad_words;
  // Not drawn as one of the first min_tokens tokens of the output.
  std::vector<TokenId> end_token_ids;
  int64_t min_tokens = 0;
  uint64_t seed = 0;
  // -1: no logprobs; 0: of the sampled token only; n: and of the n best.
  int32_t num_top_logprobs = -1;
  // The same of the prompt's tokens, but for the first one.
  int32_t num_prompt_logprobs = -1;

  bool uses_penalties() const {
    return repetition_penalty != 1.0f || presence_penalty != 0.0f ||
           frequency_penalty != 0.0f;
  }
  // Whether a rank has to know the tokens before those it computes.
  bool uses_history() const {
    return uses_penalties() ||
           std::any_of(bad_words.begin(), bad_words.end(),
                       [](const auto& word) { return word.size() > 1; });
  }
  bool operator==(const SamplingParams&) const = default;
};

// When one choice ends.
struct StopRules {
  int64_t max_tokens = 0;  // >= 1, and prompt + max_tokens <= context
  int64_t min_tokens = 0;  // the rules below do not apply to so many tokens
  std::vector<std::string> stop_strings;  // removed from the text
  std::vector<TokenId> stop_token_ids;    // end-of-sequence ids included
  bool operator==(const StopRules&) const = default;
};

enum class FinishReason : uint8_t {
  kStop,       // a stop token or stop string
  kLength,     // max_tokens reached
  kCancelled,  // by the client
};

struct TokenLogprob {
  TokenId token_id = 0;
  float logprob = 0;
  bool operator==(const TokenLogprob&) const = default;
};

// One token as the sampling rank made it, or one of a prompt that it scored.
struct SampledToken {
  TokenId token_id = 0;
  // Of the raw logits; 0 when not asked for, and of a forced token.
  float logprob = 0;
  std::vector<TokenLogprob> top_logprobs;  // best first, ties to the lower id
  bool operator==(const SampledToken&) const = default;
};

}  // namespace witan

#endif  // WITAN_BASE_REQUEST_H_
