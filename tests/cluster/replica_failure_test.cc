// A Replica whose workers die, fail, are late or answer wrongly.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/cluster/replica.h"
#include "tests/cluster/replica_fixture.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

constexpr Micros kSecond = kMicrosPerSecond;

// --- A worker goes away -----------------------------------------------------

class LossTest
    : public ReplicaTest,
      public ::testing::WithParamInterface<std::tuple<ReplicaState, bool>> {};

TEST_P(LossTest, IsSurvivedInEveryStateAndTheNextGroupServesTheSameTokens) {
  const auto [state, lose_rank_0] = GetParam();
  first_ = Join();
  second_ = Join();
  ASSERT_TRUE(group_.SettleUntil(state, now_));
  std::shared_ptr<Stream> running;
  if (state == ReplicaState::kServing) {
    running = Submit(1, 5, 100);
    const auto queued = Submit(2, 5, 100);
    replica_.Tick(now_);
    for (int i = 0; i < 20; ++i) group_.DeliverOne(i, now_);
    EXPECT_GT(running->tokens.size(), 0u);
  }
  const WorkerId lost = lose_rank_0 ? first_ : second_;
  const WorkerId survivor = lose_rank_0 ? second_ : first_;
  group_.Disconnect(lost, "connection closed", now_);
  const std::string reason = fmt::format(
      "worker {} (rank {}, pid 123 on host h) went away: "
      "connection closed",
      lost, lose_rank_0 ? 0 : 1);
  EXPECT_EQ(LastError(), reason);
  if (running != nullptr) {
    EXPECT_EQ(running->end.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(Message(*running), reason + "; try again");
    EXPECT_TRUE(running->IsExact());
    EXPECT_EQ(running->usage.num_output_tokens,
              static_cast<int64_t>(running->tokens.size()));
  }
  group_.Settle(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
  ASSERT_EQ(group_.worker(survivor).aborts.size(), 1u);
  EXPECT_EQ(group_.worker(survivor).aborts[0].epoch, 1u);
  EXPECT_EQ(group_.worker(survivor).aborts[0].reason, reason);
  EXPECT_EQ(Message(*Submit(3, 3, 1)), "1 of 2 workers registered; try again");

  // A worker that comes back is enough; there is no pause.
  Join();
  group_.Settle(now_);
  ASSERT_EQ(replica_.state(), ReplicaState::kServing) << LastError();
  EXPECT_EQ(replica_.epoch(), 2u);
  EXPECT_EQ(group_.worker(survivor).group->rank, 0) << "it registered first";
  EXPECT_EQ(LastError(), "");
  const auto again = Submit(4, 5, 100);
  group_.Settle(now_);
  EXPECT_EQ(again->end.value(), FinishReason::kLength);
  EXPECT_TRUE(again->IsExact());
  EXPECT_TRUE(group_.violation().ok()) << group_.violation();
  const ReplicaSnapshot snapshot = replica_.Snapshot();
  EXPECT_EQ(snapshot.num_group_failures, 1);
  EXPECT_EQ(snapshot.lost_workers.at(0).lost_cause, "connection closed");
  EXPECT_EQ(snapshot.scheduler.num_finished, running != nullptr ? 3 : 1)
      << "counters go on over epochs";
}

INSTANTIATE_TEST_SUITE_P(
    AllStates, LossTest,
    ::testing::Combine(::testing::Values(ReplicaState::kPreparing,
                                         ReplicaState::kConnecting,
                                         ReplicaState::kKnownAnswer,
                                         ReplicaState::kServing),
                       ::testing::Bool()));

TEST_F(ReplicaTest, MessagesOfOldEpochsChangeNothing) {
  Serve();
  group_.Disconnect(second_, "connection closed", now_);
  second_ = Join();
  ASSERT_TRUE(group_.SettleUntil(ReplicaState::kPreparing, now_));
  ASSERT_EQ(replica_.epoch(), 2u);
  GroupPrepared prepared;
  prepared.epoch = 1;
  for (const Epoch epoch : {1, 3}) {
    prepared.epoch = epoch;
    replica_.OnMessage(first_, GroupFailed{epoch, Internal("zombie")}, now_);
    replica_.OnMessage(first_, prepared, now_);
    replica_.OnMessage(first_, GroupConnected{epoch}, now_);
    replica_.OnMessage(first_, StepResult{epoch, 2, {}, {}}, now_);
    replica_.OnMessage(first_, LoadProgress{epoch, 7, 7}, now_);
  }
  EXPECT_EQ(replica_.state(), ReplicaState::kPreparing);
  EXPECT_EQ(replica_.epoch(), 2u);
  EXPECT_EQ(replica_.Snapshot().ranks[0].load_bytes_total, 0);
  group_.Settle(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kServing);
}

TEST_F(ReplicaTest, ASpareWorkerTakesOverWithoutWaiting) {
  Serve();
  const WorkerId spare = Join();
  group_.Settle(now_);
  ASSERT_EQ(replica_.Snapshot().idle_workers.size(), 1u);
  group_.Disconnect(first_, "connection closed", now_);
  group_.Settle(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kServing);
  EXPECT_EQ(group_.worker(second_).group->rank, 0);
  EXPECT_EQ(group_.worker(spare).group->rank, 1);
}

TEST_F(ReplicaTest, ASpareWorkerThatGoesAwayHurtsNobody) {
  Serve();
  const auto stream = Submit(1, 5, 100);
  const WorkerId spare = Join();
  group_.Settle(now_);
  group_.Disconnect(spare, "connection closed", now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kServing);
  EXPECT_EQ(replica_.epoch(), 1u);
  EXPECT_EQ(stream->end.value(), FinishReason::kLength);
}

TEST_F(ReplicaTest, TheAbortGoesToTheSurvivorsOnly) {
  Serve();
  replica_.TakeOutputs();
  replica_.OnClosed(second_, "connection closed", now_);
  const std::vector<ReplicaOutput> outputs = replica_.TakeOutputs();
  ASSERT_EQ(outputs.size(), 1u);
  const SendMessage& send = std::get<SendMessage>(outputs[0]);
  EXPECT_EQ(send.workers, std::vector<WorkerId>{first_});
  EXPECT_EQ(std::get<AbortGroup>(send.message).epoch, 1u);
}

TEST_F(ReplicaTest, AWorkerThatReportsAFailureIsNamedAndGetsItsNextChance) {
  Serve();
  const auto stream = Submit(1, 5, 100);
  replica_.Tick(now_);
  replica_.OnMessage(second_, GroupFailed{1, Internal("disk on fire")}, now_);
  EXPECT_EQ(Message(*stream),
            "worker 2 (rank 1, pid 123 on host h) failed: "
            "disk on fire; try again");
  group_.Settle(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kServing);
  EXPECT_EQ(replica_.epoch(), 2u);
}

TEST_F(ReplicaTest, AWorkerThatIsSilentIsGivenUpAndHeartbeatsKeepIt) {
  Serve();
  const Micros timeout = kWorkerTimeoutMs * kMicrosPerMilli;
  const Micros silent_since = now_;
  // One look whether the coordinator itself runs, then the end.
  now_ = replica_.NextWakeup();
  EXPECT_LT(now_, silent_since + timeout);
  replica_.OnMessage(first_, Heartbeat{}, now_);
  replica_.Tick(now_);
  EXPECT_EQ(replica_.NextWakeup(), silent_since + timeout);
  now_ = silent_since + timeout - 1;
  replica_.Tick(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kServing);
  now_ = silent_since + timeout;
  replica_.Tick(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
  EXPECT_EQ(LastError(),
            "worker 2 (rank 1, pid 123 on host h) went away: no "
            "message for 10 s");
  group_.Settle(now_);
  EXPECT_EQ(group_.closed(second_).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(group_.closed(first_).ok());
  // Its late messages are those of a stranger.
  replica_.OnMessage(second_, Heartbeat{}, now_);
  const std::vector<ReplicaOutput> outputs = replica_.TakeOutputs();
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(std::get<CloseWorker>(outputs[0]).worker, second_);
}

TEST_F(ReplicaTest, AConnectionThatNeverRegistersIsClosed) {
  Serve();
  constexpr WorkerId kMute = 77;
  replica_.OnConnected(kMute, now_);
  const Micros end = now_ + kRegistrationTimeoutMs * kMicrosPerMilli;
  while (now_ < end) {
    replica_.Tick(now_);
    EXPECT_TRUE(group_.closed(kMute).ok());
    now_ = std::min(now_ + kSecond, end);
    replica_.OnMessage(first_, Heartbeat{}, now_);
    replica_.OnMessage(second_, Heartbeat{}, now_);
  }
  group_.Settle(now_);
  EXPECT_EQ(group_.closed(kMute).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(MessageOf(group_.closed(kMute))),
              HasSubstr("did not register within 10 s"));
  EXPECT_EQ(replica_.state(), ReplicaState::kServing);
  EXPECT_EQ(replica_.epoch(), 1u);
}

// --- Failures on the way ----------------------------------------------------

TEST_F(ReplicaTest, ALoadFailureIsReportedAndTriedAgainAfterGrowingPauses) {
  Join();
  FakeWorkerOptions broken = FakeTinyWorker(2);
  broken.load_failure = NotFound("model-00002.safetensors does not exist");
  const WorkerId second = Join(broken);
  group_.Settle(now_);
  EXPECT_EQ(LastError(),
            "worker 2 (rank 1, pid 123 on host h) failed: "
            "model-00002.safetensors does not exist");
  EXPECT_THAT(Message(*Submit(1, 3, 1)),
              HasSubstr("try again after: worker 2 (rank 1, pid 123 on host h) "
                        "failed: model-00002.safetensors does not exist"));
  Micros pause = kMinRegroupPauseMs * kMicrosPerMilli;
  for (Epoch epoch = 1; epoch <= 12; ++epoch) {
    EXPECT_EQ(replica_.epoch(), epoch);
    EXPECT_EQ(replica_.NextWakeup(),
              std::min(now_ + pause, replica_.NextWakeup()));
    group_.Settle(now_ + pause - 1);
    EXPECT_EQ(replica_.epoch(), epoch) << "too early";
    now_ += pause;
    for (const WorkerId worker : group_.workers()) {
      replica_.OnMessage(worker, Heartbeat{}, now_);
    }
    group_.Settle(now_);
    pause = std::min(2 * pause, kMaxRegroupPauseMs * kMicrosPerMilli);
  }
  // The file is there at last.
  group_.worker(second).options.load_failure.reset();
  now_ += pause;
  for (const WorkerId worker : group_.workers()) {
    replica_.OnMessage(worker, Heartbeat{}, now_);
  }
  group_.Settle(now_);
  ASSERT_EQ(replica_.state(), ReplicaState::kServing);
  // After a group that served, pauses begin with the shortest again.
  group_.worker(second).options.load_failure = NotFound("gone again");
  replica_.OnMessage(second, GroupFailed{replica_.epoch(), Internal("oops")},
                     now_);
  group_.Settle(now_);
  EXPECT_EQ(replica_.NextWakeup(), now_ + kMinRegroupPauseMs * kMicrosPerMilli);
}

TEST_F(ReplicaTest, AStepDeadlineNamesTheSilentRank) {
  Serve();
  now_ += 5 * kSecond;  // the deadline counts from the step, not from before
  const auto stream = Submit(1, 5, 100);
  group_.worker(second_).options.silent_on_steps = true;
  group_.Settle(now_);
  // Both are alive, one does not answer.
  const Micros timeout = kStepTimeoutMs * kMicrosPerMilli;
  const Micros started = now_;
  for (; now_ < started + timeout - kSecond; now_ += kSecond) {
    replica_.OnMessage(first_, Heartbeat{}, now_);
    replica_.OnMessage(second_, Heartbeat{}, now_);
    replica_.Tick(now_);
  }
  EXPECT_EQ(replica_.state(), ReplicaState::kServing);
  EXPECT_EQ(stream->num_ends, 0);
  EXPECT_EQ(replica_.NextWakeup(), started + timeout);
  replica_.Tick(started + timeout);
  EXPECT_EQ(Message(*stream),
            "worker 2 (rank 1, pid 123 on host h) did not "
            "answer step 2 within 120 s; try again");
}

TEST_F(ReplicaTest, RanksThatDoNotLoadOrConnectInTimeAreNamed) {
  FakeWorkerOptions silent = FakeTinyWorker(2);
  silent.silent_on_prepare = true;
  Join();
  const WorkerId second = Join(silent);
  group_.Settle(now_);
  const auto wait = [&](Micros timeout) {
    const Micros end = now_ + timeout;
    for (now_ += kSecond; now_ < end; now_ += kSecond) {
      for (const WorkerId worker : group_.workers()) {
        replica_.OnMessage(worker, Heartbeat{}, now_);
      }
      group_.Settle(now_);
    }
    EXPECT_EQ(LastError(), "");
    now_ = end;
    replica_.Tick(now_);
  };
  wait(kLoadTimeoutMs * kMicrosPerMilli);
  EXPECT_EQ(LastError(),
            "worker 2 (rank 1, pid 123 on host h) did not load "
            "its shard within 1800 s");
  group_.Disconnect(second, "killed", now_);
  silent.silent_on_prepare = false;
  silent.silent_on_connect = true;
  Join(silent);
  group_.Settle(now_);
  ASSERT_EQ(replica_.state(), ReplicaState::kConnecting);
  const std::string earlier = LastError();
  const Micros end = now_ + kRendezvousTimeoutMs * kMicrosPerMilli;
  while (now_ < end) {
    EXPECT_EQ(LastError(), earlier);
    now_ += kSecond;
    for (const WorkerId worker : group_.workers()) {
      replica_.OnMessage(worker, Heartbeat{}, now_);
    }
    replica_.Tick(now_);
  }
  EXPECT_EQ(LastError(),
            "worker 3 (rank 1, pid 123 on host h) did not connect "
            "to the other ranks within 30 s");
}

TEST_F(ReplicaTest, AnAnswerToAnotherStepEndsTheGroup) {
  Serve();
  group_.worker(second_).options.wrong_step_number_at = 5;
  const auto stream = Submit(1, 5, 100);
  while (stream->num_ends == 0) {
    replica_.Tick(now_);
    ASSERT_TRUE(group_.DeliverOne(0, now_));
  }
  EXPECT_EQ(Message(*stream),
            "worker 2 (rank 1, pid 123 on host h) answered "
            "step 6 where step 5 was expected; try again");
}

TEST_F(ReplicaTest, AnAnswerToAStepThatWasNeverSentEndsTheGroup) {
  Serve();
  replica_.OnMessage(second_, StepResult{1, 2, {}, {}}, now_);
  EXPECT_THAT(LastError(), HasSubstr("answered step 2, which was not sent"));
  group_.Settle(now_);
  ASSERT_EQ(replica_.epoch(), 2u);
  Submit(1, 5, 100);
  replica_.Tick(now_);  // two steps are in flight
  for (StepNumber step = 2; step <= 4; ++step) {
    replica_.OnMessage(second_, StepResult{2, step, {}, {}}, now_);
  }
  EXPECT_THAT(LastError(), HasSubstr("answered step 4, which was not sent"));
}

TEST_F(ReplicaTest, TokensOutsideTheVocabularyEndTheGroup) {
  for (const TokenId bad : {-1, 320, 1 << 30}) {
    Serve();
    const auto stream = Submit(bad + 5, 5, 100);
    replica_.Tick(now_);
    StepResult result{replica_.epoch(), 2, {}, {}};
    replica_.OnMessage(second_, result, now_);
    result.tokens.resize(1);
    result.tokens[0].token_id = bad;
    replica_.OnMessage(first_, result, now_);
    EXPECT_THAT(Message(*stream), HasSubstr("of a vocabulary of 320"));
    EXPECT_EQ(stream->tokens.size(), 0u);
    group_.Disconnect(first_, "end", now_);
    group_.Disconnect(second_, "end", now_);
  }
}

TEST_F(ReplicaTest, AResultWithTheWrongNumberOfTokensEndsTheGroup) {
  Serve();
  const auto stream = Submit(1, 5, 100);
  replica_.Tick(now_);
  replica_.OnMessage(second_, StepResult{1, 2, {}, {}}, now_);
  replica_.OnMessage(first_, StepResult{1, 2, {}, {}}, now_);
  EXPECT_THAT(Message(*stream), HasSubstr("step 2 brought 0 tokens instead of "
                                          "1"));
}

TEST_F(ReplicaTest, ShutdownEndsSequencesAndClosesWorkers) {
  Serve();
  const auto stream = Submit(1, 5, 100);
  replica_.Tick(now_);
  replica_.Shutdown("the coordinator is shutting down", now_);
  EXPECT_EQ(stream->end.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(*stream), HasSubstr("shutting down"));
  EXPECT_FALSE(group_.DeliverOne(0, now_)) << "links are closed";
  EXPECT_EQ(group_.workers().size(), 0u);
  EXPECT_EQ(replica_.NextWakeup(), std::numeric_limits<Micros>::max());
}

}  // namespace
}  // namespace witan
