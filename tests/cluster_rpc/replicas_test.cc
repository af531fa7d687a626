// Workers of several replicas, over real sockets.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "tests/cluster_rpc/rpc_cluster.h"

namespace witan {
namespace {

// Runs sequences on both replicas to their end.
void ExpectBothServe(Coordinator& coordinator) {
  for (int i = 0; i < 4; ++i) {
    auto [stream, ended] = coordinator.Submit(20, 10);
    ended.wait();
    ASSERT_TRUE(stream->end.ok()) << stream->end.status();
    EXPECT_TRUE(stream->IsExact());
    EXPECT_EQ(stream->tokens.size(), 10u);
  }
  coordinator.WaitFor([](const Coordinator::Snapshots& snapshots) {
    return std::all_of(snapshots.begin(), snapshots.end(), [](const auto& s) {
      return s->scheduler.num_finished >= 2;
    });
  });
}

TEST(ReplicasTest, WorkersThatJoinFillOneReplicaAfterTheOther) {
  Coordinator coordinator(0, 2);
  std::vector<std::unique_ptr<WorkerProcess>> workers;
  for (int i = 0; i < 4; ++i) {
    workers.push_back(std::make_unique<WorkerProcess>(coordinator.address()));
  }
  coordinator.WaitUntilServing(1, 0);
  coordinator.WaitUntilServing(1, 1);
  ExpectBothServe(coordinator);
}

TEST(ReplicasTest, ASpareOfOneReplicaComesToTheRescueOfTheOther) {
  Coordinator coordinator(0, 2);
  std::vector<std::unique_ptr<WorkerProcess>> workers;
  for (int i = 0; i < 5; ++i) {
    FakeWorkerOptions options = FakeTinyWorker(2);
    options.registration.process_id = i;
    workers.push_back(
        std::make_unique<WorkerProcess>(coordinator.address(), options));
  }
  const auto is_complete = [](const Coordinator::Snapshots& snapshots) {
    size_t num_spares = 0;
    for (const auto& snapshot : snapshots) {
      if (snapshot->state != ReplicaState::kServing) return false;
      num_spares += snapshot->idle_workers.size();
    }
    return num_spares == 1;
  };
  const auto before = coordinator.WaitFor(is_complete);
  const size_t with_spare = before[0]->idle_workers.empty() ? 1 : 0;
  const size_t without = 1 - with_spare;
  const RankSnapshot& victim = before[without]->ranks[1];
  workers[static_cast<size_t>(victim.worker.registration.process_id)].reset();
  coordinator.WaitUntilServing(before[without]->epoch + 1,
                               static_cast<int>(without));
  ExpectBothServe(coordinator);
  EXPECT_EQ(coordinator.replicas().Snapshots()[with_spare]->epoch,
            before[with_spare]->epoch)
      << "the other replica went on";
}

}  // namespace
}  // namespace witan
