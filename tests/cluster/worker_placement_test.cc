#include "coordinator/cluster/worker_placement.h"

#include <gtest/gtest.h>

#include "base/limits.h"

namespace witan {
namespace {

// Workers arrive on `hosts` one after the other; where they go.
std::string Place(std::vector<ReplicaWorkers>& replicas, int num_ranks,
                  const std::vector<std::string>& hosts) {
  std::string order;
  for (const std::string& host : hosts) {
    const int replica = PlaceWorker(replicas, num_ranks, host);
    ++replicas[replica].num_by_host[host];
    order += static_cast<char>('0' + replica);
  }
  return order;
}

TEST(WorkerPlacementTest, OneReplicaIsCompleteBeforeTheNextOneBegins) {
  std::vector<ReplicaWorkers> replicas(3);
  EXPECT_EQ(Place(replicas, 2, {"h", "h", "h", "h", "h", "h"}), "001122");
}

TEST(WorkerPlacementTest, SparesAreSharedOut) {
  std::vector<ReplicaWorkers> replicas(2);
  EXPECT_EQ(Place(replicas, 1, {"h", "h", "h", "h", "h", "h"}), "010101");
}

TEST(WorkerPlacementTest, WorkersOfOneHostComeTogether) {
  std::vector<ReplicaWorkers> replicas(2);
  ++replicas[0].num_by_host["a"];
  ++replicas[1].num_by_host["b"];
  EXPECT_EQ(Place(replicas, 2, {"b", "a"}), "10");
}

TEST(WorkerPlacementTest, AReplicaThatLostAWorkerIsFilledFirst) {
  std::vector<ReplicaWorkers> replicas(3);
  Place(replicas, 2, {"h", "h", "h", "h", "h", "h"});
  --replicas[1].num_by_host["h"];
  EXPECT_EQ(PlaceWorker(replicas, 2, "elsewhere"), 1);
}

constexpr Micros kPatience = kMaxReconnectPauseMs * kMicrosPerMilli;

TEST(SpareMovesTest, ASpareMovesToWhereOneIsMissing) {
  std::vector<ReplicaWorkers> replicas(2);
  Place(replicas, 2, {"h", "h", "h", "h", "h"});
  SpareMoves moves;
  EXPECT_FALSE(moves.Next(replicas, 2, 0).has_value());
  --replicas[1].num_by_host["h"];
  EXPECT_EQ(moves.Next(replicas, 2, 0), (SpareMove{.from = 0, .to = 1}));
  // Nobody has one to spare.
  --replicas[0].num_by_host["h"];
  EXPECT_FALSE(moves.Next(replicas, 2, 2 * kPatience).has_value());
}

TEST(SpareMovesTest, OneLostWorkerMovesOneSpare) {
  std::vector<ReplicaWorkers> replicas(2);
  replicas[0].num_by_host["h"] = 5;
  replicas[1].num_by_host["h"] = 1;
  SpareMoves moves;
  EXPECT_TRUE(moves.Next(replicas, 2, 0).has_value());
  EXPECT_FALSE(moves.Next(replicas, 2, 0).has_value());
  --replicas[0].num_by_host["h"];  // it left, and registers somewhat later
  EXPECT_FALSE(moves.Next(replicas, 2, kPatience - 1).has_value());
  moves.OnPlaced(1);
  ++replicas[1].num_by_host["h"];
  EXPECT_FALSE(moves.Next(replicas, 2, 2 * kPatience).has_value());
  // Two are lost: two move.
  replicas[1].num_by_host["h"] = 0;
  EXPECT_TRUE(moves.Next(replicas, 2, 2 * kPatience).has_value());
  --replicas[0].num_by_host["h"];
  EXPECT_TRUE(moves.Next(replicas, 2, 2 * kPatience).has_value());
  --replicas[0].num_by_host["h"];
  EXPECT_FALSE(moves.Next(replicas, 2, 2 * kPatience).has_value());
}

TEST(SpareMovesTest, WhereOneLetsNoneGoAnotherOneIsAsked) {
  std::vector<ReplicaWorkers> replicas(3);
  replicas[0].num_by_host["h"] = 3;  // waits itself: one of them does not fit
  replicas[1].num_by_host["h"] = 3;
  replicas[2].num_by_host["h"] = 1;
  SpareMoves moves;
  EXPECT_EQ(moves.Next(replicas, 2, 0), (SpareMove{.from = 0, .to = 2}));
  EXPECT_FALSE(moves.Next(replicas, 2, kPatience - 1).has_value());
  EXPECT_EQ(moves.Next(replicas, 2, kPatience),
            (SpareMove{.from = 1, .to = 2}));
}

}  // namespace
}  // namespace witan
