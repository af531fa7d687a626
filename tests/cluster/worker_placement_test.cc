#include "coordinator/cluster/worker_placement.h"

#include <gtest/gtest.h>

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

TEST(WorkerPlacementTest, ASpareMovesToWhereOneIsMissing) {
  std::vector<ReplicaWorkers> replicas(2);
  Place(replicas, 2, {"h", "h", "h", "h", "h"});
  EXPECT_FALSE(FindSpareMove(replicas, 2).has_value());
  --replicas[1].num_by_host["h"];
  const auto move = FindSpareMove(replicas, 2);
  ASSERT_TRUE(move.has_value());
  EXPECT_EQ(move->from, 0);
  EXPECT_EQ(move->to, 1);
  // Nobody has one to spare.
  --replicas[0].num_by_host["h"];
  EXPECT_FALSE(FindSpareMove(replicas, 2).has_value());
}

}  // namespace
}  // namespace witan
