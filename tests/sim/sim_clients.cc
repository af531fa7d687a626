#include "tests/sim/sim_clients.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "base/limits.h"

namespace witan {
namespace {

constexpr int kMaxRetries = 4;

}  // namespace

// Hands everything to the checker; tells of a refusal.
class SimClients::Sink : public TokenSink {
 public:
  Sink(SequenceId id, TokenChecker& tokens, const SimClock& clock,
       std::function<void()> on_refused)
      : id_(id),
        tokens_(tokens),
        clock_(clock),
        on_refused_(std::move(on_refused)) {}

  bool OnToken(int64_t index, const SampledToken& token) override {
    return tokens_.OnToken(id_, index, token);
  }
  void OnPromptScores(int64_t first_index,
                      std::vector<SampledToken> scores) override {
    tokens_.OnPromptScores(id_, first_index, scores);
  }
  std::optional<TokenId> NextForcedToken() override {
    return tokens_.ForcedToken(id_);
  }
  void OnFinished(absl::StatusOr<FinishReason> reason,
                  const SequenceUsage& usage) override {
    tokens_.OnFinished(id_, reason, usage, clock_.now());
    if (absl::IsUnavailable(reason.status()) && usage.num_output_tokens == 0 &&
        on_refused_) {
      on_refused_();
    }
  }

 private:
  const SequenceId id_;
  TokenChecker& tokens_;
  const SimClock& clock_;
  const std::function<void()> on_refused_;
};

SimClients::SimClients(SimClock& clock, SimRandom& random,
                       const SimProfile& profile, SimCoordinator& coordinator,
                       TokenChecker& tokens, int64_t vocab_size)
    : clock_(clock),
      random_(random),
      profile_(profile),
      coordinator_(coordinator),
      tokens_(tokens),
      vocab_size_(vocab_size) {}

void SimClients::Start() {
  num_to_come_ = profile_.num_requests;
  for (int i = 0; i < profile_.num_prefixes; ++i) {
    prefixes_.push_back(DrawTokens(profile_.max_prompt_tokens));
  }
  // Half of them in bursts, so that there is competition for slots and blocks.
  Micros burst = random_.Between(0, profile_.load_us);
  for (int i = 0; i < profile_.num_requests; ++i) {
    if (random_.Chance(0.15)) burst = random_.Between(0, profile_.load_us);
    const Micros when = random_.Chance(0.7)
                            ? burst + random_.Between(0, 20000)
                            : random_.Between(0, profile_.load_us);
    clock_.At(when, [this] {
      --num_to_come_;
      SendRequest();
    });
  }
}

void SimClients::SendRequest() {
  SequenceSpec spec = DrawSpec();
  const int num_choices =
      random_.Chance(profile_.choices_probability) ? random_.Between(2, 3) : 1;
  for (int32_t choice = 0; choice < num_choices; ++choice) {
    spec.choice = choice;
    const int64_t stop_at = random_.Chance(profile_.stop_probability)
                                ? random_.Below(profile_.max_output_tokens)
                                : -1;
    const bool forces = random_.Chance(profile_.force_probability);
    const SequenceId id = SendSequence(spec, {stop_at, forces}, 0);
    if (!spec.beside) spec.beside = id;
  }
}

SequenceSpec SimClients::DrawSpec() {
  SequenceSpec spec;
  spec.sampling.seed = next_seed_++;
  if (random_.Chance(0.5)) spec.sampling.num_top_logprobs = 0;
  if (random_.Chance(profile_.score_probability)) {
    spec.sampling.num_prompt_logprobs = 0;
  }
  if (random_.Chance(profile_.penalty_probability)) {
    spec.sampling.presence_penalty = 1;
  }
  spec.stop.max_tokens = random_.Between(1, profile_.max_output_tokens);
  spec.prompt = DrawPrompt();
  spec.tenant = fmt::format("tenant-{}", random_.Below(profile_.num_tenants));
  spec.priority = static_cast<int32_t>(random_.Below(profile_.num_priorities));
  if (random_.Chance(profile_.stop_probability)) {
    // So many that one of them comes.
    for (int i = 0; i < 16; ++i) {
      spec.stop.stop_token_ids.push_back(
          static_cast<TokenId>(random_.Below(vocab_size_)));
    }
    spec.stop.min_tokens = random_.Between(0, spec.stop.max_tokens);
  }
  if (random_.Chance(profile_.deadline_probability)) {
    spec.deadline = clock_.now() + random_.Between(0, 3 * kMicrosPerSecond);
  }
  return spec;
}

std::vector<TokenId> SimClients::DrawTokens(int64_t num_tokens) {
  std::vector<TokenId> tokens;
  for (int64_t i = 0; i < num_tokens; ++i) {
    tokens.push_back(static_cast<TokenId>(random_.Below(vocab_size_)));
  }
  return tokens;
}

std::vector<TokenId> SimClients::DrawPrompt() {
  std::vector<TokenId> prompt =
      DrawTokens(random_.Between(1, profile_.max_prompt_tokens));
  if (prefixes_.empty() || random_.Chance(0.2)) return prompt;
  const std::vector<TokenId>& prefix =
      prefixes_[random_.Below(prefixes_.size())];
  // Mostly long ones, and some that differ within their first block.
  const int64_t longest = static_cast<int64_t>(prompt.size());
  const int64_t num_common =
      random_.Chance(0.7) ? longest : random_.Between(0, longest);
  std::copy_n(prefix.begin(), num_common, prompt.begin());
  return prompt;
}

void SimClients::ReadSlowly(SequenceId id) {
  clock_.After(random_.Between(0, kMicrosPerSecond), [this, id] {
    if (tokens_.ended(id)) return;
    coordinator_.Pause(id);
    clock_.After(random_.Between(0, 2 * kMicrosPerSecond), [this, id] {
      coordinator_.Resume(id);
      if (random_.Chance(0.5)) ReadSlowly(id);
    });
  });
}

SequenceId SimClients::SendSequence(SequenceSpec spec, Wishes wishes,
                                    int num_retries) {
  spec.id = next_id_++;
  const SequenceId id = spec.id;
  tokens_.OnSubmit(spec, wishes.stop_at, wishes.forces);
  auto sink = std::make_unique<Sink>(id, tokens_, clock_,
                                     [this, spec, wishes, num_retries] {
                                       OnRefused(spec, wishes, num_retries);
                                     });
  coordinator_.Submit(std::move(spec), std::move(sink));
  if (random_.Chance(profile_.slow_reader_probability)) ReadSlowly(id);
  if (random_.Chance(profile_.cancel_probability)) {
    clock_.After(random_.Between(0, 2 * kMicrosPerSecond),
                 [this, id] { coordinator_.Cancel(id); });
  }
  return id;
}

// Tries again, as a new sequence that draws other tokens.
void SimClients::OnRefused(SequenceSpec spec, Wishes wishes, int num_retries) {
  if (num_retries >= kMaxRetries) return;
  ++num_to_come_;
  spec.sampling.seed = next_seed_++;
  clock_.After(kRetryPushbackMs * kMicrosPerMilli * (1 + num_retries),
               [this, spec = std::move(spec), wishes, num_retries] {
                 --num_to_come_;
                 SendSequence(spec, wishes, num_retries + 1);
               });
}

SequenceId SimClients::SubmitPlain(int replica, int64_t num_prompt_tokens,
                                   int64_t max_tokens) {
  SequenceSpec spec;
  spec.id = next_id_++;
  spec.sampling.seed = next_seed_++;
  spec.stop.max_tokens = max_tokens;
  spec.prompt = DrawTokens(num_prompt_tokens);
  tokens_.OnSubmit(spec, -1, false);
  auto sink = std::make_unique<Sink>(spec.id, tokens_, clock_, nullptr);
  const SequenceId id = spec.id;
  coordinator_.SubmitTo(replica, std::move(spec), std::move(sink));
  return id;
}

}  // namespace witan
