#ifndef WITAN_TESTS_API_FAKE_ENGINE_H_
#define WITAN_TESTS_API_FAKE_ENGINE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "coordinator/cluster/engine.h"
#include "tests/api/fake_replica.h"

namespace witan {

// A cluster without workers. Its thread plays the replica's: sequences get the
// tokens that `next_token` names, at once to their end or one per Step.
class FakeEngine final : public EngineWithFakeAdapters {
 public:
  using NextTokenFn = std::function<SampledToken(int choice, int64_t index)>;

  explicit FakeEngine(NextTokenFn next_token)
      : next_token_(std::move(next_token)), thread_([this] { Run(); }) {
    SetSnapshot(FakeServingSnapshot());
  }

  ~FakeEngine() override {
    Post([this] { stop_ = true; });
    thread_.join();
  }

  // Called in the text pool.
  absl::StatusOr<SequenceId> Submit(SequenceSpec spec,
                                    std::unique_ptr<TokenSink> sink) override {
    auto live = std::make_shared<Live>();
    if (!spec.adapter_name.empty()) {
      ASSIGN_OR_RETURN(spec.adapter, AcquireAdapter(spec.adapter_name));
    }
    live->spec = std::move(spec);
    live->spec.id = NewId();
    live->sink = std::move(sink);
    Post([this, live] {
      sequences_[live->spec.id] = live;
      Changed();
      ScoreFakePrompt(live->spec, *live->sink);
      live->forced = live->sink->NextForcedToken();
      RunToEnd(*live);
    });
    return live->spec.id;
  }

  void Cancel(SequenceId id) override {
    Post([this, id] { Finish(id, FinishReason::kCancelled); });
  }
  void Pause(SequenceId id) override {
    Post([this, id] {
      if (sequences_.contains(id)) paused_.insert(id);
      Changed();
    });
  }
  void Resume(SequenceId id) override {
    Post([this, id] {
      if (paused_.erase(id) == 0) return;
      Changed();
      RunToEnd(*sequences_.at(id));
    });
  }

  std::vector<std::shared_ptr<const ReplicaSnapshot>> Snapshots()
      const override {
    return {Snapshot()};
  }

  std::shared_ptr<const ReplicaSnapshot> Snapshot() const {
    MutexLock lock(mutex_);
    return snapshot_;
  }
  void SetSnapshot(ReplicaSnapshot snapshot) {
    MutexLock lock(mutex_);
    snapshot_ = std::make_shared<const ReplicaSnapshot>(std::move(snapshot));
  }

  // While `hold`, sequences wait for Step.
  void HoldTokens(bool hold = true) {
    Post([this, hold] {
      runs_to_end_ = !hold;
      for (const auto& [id, live] : sequences_) RunToEnd(*live);
    });
  }
  // One token for every live sequence.
  void Step() {
    Post([this] {
      for (const auto& [id, live] : std::map(sequences_)) Advance(*live);
    });
  }
  // Ends every live sequence, as when the group dies.
  void FailAll(const absl::Status& status) {
    Post([this, status] {
      for (const auto& [id, live] : std::map(sequences_)) Finish(id, status);
    });
  }
  void WaitForLive(int64_t count) {
    MutexLock lock(mutex_);
    while (num_live_ != count) changed_.Wait(mutex_);
  }
  void WaitForPaused(int64_t count) {
    MutexLock lock(mutex_);
    while (num_paused_ != count) changed_.Wait(mutex_);
  }
  // While `hold`, threads that want an id for a sequence have to wait.
  void HoldIds(bool hold) {
    MutexLock lock(mutex_);
    holds_ids_ = hold;
    changed_.NotifyAll();
  }
  void WaitForWaitingForIds(int count) {
    MutexLock lock(mutex_);
    while (num_waiting_for_ids_ != count) changed_.Wait(mutex_);
  }
  int num_waiting_for_ids() {
    MutexLock lock(mutex_);
    return num_waiting_for_ids_;
  }
  SequenceSpec last_spec() {  // of what came last
    MutexLock lock(mutex_);
    return last_spec_;
  }

 private:
  struct Live {
    SequenceSpec spec;
    std::unique_ptr<TokenSink> sink;
    int64_t num_tokens = 0;
    std::optional<TokenId> forced;
  };

  SequenceId NewId() {
    MutexLock lock(mutex_);
    ++num_waiting_for_ids_;
    changed_.NotifyAll();
    while (holds_ids_) changed_.Wait(mutex_);
    --num_waiting_for_ids_;
    return ++last_id_;
  }

  void Post(std::function<void()> task) {
    MutexLock lock(mutex_);
    tasks_.push_back(std::move(task));
    changed_.NotifyAll();
  }

  void Run() {
    while (!stop_) {
      std::function<void()> task;
      {
        MutexLock lock(mutex_);
        while (tasks_.empty()) changed_.Wait(mutex_);
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }

  void Changed() {
    MutexLock lock(mutex_);
    num_live_ = static_cast<int64_t>(sequences_.size());
    num_paused_ = static_cast<int64_t>(paused_.size());
    if (num_live_ > 0) last_spec_ = sequences_.rbegin()->second->spec;
    changed_.NotifyAll();
  }

  // As far as it goes: one token a task, so that a pause may come between.
  void RunToEnd(const Live& live) {
    const SequenceId id = live.spec.id;
    Post([this, id] {
      const auto found = sequences_.find(id);
      if (!runs_to_end_ || found == sequences_.end() || paused_.contains(id)) {
        return;
      }
      const std::shared_ptr<Live> next = found->second;
      Advance(*next);
      RunToEnd(*next);
    });
  }

  void Advance(Live& live) {
    const SequenceId id = live.spec.id;
    const int64_t index = live.num_tokens++;
    const SampledToken token = live.forced
                                   ? SampledToken{.token_id = *live.forced}
                                   : next_token_(live.spec.choice, index);
    const bool goes_on = live.sink->OnToken(index, token);
    live.forced = goes_on ? live.sink->NextForcedToken() : std::nullopt;
    if (!goes_on || IsStopToken(live.spec.stop, index, token.token_id)) {
      Finish(id, FinishReason::kStop);
    } else if (live.num_tokens == live.spec.stop.max_tokens) {
      Finish(id, FinishReason::kLength);
    }
  }

  void Finish(SequenceId id, absl::StatusOr<FinishReason> reason) {
    const auto found = sequences_.find(id);
    if (found == sequences_.end()) return;
    const std::shared_ptr<Live> live = found->second;
    sequences_.erase(found);
    paused_.erase(id);
    ReleaseAdapter(live->spec.adapter_name);
    live->sink->OnFinished(
        std::move(reason),
        {.num_prompt_tokens = static_cast<int64_t>(live->spec.prompt.size()),
         .num_output_tokens = live->num_tokens,
         .num_preemptions = 0,
         .queued_us = 1000,
         .first_token_us = 3000,
         .total_us = 7000});
    live->sink.reset();
    Changed();
  }

  const NextTokenFn next_token_;

  // The thread's.
  bool stop_ = false;
  bool runs_to_end_ = true;
  std::map<SequenceId, std::shared_ptr<Live>> sequences_;
  std::set<SequenceId> paused_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> tasks_ WITAN_GUARDED_BY(mutex_);
  std::shared_ptr<const ReplicaSnapshot> snapshot_ WITAN_GUARDED_BY(mutex_);
  SequenceId last_id_ WITAN_GUARDED_BY(mutex_) = 0;
  bool holds_ids_ WITAN_GUARDED_BY(mutex_) = false;
  int num_waiting_for_ids_ WITAN_GUARDED_BY(mutex_) = 0;
  int64_t num_live_ WITAN_GUARDED_BY(mutex_) = 0;
  int64_t num_paused_ WITAN_GUARDED_BY(mutex_) = 0;
  SequenceSpec last_spec_ WITAN_GUARDED_BY(mutex_);

  std::thread thread_;
};

}  // namespace witan

#endif  // WITAN_TESTS_API_FAKE_ENGINE_H_
