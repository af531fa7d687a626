#ifndef WITAN_KERNELS_CPU_SAMPLER_H_
#define WITAN_KERNELS_CPU_SAMPLER_H_

// Draws one token from a row of logits (numerics contract, point 8).

#include <cstdint>
#include <span>
#include <vector>

#include "base/request.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernels.h"

namespace witan {

// Candidates of one row, reused from row to row. One thread at a time.
class Sampler {
 public:
  explicit Sampler(const CpuKernels& kernels) : kernels_(kernels) {}

  // The row's banned tokens count as -infinity once penalties and bias were
  // applied; log-probabilities do not know of them.
  //
  // A NaN logit counts as -infinity, and +infinity as the largest float. When
  // no logit is above -infinity, the token is 0.
  //
  // Noise: word (token id mod 4) of Philox4x32-10 with the seed as key and the
  // counter (token id / 4, low 32 bits of the position, choice, 0); u is made
  // of the word's top 23 bits.
  SampledToken Sample(std::span<const float> logits, const SampleRow& row);

  // Memory kept for the next row.
  size_t capacity_bytes() const {
    return (logits_.capacity() + noise_.capacity()) * sizeof(float) +
           candidates_.capacity() * sizeof(Candidate);
  }

 private:
  struct Candidate {
    float logit;
    TokenId token_id;
    uint64_t weight;  // probability over the largest one, in units of 2^-40
  };
  static_assert(sizeof(Candidate) == kCandidateBytes);
  // Canonical order: logit descending, ties to the lower id.
  static bool Before(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token_id < b.token_id;
  }

  void LoadLogits(std::span<const float> logits);
  void ApplyPenalties(const SampleRow& row);
  TokenId ArgMax() const;
  TokenId Draw(const SampleRow& row);
  // noise_[i] becomes the noise of the token first_id + i, for n tokens.
  // REQUIRES: first_id is a multiple of kNoiseTokens.
  void MakeNoise(const SampleRow& row, TokenId first_id, size_t n);
  // Fills candidates_ with what top_k, min_p and top_p leave, in any order.
  void Filter(const SamplingParams& params);
  void KeepTopP(float top_p);
  void FillLogprobs(const SampleRow& row, SampledToken& token);

  const CpuKernels& kernels_;
  std::vector<float> logits_;  // as loaded, then penalised and scaled
  std::vector<float> noise_;
  std::vector<Candidate> candidates_;
};

}  // namespace witan

#endif  // WITAN_KERNELS_CPU_SAMPLER_H_
