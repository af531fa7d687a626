// Three workers for two ranks, one of which is of no use: the cluster serves
// with the other two, wherever the bad one stands.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "base/cpu_path.h"
#include "base/limits.h"
#include "base/status.h"
#include "coordinator/cluster/replica.h"
#include "tests/cluster/replica_fixture.h"

namespace witan {
namespace {

using ::testing::ElementsAre;

// --- Planner ----------------------------------------------------------------

WorkerInfo Worker(WorkerId id) {
  WorkerInfo info;
  info.id = id;
  info.registration = FakeTinyWorker(2).registration;
  return info;
}

absl::StatusOr<GroupPlan> Plan(const std::vector<WorkerInfo>& idle) {
  PlannerOptions options = FakeReplicaOptions(2).planner;
  options.limits.num_blocks = 0;
  return PlanGroup(TinyModelConfig(), MakeLayout(2, 2).value(), options, idle);
}

TEST(SparesTest, TheOddOneOutGetsNoRank) {
  const std::vector<std::function<void(WorkerInfo&)>> faults = {
      [](WorkerInfo& w) { w.registration.cpu_path = kCpuPathAvx512Bf16; },
      [](WorkerInfo& w) { w.registration.device = "cuda"; },
      [](WorkerInfo& w) { w.registration.memory_bytes = 1000; },
      [](WorkerInfo& w) { w.num_failed_starts = 1; }};
  for (const auto& fault : faults) {
    for (WorkerId bad = 1; bad <= 3; ++bad) {
      std::vector<WorkerInfo> workers = {Worker(1), Worker(2), Worker(3)};
      fault(workers[bad - 1]);
      const auto plan = Plan(workers);
      ASSERT_TRUE(plan.ok()) << plan.status();
      std::vector<WorkerId> expected = {1, 2, 3};
      std::erase(expected, bad);
      EXPECT_EQ(plan->workers, expected);
    }
  }
}

TEST(SparesTest, AFailureIsNoReasonToServeNobody) {
  std::vector<WorkerInfo> workers = {Worker(1), Worker(2)};
  for (WorkerInfo& worker : workers) worker.num_failed_starts = 7;
  EXPECT_TRUE(Plan(workers).ok());
}

TEST(SparesTest, WorkersThatFailedLessComeFirstAcrossHosts) {
  std::vector<WorkerInfo> workers = {Worker(1), Worker(2), Worker(3)};
  workers[0].num_failed_starts = 1;
  workers[2].registration.host_id = "other";
  const auto plan = Plan(workers);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->workers, ElementsAre(2, 3));
  EXPECT_EQ(plan->transport, Transport::kTcp);
}

TEST(SparesTest, ATransportThatNeedsOneHostTakesWorkersThatFailed) {
  std::vector<WorkerInfo> workers = {Worker(1), Worker(2), Worker(3)};
  workers[0].num_failed_starts = 1;
  workers[2].registration.host_id = "other";
  PlannerOptions options = FakeReplicaOptions(2).planner;
  options.transport = Transport::kSharedMemory;
  const auto plan =
      PlanGroup(TinyModelConfig(), MakeLayout(2, 2).value(), options, workers);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->workers, ElementsAre(2, 1));
}

TEST(SparesTest, OfTwoKindsTheOneWithEnoughWorkersServes) {
  std::vector<WorkerInfo> workers = {Worker(1), Worker(2), Worker(3),
                                     Worker(4)};
  workers[0].registration.cpu_path = kCpuPathAvx512Bf16;
  workers[3].registration.memory_bytes = 1000;
  const auto plan = Plan(workers);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->workers, ElementsAre(2, 3));
}

// --- Replica ----------------------------------------------------------------

struct Fault {
  const char* name;
  std::function<void(FakeWorkerOptions&)> break_worker;
};

void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.name; }

class BadSpareTest
    : public ReplicaTest,
      public ::testing::WithParamInterface<std::tuple<Fault, int>> {
 protected:
  // Lives on, with heartbeats, until the group serves or nothing is to be
  // waited for.
  void RunUntilServing() {
    for (int i = 0; i < 5000; ++i) {
      group_.Settle(now_);
      if (replica_.state() == ReplicaState::kServing) return;
      now_ = std::min(replica_.NextWakeup(),
                      now_ + kHeartbeatIntervalMs * kMicrosPerMilli);
      for (const WorkerId worker : group_.workers()) {
        replica_.OnMessage(worker, Heartbeat{}, now_);
      }
    }
  }

  void ExpectServingWithout(WorkerId bad) {
    ASSERT_EQ(replica_.state(), ReplicaState::kServing) << LastError();
    for (const RankSnapshot& rank : replica_.Snapshot().ranks) {
      EXPECT_NE(rank.worker.id, bad);
    }
    const auto stream = Submit(1, 5, 20);
    group_.Settle(now_);
    EXPECT_EQ(stream->end.value(), FinishReason::kLength);
    EXPECT_TRUE(stream->IsExact());
  }
};

TEST_P(BadSpareTest, IsNotGivenARankForever) {
  const auto& [fault, position] = GetParam();
  WorkerId bad = 0;
  for (int i = 0; i < 3; ++i) {
    FakeWorkerOptions options = FakeTinyWorker(2);
    if (i == position) fault.break_worker(options);
    const WorkerId id = Join(options);
    if (i == position) bad = id;
  }
  RunUntilServing();
  ExpectServingWithout(bad);
}

TEST_P(BadSpareTest, IsNotGivenARankForeverAfterALoss) {
  const auto& [fault, position] = GetParam();
  // The first group fixes what is right, and then loses both its workers.
  Serve();
  group_.Disconnect(first_, "killed", now_);
  group_.Disconnect(second_, "killed", now_);
  WorkerId bad = 0;
  for (int i = 0; i < 3; ++i) {
    FakeWorkerOptions options = FakeTinyWorker(2);
    if (i == position) fault.break_worker(options);
    const WorkerId id = Join(options);
    if (i == position) bad = id;
  }
  RunUntilServing();
  ExpectServingWithout(bad);
}

const Fault kFaults[] = {
    {"CannotLoad",
     [](FakeWorkerOptions& o) { o.load_failure = NotFound("no such file"); }},
    {"SilentWhenPreparing",
     [](FakeWorkerOptions& o) { o.silent_on_prepare = true; }},
    {"SilentWhenConnecting",
     [](FakeWorkerOptions& o) { o.silent_on_connect = true; }},
    {"SilentInSteps", [](FakeWorkerOptions& o) { o.silent_on_steps = true; }},
    {"OtherNumerics",
     [](FakeWorkerOptions& o) { o.numerics_id = "numerics-2"; }},
    {"OtherConfig", [](FakeWorkerOptions& o) { o.config = "hidden_size=7\n"; }},
    {"OtherWeights",
     [](FakeWorkerOptions& o) {
       for (auto& pieces : o.piece_hashes) {
         for (auto& [name, hash] : pieces) hash[0] = hash[0] == 'a' ? 'b' : 'a';
       }
     }},
    {"OtherCpuPath",
     [](FakeWorkerOptions& o) {
       o.registration.cpu_path = kCpuPathAvx512Bf16;
     }},
};

INSTANTIATE_TEST_SUITE_P(EveryPosition, BadSpareTest,
                         ::testing::Combine(::testing::ValuesIn(kFaults),
                                            ::testing::Range(0, 3)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) +
                                  "At" +
                                  std::to_string(std::get<1>(info.param));
                         });

TEST_F(ReplicaTest, AGroupThatServesForgivesItsWorkers) {
  FakeWorkerOptions slow_to_load = FakeTinyWorker(2);
  slow_to_load.load_failure = NotFound("not yet");
  first_ = Join(slow_to_load);
  second_ = Join();
  group_.Settle(now_);
  EXPECT_EQ(replica_.Snapshot().idle_workers.at(0).num_failed_starts, 1);
  EXPECT_EQ(replica_.Snapshot().idle_workers.at(1).num_failed_starts, 0);
  group_.worker(first_).options.load_failure.reset();
  now_ = replica_.NextWakeup();
  group_.Settle(now_);
  ASSERT_EQ(replica_.state(), ReplicaState::kServing) << LastError();
  EXPECT_EQ(replica_.Snapshot().ranks.at(1).worker.id, first_);
  EXPECT_EQ(replica_.Snapshot().ranks.at(1).worker.num_failed_starts, 0);
}

}  // namespace
}  // namespace witan
