#include "coordinator/cluster/replica.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/limits.h"
#include "base/status.h"
#include "tests/cluster/replica_fixture.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr Micros kSecond = kMicrosPerSecond;

class ReplicaTest : public ::testing::Test {
 protected:
  WorkerId Join() { return Join(FakeTinyWorker(2)); }
  WorkerId Join(const FakeWorkerOptions& options) {
    return group_.Connect(options);
  }
  // Two workers that serve.
  void Serve() {
    first_ = Join();
    second_ = Join();
    group_.Settle(now_);
    ASSERT_EQ(replica_.state(), ReplicaState::kServing) << LastError();
  }
  std::shared_ptr<Stream> Submit(SequenceId id, int64_t num_prompt,
                                 int64_t max_tokens, int64_t stop_at = -1) {
    auto stream = MakeStream(id, num_prompt, max_tokens);
    stream->stop_at = stop_at;
    SubmitStream(stream);
    return stream;
  }
  void SubmitStream(const std::shared_ptr<Stream>& stream) {
    replica_.Submit(stream->spec, std::make_unique<RecordingSink>(stream),
                    now_);
  }
  std::string LastError() { return replica_.Snapshot().last_error; }
  static std::string Message(const Stream& stream) {
    EXPECT_EQ(stream.num_ends, 1);
    return std::string(MessageOf(stream.end.status()));
  }

  Micros now_ = 1000;
  Replica replica_{FakeReplicaOptions(2)};
  FakeWorkerGroup group_{replica_};
  WorkerId first_ = 0;
  WorkerId second_ = 0;
};

TEST_F(ReplicaTest, ServesOnceEveryRankLoadedConnectedAndAnswered) {
  const WorkerId first = Join();
  group_.Settle(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
  EXPECT_EQ(replica_.Snapshot().not_serving_reason,
            "1 of 2 workers registered");
  const WorkerId second = Join();
  ASSERT_TRUE(group_.SettleUntil(ReplicaState::kPreparing, now_));
  EXPECT_EQ(replica_.epoch(), 1u);
  ASSERT_TRUE(group_.SettleUntil(ReplicaState::kConnecting, now_));
  ASSERT_TRUE(group_.SettleUntil(ReplicaState::kKnownAnswer, now_));
  ASSERT_TRUE(group_.SettleUntil(ReplicaState::kServing, now_));

  const ReplicaSnapshot snapshot = replica_.Snapshot();
  EXPECT_EQ(snapshot.numerics_id, "numerics-1");
  EXPECT_EQ(snapshot.weights_id.size(), 64u);
  EXPECT_EQ(snapshot.not_serving_reason, "");
  ASSERT_EQ(snapshot.ranks.size(), 2u);
  EXPECT_EQ(snapshot.ranks[1].worker.id, second);
  EXPECT_EQ(snapshot.ranks[1].load_bytes_done, 1000);
  EXPECT_EQ(snapshot.ranks[1].num_threads, 2);
  EXPECT_EQ(snapshot.ranks[1].kv_bytes, 3300);
  const PrepareGroup& group = *group_.worker(first).group;
  EXPECT_EQ(group.rank, 0);
  EXPECT_EQ(group.tp, 2);
  EXPECT_EQ(group.model_directory, "/models/tiny");
  EXPECT_EQ(group.num_blocks, 33);
  EXPECT_EQ(group.transport, Transport::kSharedMemory);
  EXPECT_EQ(group_.worker(second).group->rank, 1);
  EXPECT_EQ(group_.worker(second).num_steps, 1) << "the known answer";
}

TEST_F(ReplicaTest, TokensReachTheirSinkInOrderAndTheEndComesOnce) {
  Serve();
  std::vector<std::shared_ptr<Stream>> streams;
  for (SequenceId id = 1; id <= 20; ++id) {
    streams.push_back(Submit(id, 3 * id, 2 * id));
  }
  group_.Settle(now_);
  for (const auto& stream : streams) {
    EXPECT_EQ(stream->num_ends, 1);
    ASSERT_TRUE(stream->end.ok()) << stream->end.status();
    EXPECT_EQ(*stream->end, FinishReason::kLength);
    EXPECT_EQ(static_cast<int64_t>(stream->tokens.size()),
              stream->spec.stop.max_tokens);
    EXPECT_TRUE(stream->IsExact());
    EXPECT_EQ(stream->usage.num_output_tokens, stream->spec.stop.max_tokens);
  }
  EXPECT_TRUE(group_.violation().ok()) << group_.violation();
  const ReplicaSnapshot snapshot = replica_.Snapshot();
  EXPECT_EQ(snapshot.num_live_sequences, 0);
  EXPECT_EQ(snapshot.scheduler.num_free_blocks, 32);
  EXPECT_GT(snapshot.scheduler.num_look_ahead_steps, 0);
}

TEST_F(ReplicaTest, InputsOfOneBatchShareAStep) {
  Serve();
  Submit(1, 3, 1);
  Submit(2, 3, 1);
  replica_.Tick(now_);
  EXPECT_EQ(replica_.Snapshot().scheduler.num_steps, 1);
  EXPECT_EQ(replica_.Snapshot().scheduler.num_running, 2);
}

TEST_F(ReplicaTest, ASinkThatHadEnoughStopsItsSequenceOnly) {
  Serve();
  const auto stopped = Submit(1, 5, 30, /*stop_at=*/3);
  const auto at_the_end = Submit(2, 5, 4, /*stop_at=*/3);
  const auto other = Submit(3, 5, 30);
  group_.Settle(now_);
  for (const auto& stream : {stopped, at_the_end}) {
    EXPECT_EQ(stream->num_ends, 1);
    EXPECT_EQ(stream->end.value(), FinishReason::kStop);
    EXPECT_EQ(stream->tokens.size(), 4u);
    EXPECT_EQ(stream->usage.num_output_tokens, 4);
    EXPECT_TRUE(stream->IsExact());
  }
  EXPECT_EQ(other->end.value(), FinishReason::kLength);
  EXPECT_TRUE(other->IsExact());
  EXPECT_EQ(replica_.Snapshot().scheduler.num_free_blocks, 32);
}

TEST_F(ReplicaTest, CancelEndsASequenceAndOnlyOnce) {
  Serve();
  const auto stream = Submit(1, 5, 100);
  replica_.Tick(now_);
  replica_.Cancel(1, now_);
  replica_.Cancel(1, now_);
  replica_.Cancel(77, now_);
  group_.Settle(now_);
  EXPECT_EQ(stream->num_ends, 1);
  EXPECT_EQ(stream->end.value(), FinishReason::kCancelled);
  EXPECT_EQ(replica_.Snapshot().scheduler.num_free_blocks, 32);
}

TEST_F(ReplicaTest, WhatTheSchedulerRefusesEndsAtOnce) {
  Serve();
  const auto stream = Submit(1, 200, 100);
  EXPECT_EQ(stream->end.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(stream->num_ends, 1);
  EXPECT_EQ(replica_.Snapshot().num_live_sequences, 0);
}

TEST_F(ReplicaTest, DeadlinesWakeTheReplicaAndEndTheSequence) {
  Serve();
  auto stream = MakeStream(1, 5, 100);
  stream->spec.deadline = now_ + 500;
  SubmitStream(stream);
  EXPECT_EQ(replica_.NextWakeup(), now_ + 500);
  replica_.Tick(now_);
  replica_.Tick(now_ + 500);
  EXPECT_EQ(stream->end.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(stream->num_ends, 1);
}

TEST_F(ReplicaTest, RefusesRequestsUntilItServesAndSaysWhatIsMissing) {
  EXPECT_EQ(Message(*Submit(1, 3, 1)), "0 of 2 workers registered; try again");
  Join();
  group_.Settle(now_);
  const auto stream = Submit(2, 3, 1);
  EXPECT_EQ(stream->end.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Message(*stream), "1 of 2 workers registered; try again");
  FakeWorkerOptions slow = FakeTinyWorker(2);
  slow.silent_on_prepare = true;
  const WorkerId second = Join(slow);
  group_.Settle(now_);
  replica_.OnMessage(second, LoadProgress{1, 0, 1000}, now_);
  EXPECT_EQ(Message(*Submit(3, 3, 1)),
            "the workers are loading the model, 50 % done; try again");
}

// --- A worker goes away
// --------------------------------------------------------

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
  EXPECT_EQ(replica_.NextWakeup(), now_ + timeout);
  now_ += timeout - 1;
  replica_.OnMessage(first_, Heartbeat{}, now_);
  replica_.Tick(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kServing);
  replica_.Tick(now_ + 1);
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

// --- Registration and identity
// ---------------------------------------------------

TEST_F(ReplicaTest, AWorkerOfAnotherBuildIsClosedWithBothIds) {
  FakeWorkerOptions other = FakeTinyWorker(2);
  other.registration.build_id = "build-b";
  const WorkerId worker = Join(other);
  group_.Settle(now_);
  EXPECT_FALSE(group_.connected(worker));
  EXPECT_THAT(std::string(MessageOf(group_.closed(worker))),
              AllOf(HasSubstr("build-a"), HasSubstr("build-b")));
  Serve();  // nobody else is hurt
}

TEST_F(ReplicaTest, AConnectionThatDoesNotRegisterFirstIsClosed) {
  replica_.OnMessage(5, Heartbeat{}, now_);
  const std::vector<ReplicaOutput> outputs = replica_.TakeOutputs();
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(std::get<CloseWorker>(outputs[0]).worker, 5u);
}

TEST_F(ReplicaTest, RanksWithDifferentNumericsAreRefusedWithBothIds) {
  Join();
  FakeWorkerOptions other = FakeTinyWorker(2);
  other.numerics_id = "numerics-2";
  Join(other);
  group_.Settle(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
  EXPECT_THAT(LastError(),
              AllOf(HasSubstr("numerics-1 vs numerics-2"),
                    HasSubstr("worker 1 (rank 0"),
                    HasSubstr("worker 2 (rank 1"), HasSubstr("--cpu-path")));
}

TEST_F(ReplicaTest, WorkersOfDifferentCpuPathsGetNoRanks) {
  Join();
  FakeWorkerOptions other = FakeTinyWorker(2);
  other.registration.cpu_path = "avx512bf16";
  Join(other);
  group_.Settle(now_);
  EXPECT_EQ(replica_.epoch(), 0u);
  EXPECT_THAT(LastError(), HasSubstr("workers 1 and 2 would compute different "
                                     "bits: avx2 vs avx512bf16"));
  EXPECT_THAT(Message(*Submit(1, 3, 1)), HasSubstr("avx2 vs avx512bf16"));
}

TEST_F(ReplicaTest, RanksWithDifferentWeightsAreRefusedWithBothHashes) {
  Join();
  FakeWorkerOptions other = FakeTinyWorker(2);
  // A piece that both ranks hold.
  for (auto& [piece, hash] : other.piece_hashes[1]) {
    if (!other.piece_hashes[0].contains(piece)) continue;
    const std::string good = hash;
    hash.assign(64, 'e');
    Join(other);
    group_.Settle(now_);
    EXPECT_THAT(LastError(), AllOf(HasSubstr(piece), HasSubstr(good),
                                   HasSubstr(hash), HasSubstr("worker 2")));
    EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
    return;
  }
  FAIL() << "the ranks share no piece";
}

TEST_F(ReplicaTest, AMissingPieceIsRefused) {
  Join();
  FakeWorkerOptions other = FakeTinyWorker(2);
  // One that only rank 1 holds.
  for (const auto& [piece, hash] : other.piece_hashes[1]) {
    if (other.piece_hashes[0].contains(piece)) continue;
    const std::string missing = piece;
    other.piece_hashes[1].erase(missing);
    Join(other);
    group_.Settle(now_);
    EXPECT_THAT(LastError(), HasSubstr(missing));
    EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
    return;
  }
  FAIL() << "rank 1 holds nothing of its own";
}

TEST_F(ReplicaTest, LaterGroupsMustHoldTheWeightsOfTheFirst) {
  Serve();
  const std::string before = replica_.Snapshot().weights_id;
  group_.Disconnect(second_, "connection closed", now_);
  FakeWorkerOptions other = FakeTinyWorker(2);
  for (const auto& [piece, hash] : TinyPieces(2)[1]) {
    if (!other.piece_hashes[0].contains(piece)) {
      other.piece_hashes[1][piece].assign(64, 'e');
      break;
    }
  }
  Join(other);
  group_.Settle(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
  EXPECT_THAT(LastError(), AllOf(HasSubstr("the weights in /models/tiny "
                                           "changed: weights id " +
                                           before + " in epoch 1"),
                                 HasSubstr("restart the coordinator")));
  EXPECT_EQ(replica_.Snapshot().weights_id, before);
}

TEST_F(ReplicaTest, LaterGroupsMustComputeTheBitsOfTheFirst) {
  Serve();
  group_.Disconnect(first_, "connection closed", now_);
  group_.Disconnect(second_, "connection closed", now_);
  FakeWorkerOptions other = FakeTinyWorker(2);
  other.numerics_id = "numerics-2";
  Join(other);
  Join(other);
  group_.Settle(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
  EXPECT_THAT(LastError(), HasSubstr("numerics id numerics-1 in epoch 1, "
                                     "numerics-2 now"));
}

TEST_F(ReplicaTest, AnotherKnownAnswerThanTheFirstGroupsIsRefused) {
  Serve();
  group_.Disconnect(first_, "connection closed", now_);
  group_.worker(second_).options.known_answer_perturbation = 1;
  const WorkerId third = Join();
  group_.Settle(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
  EXPECT_THAT(LastError(), AllOf(HasSubstr("worker 2 (rank 0"),
                                 HasSubstr("the known-answer step gave token"),
                                 HasSubstr("in epoch 1")));
  // Once the culprit is gone, the first answer is still the right one.
  group_.Disconnect(second_, "connection closed", now_);
  Join();
  group_.Settle(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kServing) << LastError();
  EXPECT_EQ(group_.worker(third).group->rank, 0);
}

// --- Failures on the way
// -----------------------------------------------------------

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
  EXPECT_EQ(replica_.state(), ReplicaState::kServing);
}

TEST_F(ReplicaTest, AStepDeadlineNamesTheSilentRank) {
  Serve();
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
  now_ += kRendezvousTimeoutMs * kMicrosPerMilli;
  for (const WorkerId worker : group_.workers()) {
    replica_.OnMessage(worker, Heartbeat{}, now_);
  }
  replica_.Tick(now_);
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
  EXPECT_THAT(LastError(), HasSubstr("answered step 2"));
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
