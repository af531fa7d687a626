#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <limits>

namespace witan {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kWeightUnits = 0x1p40f;

}  // namespace

SampledToken Sampler::Sample(std::span<const float> logits,
                             const SampleRow& row) {
  SampledToken token;
  LoadLogits(logits);
  if (row.given_token_id >= 0) {
    token.token_id = row.given_token_id;
  } else {
    ApplyPenalties(row);
    token.token_id = row.params->temperature > 0 ? Draw(row) : ArgMax();
    if (row.params->num_top_logprobs >= 0) LoadLogits(logits);
  }
  if (row.params->num_top_logprobs >= 0) FillLogprobs(row, token);
  return token;
}

void Sampler::LoadLogits(std::span<const float> logits) {
  logits_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const float x = logits[i];
    logits_[i] = x != x ? -kInfinity : (x > kLargest ? kLargest : x);
  }
}

void Sampler::ApplyPenalties(const SampleRow& row) {
  const SamplingParams& params = *row.params;
  if (params.uses_penalties()) {
    for (size_t i = 0; i < row.seen_ids.size(); ++i) {
      float& x = logits_[static_cast<size_t>(row.seen_ids[i])];
      x = x > 0 ? x / params.repetition_penalty : x * params.repetition_penalty;
      const int32_t count = row.output_counts[i];
      if (count == 0) continue;
      x -= params.presence_penalty;
      x -= params.frequency_penalty * static_cast<float>(count);
    }
  }
  for (const LogitBias& bias : params.logit_bias) {
    const size_t id = static_cast<size_t>(bias.token_id);
    if (id < logits_.size()) logits_[id] += bias.bias;
  }
  for (const TokenId id : row.banned_ids) {
    logits_[static_cast<size_t>(id)] = -kInfinity;
  }
}

TokenId Sampler::ArgMax() const {
  size_t best = 0;
  for (size_t i = 1; i < logits_.size(); ++i) {
    if (logits_[i] > logits_[best]) best = i;
  }
  return static_cast<TokenId>(best);
}

TokenId Sampler::Draw(const SampleRow& row) {
  const SamplingParams& params = *row.params;
  for (float& x : logits_) {
    x = std::clamp(x / params.temperature, -kInfinity, kLargest);
  }
  if (params.top_k <= 0 && params.min_p <= 0 && params.top_p >= 1) {
    MakeNoise(row, 0, logits_.size());
    for (size_t i = 0; i < logits_.size(); ++i) logits_[i] += noise_[i];
    return ArgMax();
  }
  Filter(params);
  // Noise comes in vectors, so that many candidates cost less when all tokens
  // get theirs at once. A token's noise is the same either way.
  const bool noise_of_all =
      candidates_.size() > logits_.size() / static_cast<size_t>(kNoiseTokens);
  if (noise_of_all) MakeNoise(row, 0, logits_.size());
  TokenId best_id = 0;
  float best = -kInfinity;
  for (const Candidate& c : candidates_) {
    const TokenId first_id =
        noise_of_all
            ? 0
            : static_cast<TokenId>(c.token_id / kNoiseTokens * kNoiseTokens);
    if (!noise_of_all) MakeNoise(row, first_id, kNoiseTokens);
    const float score =
        c.logit + noise_[static_cast<size_t>(c.token_id - first_id)];
    if (score > best || (score == best && c.token_id < best_id)) {
      best = score;
      best_id = c.token_id;
    }
  }
  return best_id;
}

void Sampler::MakeNoise(const SampleRow& row, TokenId first_id, size_t n) {
  noise_.resize(std::max(noise_.size(), n));
  kernels_.gumbel(row.params->seed, static_cast<uint32_t>(row.position),
                  static_cast<uint32_t>(row.choice), first_id,
                  static_cast<int64_t>(n), noise_.data());
}

void Sampler::Filter(const SamplingParams& params) {
  const int64_t n = static_cast<int64_t>(logits_.size());
  const float max = kernels_.max_of(logits_.data(), n);
  candidates_.clear();
  if (max == -kInfinity) return;
  candidates_.reserve(logits_.size());
  noise_.resize(logits_.size());
  for (int64_t i = 0; i < n; ++i) noise_[i] = logits_[i] - max;
  kernels_.exp_of(noise_.data(), n, noise_.data());
  for (int64_t i = 0; i < n; ++i) {
    if (logits_[i] == -kInfinity) continue;
    candidates_.push_back({logits_[i], static_cast<TokenId>(i),
                           static_cast<uint64_t>(noise_[i] * kWeightUnits)});
  }
  if (params.top_k > 0 &&
      static_cast<size_t>(params.top_k) < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + params.top_k,
                     candidates_.end(), Before);
    candidates_.resize(static_cast<size_t>(params.top_k));
  }
  if (params.min_p > 0) {
    std::erase_if(candidates_, [&](const Candidate& c) {
      return noise_[static_cast<size_t>(c.token_id)] < params.min_p;
    });
  }
  if (params.top_p < 1) KeepTopP(params.top_p);
}

// Sums of integers do not depend on their order, so the best candidates can be
// taken from a heap until they suffice, without sorting all.
void Sampler::KeepTopP(float top_p) {
  uint64_t total = 0;
  for (const Candidate& c : candidates_) total += c.weight;
  const double enough = static_cast<double>(top_p) * static_cast<double>(total);
  const auto after = [](const Candidate& a, const Candidate& b) {
    return Before(b, a);
  };
  std::make_heap(candidates_.begin(), candidates_.end(), after);
  auto rest_end = candidates_.end();
  uint64_t sum = 0;
  while (rest_end != candidates_.begin()) {
    std::pop_heap(candidates_.begin(), rest_end, after);
    --rest_end;
    sum += rest_end->weight;
    if (static_cast<double>(sum) >= enough) break;
  }
  candidates_.erase(candidates_.begin(), rest_end);
}

void Sampler::FillLogprobs(const SampleRow& row, SampledToken& token) {
  const int64_t n = static_cast<int64_t>(logits_.size());
  const float max = kernels_.max_of(logits_.data(), n);
  float log_sum = 0;
  if (max > -kInfinity) {
    const float sum = kernels_.sum_exp(logits_.data(), max, n);
    kernels_.log_of(&sum, 1, &log_sum);
  }
  const auto logprob_of = [&](TokenId id) {
    const float x = logits_[static_cast<size_t>(id)];
    return x == -kInfinity ? x : (x - max) - log_sum;
  };
  token.logprob = logprob_of(token.token_id);
  const size_t num_best = std::min(
      static_cast<size_t>(row.params->num_top_logprobs), logits_.size());
  if (num_best == 0) return;
  candidates_.clear();
  candidates_.reserve(logits_.size());
  for (int64_t i = 0; i < n; ++i) {
    candidates_.push_back({logits_[i], static_cast<TokenId>(i), 0});
  }
  std::partial_sort(candidates_.begin(),
                    candidates_.begin() + static_cast<int64_t>(num_best),
                    candidates_.end(), Before);
  for (size_t i = 0; i < num_best; ++i) {
    const TokenId id = candidates_[i].token_id;
    token.top_logprobs.push_back({id, logprob_of(id)});
  }
}

}  // namespace witan
