// The adapters that the ranks of a replica hold.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "coordinator/cluster/replica.h"
#include "tests/cluster/replica_fixture.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ReplicaAdaptersTest : public ReplicaTest {
 protected:
  AdapterPlacement Place(int32_t index, uint64_t load_number,
                         const std::string& directory = "/adapters/a") {
    const AdapterPlacement placement = {{.index = index,
                                         .load_number = load_number,
                                         .content_hash = "adapter-hash"},
                                        directory};
    replica_.SetAdapter(placement);
    return placement;
  }
  absl::Status StatusOf(const AdapterRef& ref) {
    for (const AdapterSnapshot& adapter : replica_.Snapshot().adapters) {
      if (adapter.ref == ref) return adapter.status;
    }
    return absl::NotFoundError("no such adapter");
  }
  std::shared_ptr<Stream> SubmitWith(SequenceId id, const AdapterRef& ref) {
    auto stream = MakeStream(id, 40, 5);
    stream->spec.adapter = ref;
    SubmitStream(stream);
    group_.Settle(now_);
    return stream;
  }
};

TEST_F(ReplicaAdaptersTest, SequencesUseItOnceEveryRankHoldsIt) {
  Serve();
  const AdapterPlacement a = Place(1, 7);
  EXPECT_TRUE(absl::IsUnavailable(StatusOf(a.ref)));
  const auto early = MakeStream(1, 4, 5);
  early->spec.adapter = a.ref;
  SubmitStream(early);
  EXPECT_THAT(Message(*early), HasSubstr("being loaded"));

  group_.Settle(now_);
  EXPECT_TRUE(StatusOf(a.ref).ok()) << StatusOf(a.ref);
  EXPECT_EQ(group_.worker(first_).adapters.at(1), "/adapters/a");
  EXPECT_EQ(group_.worker(second_).adapters.at(1), "/adapters/a");
  const auto stream = SubmitWith(2, a.ref);
  EXPECT_TRUE(stream->end.ok()) << stream->end.status();
  EXPECT_EQ(group_.worker(second_).adapter_of_last_start, 1);

  AdapterRef other = a.ref;
  other.load_number = 8;
  EXPECT_THAT(Message(*SubmitWith(3, other)), HasSubstr("not loaded any more"));
}

TEST_F(ReplicaAdaptersTest, ARankThatCannotLoadItIsNamedAndTheGroupLivesOn) {
  FakeWorkerOptions bad = FakeTinyWorker(2);
  bad.adapter_failure = InvalidArgument("tensor x has shape [1]");
  first_ = Join();
  second_ = Join(bad);
  group_.Settle(now_);
  ASSERT_EQ(replica_.state(), ReplicaState::kServing);
  const AdapterPlacement a = Place(0, 1);
  group_.Settle(now_);
  EXPECT_THAT(std::string(MessageOf(StatusOf(a.ref))),
              AllOf(HasSubstr("rank 1"), HasSubstr("tensor x")));
  EXPECT_TRUE(absl::IsInvalidArgument(StatusOf(a.ref)));
  EXPECT_THAT(Message(*SubmitWith(1, a.ref)), HasSubstr("tensor x"));
  const auto plain = Submit(2, 4, 3);
  group_.Settle(now_);
  EXPECT_TRUE(plain->end.ok());
}

TEST_F(ReplicaAdaptersTest, OtherContentsOnOneRankAreRefused) {
  FakeWorkerOptions other = FakeTinyWorker(2);
  other.adapter_hash = "something-else";
  Join();
  Join(other);
  group_.Settle(now_);
  const AdapterPlacement a = Place(0, 1);
  group_.Settle(now_);
  EXPECT_THAT(std::string(MessageOf(StatusOf(a.ref))),
              AllOf(HasSubstr("rank 1"), HasSubstr("something-else"),
                    HasSubstr("adapter-hash")));
}

TEST_F(ReplicaAdaptersTest, ARankThatIsBusyGetsTheNewestOnly) {
  FakeWorkerOptions busy = FakeTinyWorker(2);
  busy.silent_on_adapters = true;
  first_ = Join();
  second_ = Join(busy);
  group_.Settle(now_);
  ASSERT_EQ(replica_.state(), ReplicaState::kServing);
  for (uint64_t number = 1; number <= 100; ++number) {
    Place(0, 2 * number);
    Place(0, 0, "");
  }
  const AdapterPlacement last = Place(0, 999, "/adapters/last");
  group_.Settle(now_);
  EXPECT_EQ(group_.worker(first_).num_loads, 1);
  EXPECT_TRUE(absl::IsUnavailable(StatusOf(last.ref)));
  FakeWorker& worker = group_.worker(second_);
  worker.options.silent_on_adapters = false;
  ASSERT_EQ(worker.held_loads.size(), 1u);
  for (WorkerMessage& answer : worker.OnMessage(worker.held_loads[0])) {
    replica_.OnMessage(second_, std::move(answer), now_);
  }
  group_.Settle(now_);
  EXPECT_EQ(group_.worker(first_).num_loads, 2);
  EXPECT_TRUE(StatusOf(last.ref).ok()) << StatusOf(last.ref);
}

TEST_F(ReplicaAdaptersTest, ANewGroupGetsWhatTheOldOneHeld) {
  const AdapterPlacement a = Place(2, 5);
  Serve();
  group_.Settle(now_);
  EXPECT_TRUE(StatusOf(a.ref).ok());
  group_.Disconnect(second_, "gone", now_);
  EXPECT_TRUE(absl::IsUnavailable(StatusOf(a.ref)));
  const WorkerId third = Join();
  group_.Settle(now_);
  ASSERT_EQ(replica_.state(), ReplicaState::kServing) << LastError();
  EXPECT_TRUE(StatusOf(a.ref).ok());
  EXPECT_EQ(group_.worker(third).adapters.at(2), "/adapters/a");
  EXPECT_TRUE(SubmitWith(1, a.ref)->end.ok());
}

TEST_F(ReplicaAdaptersTest, AnIndexThatIsTakenAwayIsFreeForAnother) {
  Serve();
  const AdapterPlacement a = Place(0, 1);
  group_.Settle(now_);
  Place(0, 0, "");
  const AdapterPlacement b = Place(0, 2, "/adapters/b");
  group_.Settle(now_);
  EXPECT_TRUE(absl::IsNotFound(StatusOf(a.ref)));
  EXPECT_TRUE(StatusOf(b.ref).ok());
  EXPECT_EQ(group_.worker(first_).adapters.at(0), "/adapters/b");
  Place(0, 0, "");
  group_.Settle(now_);
  EXPECT_TRUE(group_.worker(first_).adapters.empty());
  EXPECT_TRUE(replica_.Snapshot().adapters.empty());
}

}  // namespace
}  // namespace witan
