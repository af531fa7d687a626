#include "coordinator/cluster/adapter_set.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace witan {
namespace {

using Snapshots = std::vector<std::shared_ptr<const ReplicaSnapshot>>;

class AdapterSetTest : public testing::Test {
 protected:
  absl::StatusOr<std::optional<AdapterPlacement>> Begin(
      const std::string& name, const std::string& hash = "hash") {
    return set_.Begin(name, "/adapters/" + name, hash, 8,
                      [this](absl::Status status) { done_ = status; });
  }
  // Snapshots of replicas that say this of the adapter; nullopt: it does not
  // serve.
  static Snapshots Say(const AdapterRef& ref,
                       const std::vector<std::optional<absl::Status>>& said) {
    Snapshots snapshots;
    for (const auto& status : said) {
      auto snapshot = std::make_shared<ReplicaSnapshot>();
      if (status) {
        snapshot->state = ReplicaState::kServing;
        snapshot->adapters = {{ref, *status}};
      }
      snapshots.push_back(snapshot);
    }
    return snapshots;
  }
  // What `done` was called with; nullopt: it was not.
  std::optional<absl::Status> Done() {
    for (const auto& call : set_.TakeDone()) call();
    return std::exchange(done_, std::nullopt);
  }
  AdapterRef Load(const std::string& name) {
    const AdapterRef ref = (**Begin(name)).ref;
    set_.OnSnapshots(Say(ref, {absl::OkStatus()}));
    EXPECT_TRUE(Done().value().ok());
    return ref;
  }

  AdapterSet set_{2};
  std::optional<absl::Status> done_;
};

const absl::Status kNotYet = absl::UnavailableError("not yet");

TEST_F(AdapterSetTest, IsReadyWhenEveryReplicaThatServesHoldsIt) {
  const auto placement = Begin("a");
  ASSERT_TRUE(placement.ok() && placement->has_value());
  const AdapterRef ref = (*placement)->ref;
  EXPECT_EQ((*placement)->directory, "/adapters/a");
  EXPECT_TRUE(absl::IsUnavailable(set_.Acquire("a").status()));
  for (const auto& said : std::vector<std::vector<std::optional<absl::Status>>>{
           {std::nullopt, std::nullopt},
           {kNotYet, absl::OkStatus()},
           {absl::OkStatus(), kNotYet}}) {
    EXPECT_TRUE(set_.OnSnapshots(Say(ref, said)).empty());
    EXPECT_EQ(Done(), std::nullopt);
  }
  // What is said of another load counts for nothing.
  AdapterRef older = ref;
  --older.load_number;
  set_.OnSnapshots(Say(older, {absl::OkStatus()}));
  EXPECT_EQ(Done(), std::nullopt);

  EXPECT_TRUE(
      set_.OnSnapshots(Say(ref, {absl::OkStatus(), std::nullopt})).empty());
  EXPECT_EQ(Done(), absl::OkStatus());
  EXPECT_EQ(*set_.Acquire("a"), ref);
}

TEST_F(AdapterSetTest, OneThatARankCannotLoadIsTakenAwayWithTheReason) {
  const AdapterRef ref = (**Begin("a")).ref;
  const absl::Status reason = absl::InvalidArgumentError("rank 9");
  const auto removed = set_.OnSnapshots(Say(ref, {kNotYet, reason}));
  ASSERT_EQ(removed.size(), 1u);
  EXPECT_EQ(removed[0].ref.index, ref.index);
  EXPECT_EQ(removed[0].directory, "");
  EXPECT_EQ(Done(), reason);
  EXPECT_TRUE(absl::IsNotFound(set_.Acquire("a").status()));
  EXPECT_TRUE(Begin("a").ok());
}

TEST_F(AdapterSetTest, LoadingAgainWaitsForTheSameAndRefusesOtherContents) {
  const AdapterRef ref = (**Begin("a")).ref;
  EXPECT_EQ(*Begin("a"), std::nullopt);
  EXPECT_EQ(Done(), std::nullopt);
  set_.OnSnapshots(Say(ref, {absl::OkStatus()}));
  EXPECT_EQ(Done(), absl::OkStatus());
  EXPECT_EQ(*Begin("a"), std::nullopt);
  EXPECT_EQ(Done(), absl::OkStatus());
  EXPECT_TRUE(absl::IsAlreadyExists(Begin("a", "other").status()));
}

TEST_F(AdapterSetTest, ThereIsRoomForSoManyAndAnIndexComesBack) {
  const AdapterRef a = Load("a");
  const AdapterRef b = Load("b");
  EXPECT_NE(a.index, b.index);
  EXPECT_TRUE(absl::IsResourceExhausted(Begin("c").status()));
  const auto gone = set_.End("a");
  ASSERT_TRUE(gone.ok() && gone->has_value());
  EXPECT_EQ((*gone)->ref.index, a.index);
  const AdapterRef c = Load("c");
  EXPECT_EQ(c.index, a.index);
  EXPECT_GT(c.load_number, b.load_number);
}

TEST_F(AdapterSetTest, OneInUseGoesAfterItsLastSequence) {
  Load("a");
  ASSERT_TRUE(set_.Acquire("a").ok());
  ASSERT_TRUE(set_.Acquire("a").ok());
  EXPECT_EQ(*set_.End("a"), std::nullopt);
  EXPECT_TRUE(absl::IsUnavailable(set_.Acquire("a").status()));
  EXPECT_TRUE(absl::IsUnavailable(Begin("a").status()));
  ASSERT_EQ(set_.List().size(), 1u);
  EXPECT_EQ(set_.List()[0].state, AdapterState::kDraining);
  EXPECT_EQ(set_.List()[0].num_sequences, 2);
  EXPECT_EQ(set_.Release("a"), std::nullopt);
  const auto gone = set_.Release("a");
  ASSERT_TRUE(gone.has_value());
  EXPECT_EQ(gone->directory, "");
  EXPECT_TRUE(set_.List().empty());
}

TEST_F(AdapterSetTest, UnloadingEndsAWaitForIt) {
  ASSERT_TRUE(Begin("a").ok());
  EXPECT_TRUE(set_.End("a")->has_value());
  EXPECT_TRUE(absl::IsCancelled(Done().value()));
  EXPECT_TRUE(absl::IsNotFound(set_.End("a").status()));
}

}  // namespace
}  // namespace witan
