#include "coordinator/cluster/replica.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "tests/cluster/replica_fixture.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

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

// --- Registration and identity ----------------------------------------------

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

TEST_F(ReplicaTest, ARankThatReadAnotherConfigIsRefusedWithTheField) {
  Join();
  FakeWorkerOptions other = FakeTinyWorker(2);
  ModelConfig config = TinyModelConfig();
  config.sliding_window = 64;
  config.windowed_layers = {true, true};
  other.config = ConfigText(config);
  Join(other);
  group_.Settle(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
  EXPECT_THAT(LastError(),
              AllOf(HasSubstr("worker 2 (rank 1"), HasSubstr("/models/tiny"),
                    HasSubstr("sliding_window is 64 and 0")));
}

TEST_F(ReplicaTest, RanksThatAgreeOnAnotherConfigThanTheCoordinatorAreRefused) {
  FakeWorkerOptions other = FakeTinyWorker(2);
  ModelConfig config = TinyModelConfig();
  config.experts_per_token = 3;
  other.config = ConfigText(config);
  Join(other);
  Join(other);
  group_.Settle(now_);
  EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
  EXPECT_THAT(LastError(), HasSubstr("num_experts_per_tok is 3 and 2"));
}

TEST_F(ReplicaTest, WorkersOfDifferentCpuPathsGetNoRanks) {
  Join();
  FakeWorkerOptions other = FakeTinyWorker(2);
  other.registration.cpu_path = kCpuPathAvx512Bf16;
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
  EXPECT_EQ(group_.worker(third).group->rank, 1) << "it was blamed as well";
}

}  // namespace
}  // namespace witan
