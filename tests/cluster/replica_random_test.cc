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

void RunSeed(uint64_t seed, Premises& premises) {
  std::mt19937_64 random(seed);
  const int num_ranks = 1 << (random() % 3);
  ReplicaOptions options = FakeReplicaOptions(num_ranks);
  options.planner.limits.num_blocks = 10;
  options.look_ahead = random() % 2 == 0;
  options.max_prefill_chunk_tokens = 1 + random() % 40;
  Replica replica(options);
  FakeWorkerGroup group(replica);
  std::vector<std::shared_ptr<Stream>> streams;
  Micros now = 0;
  for (int turn = 0; turn < 3000; ++turn) {
    now += random() % 100;
    const uint64_t action = random() % 400;
    const std::vector<WorkerId> workers = group.workers();
    if (action < 20 && static_cast<int>(workers.size()) < num_ranks + 1) {
      group.Connect(FakeTinyWorker(num_ranks));
    } else if (action < 22 && !workers.empty()) {
      ++premises.num_lost_while[static_cast<int>(replica.state())];
      group.Disconnect(workers[random() % workers.size()], "killed", now);
    } else if (action < 23 && !workers.empty()) {
      replica.OnMessage(workers[random() % workers.size()],
                        GroupFailed{replica.epoch(), Internal("hiccup")}, now);
    } else if (action < 40) {
      auto stream =
          MakeStream(streams.size() + 1, 1 + random() % 90, 1 + random() % 90);
      if (random() % 4 == 0) stream->stop_at = random() % 50;
      if (random() % 8 == 0) stream->spec.deadline = now + random() % 30000;
      streams.push_back(stream);
      replica.Submit(stream->spec, std::make_unique<RecordingSink>(stream),
                     now);
    } else if (action < 44 && !streams.empty()) {
      replica.Cancel(1 + random() % streams.size(), now);
    } else if (action < 150) {
      replica.Tick(now);
    } else {
      group.DeliverOne(random(), now);
    }
  }
  // Faults stop: everything finishes.
  while (static_cast<int>(group.workers().size()) < num_ranks) {
    group.Connect(FakeTinyWorker(num_ranks));
  }
  group.Settle(now);
  for (int i = 0; i < 2; ++i) {  // the longest pause, with heartbeats
    now += kMaxRegroupPauseMs * kMicrosPerMilli / 2;
    for (const WorkerId worker : group.workers()) {
      replica.OnMessage(worker, Heartbeat{}, now);
    }
    group.Settle(now);
  }
  ASSERT_EQ(replica.state(), ReplicaState::kServing)
      << replica.Snapshot().last_error;
  const auto last = MakeStream(streams.size() + 1, 20, 50);
  streams.push_back(last);
  replica.Submit(last->spec, std::make_unique<RecordingSink>(last), now);
  group.Settle(now);
  ASSERT_EQ(last->end.value(), FinishReason::kLength);

  ASSERT_TRUE(group.violation().ok()) << group.violation();
  const ReplicaSnapshot snapshot = replica.Snapshot();
  ASSERT_EQ(snapshot.num_live_sequences, 0);
  ASSERT_EQ(snapshot.scheduler.num_free_blocks, 9);
  for (const auto& stream : streams) {
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
  premises.num_failures += snapshot.num_group_failures;
  premises.num_preemptions += snapshot.scheduler.num_preemptions;
}

TEST(ReplicaRandomTest, EverySequenceEndsOnceAndExactWhateverHappens) {
  Premises premises;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    RunSeed(seed, premises);
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
  EXPECT_GT(premises.num_complete, 1000);
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
