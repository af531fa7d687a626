#ifndef WITAN_TESTS_API_FAKE_REPLICA_H_
#define WITAN_TESTS_API_FAKE_REPLICA_H_

// What FakeEngine says of a replica that is not there: that it serves, how
// likely the tokens of a prompt were, and which adapters it holds.

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "coordinator/cluster/engine.h"

namespace witan {

inline ReplicaSnapshot FakeServingSnapshot() {
  ReplicaSnapshot snapshot;
  snapshot.state = ReplicaState::kServing;
  snapshot.epoch = 3;
  snapshot.layout = {.tp = 2, .ep = 2};
  snapshot.limits = {.max_context_tokens = 512,
                     .max_step_tokens = 64,
                     .max_sequences = 8,
                     .num_blocks = 1000,
                     .max_adapters = 2};
  snapshot.ranks.resize(2);
  snapshot.ranks[1].worker.registration.host_name = "other\xff";
  return snapshot;
}

// Each token scores what its index is, in two parts.
inline void ScoreFakePrompt(const SequenceSpec& spec, TokenSink& sink) {
  const int64_t size = std::ssize(spec.prompt);
  if (spec.sampling.num_prompt_logprobs < 0) return;
  for (int64_t begin = 1; begin < size;) {
    const int64_t end = std::min(size, begin + std::max(size / 2, int64_t{1}));
    std::vector<SampledToken> scores;
    for (int64_t i = begin; i < end; ++i) {
      const float logprob = -static_cast<float>(i);
      scores.push_back({.token_id = spec.prompt[i],
                        .logprob = logprob,
                        .top_logprobs = {{.token_id = 7, .logprob = -0.5f}}});
    }
    sink.OnPromptScores(begin, std::move(scores));
    begin = end;
  }
}

// Adapters load until AnswerAdapters.
class EngineWithFakeAdapters : public Engine {
 public:
  void LoadAdapter(const std::string& name, const std::string& directory,
                   const std::string& content_hash, int64_t rank,
                   AdapterSet::DoneFn done) override {
    absl::Status status;
    {
      MutexLock lock(mutex_);
      auto begun = adapters_.Begin(name, directory, content_hash, rank, done);
      status = begun.status();
      if (begun.ok() && *begun) loading_.push_back((*begun)->ref);
      changed_.NotifyAll();
    }
    if (!status.ok()) done(status);
    CallDone();
  }
  absl::Status UnloadAdapter(const std::string& name) override {
    absl::Status status;
    {
      MutexLock lock(mutex_);
      status = adapters_.End(name).status();
    }
    CallDone();
    return status;
  }
  std::vector<AdapterInfo> Adapters() const override {
    MutexLock lock(mutex_);
    return adapters_.List();
  }

  void WaitForLoading() {
    MutexLock lock(mutex_);
    while (loading_.empty()) changed_.Wait(mutex_);
  }
  // Waits until one loads, and then says for all ranks how that went.
  void AnswerAdapters(const absl::Status& status) {
    WaitForLoading();
    auto snapshot = std::make_shared<ReplicaSnapshot>(FakeServingSnapshot());
    {
      MutexLock lock(mutex_);
      for (const AdapterRef& ref : loading_) {
        snapshot->adapters.push_back({ref, status});
      }
      loading_.clear();
      adapters_.OnSnapshots({snapshot});
    }
    CallDone();
  }

 protected:
  absl::StatusOr<AdapterRef> AcquireAdapter(const std::string& name) {
    MutexLock lock(mutex_);
    return adapters_.Acquire(name);
  }
  void ReleaseAdapter(const std::string& name) {
    MutexLock lock(mutex_);
    if (!name.empty()) adapters_.Release(name);
  }

 private:
  void CallDone() {
    std::vector<std::function<void()>> due;
    {
      MutexLock lock(mutex_);
      due = adapters_.TakeDone();
    }
    for (const auto& call : due) call();
  }

  mutable Mutex mutex_;
  CondVar changed_;
  AdapterSet adapters_ WITAN_GUARDED_BY(mutex_){2};
  std::vector<AdapterRef> loading_ WITAN_GUARDED_BY(mutex_);
};

}  // namespace witan

#endif  // WITAN_TESTS_API_FAKE_REPLICA_H_
