#include "coordinator/cluster/replica_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <mutex>

#include "base/limits.h"
#include "base/status.h"
#include "tests/cluster/replica_fixture.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

// A loop whose workers answer at once, on the loop's own thread.
class ReplicaLoopTest : public ::testing::Test {
 protected:
  ReplicaLoopTest() {
    loop_ = std::make_unique<ReplicaLoop>(
        FakeReplicaOptions(2), MonotonicClock(),
        [this](ReplicaOutput output) { Send(std::move(output)); },
        [this](const ReplicaSnapshot& snapshot) { OnSnapshot(snapshot); });
  }
  ~ReplicaLoopTest() override { loop_->Stop("the test is over"); }

  WorkerId Join() {
    const WorkerId id = loop_->NewWorker();
    FakeWorker worker(FakeTinyWorker(2));
    const RegisterWorker hello = worker.Hello();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      workers_.emplace(id, std::move(worker));
    }
    EXPECT_TRUE(loop_->Post(id, hello).ok());
    return id;
  }

  void Send(ReplicaOutput output) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !hold_; });
    if (const auto* close = std::get_if<CloseWorker>(&output)) {
      workers_.erase(close->worker);
      return;
    }
    const SendMessage& send = std::get<SendMessage>(output);
    for (const WorkerId id : send.workers) {
      const auto it = workers_.find(id);
      if (it == workers_.end()) continue;
      for (WorkerMessage& answer : it->second.OnMessage(send.message)) {
        EXPECT_TRUE(loop_->Post(id, std::move(answer)).ok());
      }
    }
  }

  void OnSnapshot(const ReplicaSnapshot& snapshot) {
    std::lock_guard<std::mutex> lock(mutex_);
    states_.push_back(snapshot.state);
    changed_.notify_all();
  }

  // Stops the loop's thread in Send, or lets it go on.
  void Hold(bool hold) {
    std::lock_guard<std::mutex> lock(mutex_);
    hold_ = hold;
    changed_.notify_all();
  }

  void WaitForState(ReplicaState state) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock,
                  [&] { return !states_.empty() && states_.back() == state; });
  }

  std::pair<std::shared_ptr<Stream>, std::future<void>> Submit(
      int64_t num_prompt, int64_t max_tokens) {
    auto stream = MakeStream(loop_->NewSequenceId(), num_prompt, max_tokens);
    auto sink = std::make_unique<PromisingSink>(stream);
    std::future<void> ended = sink->Ended();
    const absl::Status status = loop_->Submit(stream->spec, std::move(sink));
    EXPECT_TRUE(status.ok()) << status;
    return {stream, std::move(ended)};
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool hold_ = false;
  std::map<WorkerId, FakeWorker> workers_;
  std::vector<ReplicaState> states_;
  std::unique_ptr<ReplicaLoop> loop_;
};

TEST_F(ReplicaLoopTest, ServesSequencesSubmittedFromManyThreads) {
  Join();
  Join();
  WaitForState(ReplicaState::kServing);
  EXPECT_EQ(loop_->Snapshot()->state, ReplicaState::kServing);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 1; i <= 10; ++i) {
        auto [stream, ended] = Submit(7 * i + t, 5 * i);
        ended.wait();
        EXPECT_TRUE(stream->end.ok()) << stream->end.status();
        EXPECT_TRUE(stream->IsExact());
        EXPECT_EQ(static_cast<int>(stream->tokens.size()), 5 * i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ReplicaLoopTest, RefusesRequestsWithoutWorkersOnTheLoopsThread) {
  auto [stream, ended] = Submit(3, 3);
  ended.wait();
  EXPECT_THAT(std::string(MessageOf(stream->end.status())),
              HasSubstr("0 of 2 workers registered"));
}

TEST_F(ReplicaLoopTest, AClosedConnectionEndsItsGroupAndANewOneServes) {
  Join();
  const WorkerId second = Join();
  WaitForState(ReplicaState::kServing);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    workers_.at(second).options.silent_on_steps = true;
  }
  auto [stream, ended] = Submit(3, 3);
  loop_->PostClosed(second, "connection closed");
  ended.wait();
  EXPECT_EQ(stream->end.status().code(), absl::StatusCode::kUnavailable);
  WaitForState(ReplicaState::kWaitingForWorkers);
  Join();
  WaitForState(ReplicaState::kServing);
  auto [again, again_ended] = Submit(3, 3);
  again_ended.wait();
  EXPECT_TRUE(again->end.ok());
}

TEST_F(ReplicaLoopTest, CancelReachesARunningSequence) {
  const WorkerId first = Join();
  Join();
  WaitForState(ReplicaState::kServing);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    workers_.at(first).options.silent_on_steps = true;
  }
  auto [stream, ended] = Submit(3, 200);
  loop_->Cancel(stream->spec.id);
  ended.wait();
  EXPECT_EQ(stream->end.value(), FinishReason::kCancelled);
}

TEST_F(ReplicaLoopTest, AFullInboxRefusesRequestsAndMessagesButNotTheRest) {
  const WorkerId worker = Join();
  WaitForState(ReplicaState::kWaitingForWorkers);
  Hold(true);
  // Its registration's answer, or the refusal below, holds the thread.
  const WorkerId stranger = loop_->NewWorker();
  absl::Status status;
  size_t num_posted = 0;
  while (status.ok() && num_posted <= 2 * kMaxReplicaInbox) {
    status = loop_->Post(stranger, Heartbeat{});
    ++num_posted;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GE(num_posted, kMaxReplicaInbox);
  auto stream = MakeStream(loop_->NewSequenceId(), 3, 3);
  EXPECT_EQ(loop_->Submit(stream->spec, std::make_unique<RecordingSink>(stream))
                .code(),
            absl::StatusCode::kResourceExhausted);
  loop_->PostClosed(worker, "connection closed");
  Hold(false);
  loop_->Stop("over");
  EXPECT_EQ(stream->num_ends, 0) << "a refused sink is not called";
}

TEST_F(ReplicaLoopTest, StopEndsWhatWasAcceptedAndRefusesTheRest) {
  const WorkerId first = Join();
  Join();
  WaitForState(ReplicaState::kServing);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    workers_.at(first).options.silent_on_steps = true;
  }
  auto [stream, ended] = Submit(3, 200);
  loop_->Stop("the coordinator is shutting down");
  ended.wait();
  EXPECT_EQ(stream->num_ends, 1);
  EXPECT_EQ(stream->end.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(loop_->Snapshot()->state, ReplicaState::kWaitingForWorkers);
  const auto late = MakeStream(loop_->NewSequenceId(), 3, 3);
  EXPECT_EQ(
      loop_->Submit(late->spec, std::make_unique<RecordingSink>(late)).code(),
      absl::StatusCode::kUnavailable);
  EXPECT_EQ(loop_->Post(first, Heartbeat{}).code(),
            absl::StatusCode::kUnavailable);
  std::lock_guard<std::mutex> lock(mutex_);
  EXPECT_TRUE(workers_.empty()) << "all connections are closed";
}

}  // namespace
}  // namespace witan
