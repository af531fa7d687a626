// Random lives of a Replica: workers come, die and are late at random moments,
// messages arrive in random order, and every sequence still ends exactly once,
// with tokens that are a prefix of the undisturbed ones.

#include <gtest/gtest.h>

#include <random>

#include "base/limits.h"
#include "base/status.h"
#include "tests/cluster/replica_fixture.h"

namespace witan {
namespace {

struct Premises {
  int64_t num_ended_by_loss = 0;
  int64_t num_refused = 0;
  int64_t num_complete = 0;
  int64_t num_failures = 0;
  int64_t num_lost_while[5] = {};
  int64_t num_preemptions = 0;
};

class RandomLife {
 public:
  explicit RandomLife(uint64_t seed)
      : random_(seed),
        num_ranks_(1 << (random_() % 3)),
        replica_(Options()),
        group_(replica_) {}

  void Run(Premises& premises) {
    for (int turn = 0; turn < 3000; ++turn) TakeTurn(premises);
    Recover();
    CheckAtTheEnd(premises);
  }

 private:
  ReplicaOptions Options() {
    ReplicaOptions options = FakeReplicaOptions(num_ranks_);
    options.planner.limits.num_blocks = 10;
    options.look_ahead = random_() % 2 == 0;
    options.max_prefill_chunk_tokens = 1 + random_() % 40;
    return options;
  }

  void TakeTurn(Premises& premises) {
    now_ += random_() % 100;
    const uint64_t action = random_() % 400;
    const std::vector<WorkerId> workers = group_.workers();
    if (action < 20 && static_cast<int>(workers.size()) < num_ranks_ + 1) {
      group_.Connect(FakeTinyWorker(num_ranks_));
    } else if (action < 22 && !workers.empty()) {
      ++premises.num_lost_while[static_cast<int>(replica_.state())];
      group_.Disconnect(workers[random_() % workers.size()], "killed", now_);
    } else if (action < 23 && !workers.empty()) {
      replica_.OnMessage(workers[random_() % workers.size()],
                         GroupFailed{replica_.epoch(), Internal("hiccup")},
                         now_);
    } else if (action < 40) {
      SubmitOne();
    } else if (action < 44 && !streams_.empty()) {
      replica_.Cancel(1 + random_() % streams_.size(), now_);
    } else if (action < 150) {
      replica_.Tick(now_);
    } else {
      group_.DeliverOne(random_(), now_);
    }
  }

  void SubmitOne() {
    auto stream =
        MakeStream(streams_.size() + 1, 1 + random_() % 90, 1 + random_() % 90);
    if (random_() % 4 == 0) stream->stop_at = random_() % 50;
    if (random_() % 8 == 0) stream->spec.deadline = now_ + random_() % 30000;
    streams_.push_back(stream);
    replica_.Submit(stream->spec, std::make_unique<RecordingSink>(stream),
                    now_);
  }

  // Faults stop: the replica serves again, and everything finishes.
  void Recover() {
    while (static_cast<int>(group_.workers().size()) < num_ranks_) {
      group_.Connect(FakeTinyWorker(num_ranks_));
    }
    group_.Settle(now_);
    for (int i = 0; i < 2; ++i) {  // the longest pause, with heartbeats
      now_ += kMaxRegroupPauseMs * kMicrosPerMilli / 2;
      for (const WorkerId worker : group_.workers()) {
        replica_.OnMessage(worker, Heartbeat{}, now_);
      }
      group_.Settle(now_);
    }
    ASSERT_EQ(replica_.state(), ReplicaState::kServing)
        << replica_.Snapshot().last_error;
    const auto last = MakeStream(streams_.size() + 1, 20, 50);
    streams_.push_back(last);
    replica_.Submit(last->spec, std::make_unique<RecordingSink>(last), now_);
    group_.Settle(now_);
    ASSERT_EQ(last->end.value(), FinishReason::kLength);
  }

  void CheckAtTheEnd(Premises& premises) {
    ASSERT_TRUE(group_.violation().ok()) << group_.violation();
    const ReplicaSnapshot snapshot = replica_.Snapshot();
    ASSERT_EQ(snapshot.num_live_sequences, 0);
    ASSERT_EQ(snapshot.scheduler.num_free_blocks, 9);
    premises.num_failures += snapshot.num_group_failures;
    premises.num_preemptions += snapshot.scheduler.num_preemptions;
    for (const auto& stream : streams_) {
      ASSERT_EQ(stream->num_ends, 1) << "sequence " << stream->spec.id;
      ASSERT_TRUE(stream->IsExact()) << "sequence " << stream->spec.id;
      const int64_t num_tokens = static_cast<int64_t>(stream->tokens.size());
      ASSERT_EQ(stream->usage.num_output_tokens, num_tokens);
      if (stream->end.ok()) {
        const bool stopped =
            stream->stop_at >= 0 && num_tokens == stream->stop_at + 1;
        const bool full = num_tokens == stream->spec.stop.max_tokens;
        ASSERT_EQ(*stream->end == FinishReason::kStop, stopped);
        ASSERT_EQ(*stream->end == FinishReason::kLength, full && !stopped);
        ++premises.num_complete;
      } else if (absl::IsUnavailable(stream->end.status())) {
        ++(num_tokens > 0 ? premises.num_ended_by_loss : premises.num_refused);
      } else {
        ASSERT_TRUE(absl::IsDeadlineExceeded(stream->end.status()))
            << stream->end.status();
      }
    }
  }

  std::mt19937_64 random_;
  const int num_ranks_;
  Replica replica_;
  FakeWorkerGroup group_;
  std::vector<std::shared_ptr<Stream>> streams_;
  Micros now_ = 0;
};

TEST(ReplicaRandomTest, EverySequenceEndsOnceAndExactWhateverHappens) {
  Premises premises;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    RandomLife(seed).Run(premises);
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
  EXPECT_GT(premises.num_complete, 500);
  EXPECT_GT(premises.num_ended_by_loss, 100);
  EXPECT_GT(premises.num_refused, 100);
  EXPECT_GT(premises.num_failures, 100);
  EXPECT_GT(premises.num_preemptions, 20);
  for (const int64_t num_lost : premises.num_lost_while) {
    EXPECT_GT(num_lost, 10);
  }
}

}  // namespace
}  // namespace witan
