#include "coordinator/cluster/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/cpu_path.h"
#include "base/limits.h"
#include "base/status.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

WorkerInfo Worker(WorkerId id, const std::string& host) {
  WorkerInfo info;
  info.id = id;
  info.registration.host_id = host;
  info.registration.host_name = "name-" + host;
  info.registration.device = "cpu";
  info.registration.cpu_path = kCpuPathAvx2;
  info.registration.num_cores = 8;
  info.registration.memory_bytes = int64_t{1} << 30;
  return info;
}

PlannerOptions Options() {
  PlannerOptions options;
  options.limits.max_context_tokens = 512;
  options.limits.max_step_tokens = 64;
  options.limits.max_sequences = 4;
  options.limits.num_blocks = 10;
  return options;
}

absl::StatusOr<GroupPlan> Plan(int num_ranks,
                               const std::vector<WorkerInfo>& idle,
                               const PlannerOptions& options = Options()) {
  return PlanGroup(TinyModelConfig(), MakeLayout(num_ranks, 1).value(), options,
                   idle);
}

std::string Error(const absl::StatusOr<GroupPlan>& plan,
                  absl::StatusCode code) {
  EXPECT_EQ(plan.status().code(), code) << plan.status();
  return std::string(MessageOf(plan.status()));
}

TEST(PlannerTest, SaysHowManyWorkersAreMissing) {
  EXPECT_EQ(Error(Plan(2, {Worker(1, "a")}), absl::StatusCode::kUnavailable),
            "1 of 2 workers registered");
  EXPECT_EQ(Error(Plan(1, {}), absl::StatusCode::kUnavailable),
            "0 of 1 workers registered");
}

TEST(PlannerTest, TakesWorkersOfOneHostInOrderOfRegistration) {
  const auto plan =
      Plan(2, {Worker(1, "a"), Worker(2, "b"), Worker(4, "b"), Worker(5, "b")});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->workers, ElementsAre(2, 4));
  EXPECT_EQ(plan->transport, Transport::kSharedMemory);
}

TEST(PlannerTest, OfHostsThatHaveEnoughTheEarlierOneIsTaken) {
  const auto plan = Plan(2, {Worker(1, "z"), Worker(2, "a"), Worker(3, "a"),
                             Worker(4, "a"), Worker(5, "z")});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->workers, ElementsAre(1, 5));
}

TEST(PlannerTest, SpreadsOverHostsWithNeighboursTogetherAndUsesTcp) {
  const auto plan = Plan(4, {Worker(1, "a"), Worker(2, "b"), Worker(3, "c"),
                             Worker(4, "b"), Worker(5, "c")});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->workers, ElementsAre(2, 4, 3, 5));
  EXPECT_EQ(plan->transport, Transport::kTcp);
}

TEST(PlannerTest, CoresAreSharedByTheRanksOfAHost) {
  auto plan = Plan(3, {Worker(1, "a"), Worker(2, "a"), Worker(3, "b")});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->num_threads, ElementsAre(4, 4, 8));

  std::vector<WorkerInfo> workers = {Worker(1, "a"), Worker(2, "a")};
  for (WorkerInfo& worker : workers) worker.registration.num_cores = 1;
  plan = Plan(2, workers);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->num_threads, Each(1));
}

TEST(PlannerTest, AWorkerThatWasToldItsThreadsUsesThem) {
  std::vector<WorkerInfo> workers = {Worker(1, "a"), Worker(2, "a"),
                                     Worker(3, "a")};
  workers[1].registration.num_threads = 7;
  auto plan = Plan(3, workers);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->num_threads, ElementsAre(2, 7, 2));
  PlannerOptions options = Options();
  options.num_threads = 3;
  plan = Plan(3, workers, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->num_threads, ElementsAre(3, 7, 3));
}

TEST(PlannerTest, ForcedThreadsTransportAndBlocksAreTaken) {
  PlannerOptions options = Options();
  options.num_threads = 3;
  options.transport = Transport::kTcp;
  options.limits.num_blocks = 77;
  const auto plan = Plan(2, {Worker(1, "a"), Worker(2, "a")}, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->num_threads, ElementsAre(3, 3));
  EXPECT_EQ(plan->transport, Transport::kTcp);
  EXPECT_EQ(plan->limits.num_blocks, 77);
}

TEST(PlannerTest, RefusesSharedMemoryAcrossHosts) {
  PlannerOptions options = Options();
  options.transport = Transport::kSharedMemory;
  EXPECT_EQ(Error(Plan(2, {Worker(1, "a"), Worker(2, "b")}, options),
                  absl::StatusCode::kFailedPrecondition),
            "workers 1 (host name-a) and 2 (host name-b) cannot share memory; "
            "use transport tcp or start all workers on one host");
}

TEST(PlannerTest, RefusesWorkersOfDifferentCpuPathsAndNamesTheRemedy) {
  WorkerInfo fast = Worker(3, "a");
  fast.registration.cpu_path = kCpuPathAvx512Bf16;
  EXPECT_EQ(Error(Plan(2, {fast, Worker(5, "a")}),
                  absl::StatusCode::kFailedPrecondition),
            "workers 3 and 5 would compute different bits: avx512bf16 vs avx2; "
            "start those on avx512bf16 with --cpu-path avx2");
  WorkerInfo slow = Worker(2, "a");
  slow.registration.cpu_path = kCpuPathPortable;
  EXPECT_THAT(
      Error(Plan(2, {slow, fast}), absl::StatusCode::kFailedPrecondition),
      HasSubstr("portable vs avx512bf16; start those on avx512bf16 with "
                "--cpu-path avx2"));
  // The remedy works.
  fast.registration.cpu_path = kCpuPathAvx2;
  EXPECT_TRUE(Plan(2, {fast, slow}).ok());
  WorkerInfo strange = Worker(8, "a");
  strange.registration.cpu_path = "neon";
  EXPECT_THAT(
      Error(Plan(2, {slow, strange}), absl::StatusCode::kFailedPrecondition),
      HasSubstr("portable vs neon; start them with the same --cpu-path"));
}

TEST(PlannerTest, TakesPathsTogetherThatComputeTheSameBitsForTheModel) {
  std::vector<WorkerInfo> workers = {Worker(1, "a"), Worker(2, "a"),
                                     Worker(3, "a")};
  workers[0].registration.cpu_path = kCpuPathAvx512Bf16;
  workers[1].registration.cpu_path = kCpuPathAvx2;
  workers[2].registration.cpu_path = kCpuPathPortable;
  for (const DType weights : {DType::kF32, DType::kF16, DType::kBF16}) {
    ModelConfig config = TinyModelConfig();
    config.weights = weights;
    const auto plan =
        PlanGroup(config, MakeLayout(3, 1).value(), Options(), workers);
    EXPECT_EQ(plan.ok(), weights != DType::kBF16) << NameOf(weights);
  }
}

TEST(PlannerTest, RefusesWorkersOfDifferentDevices) {
  WorkerInfo other = Worker(2, "a");
  other.registration.device = "cuda";
  EXPECT_THAT(Error(Plan(2, {Worker(1, "a"), other}),
                    absl::StatusCode::kFailedPrecondition),
              HasSubstr("device cpu vs cuda"));
}

TEST(PlannerTest, PlansAsManyBlocksAsTheSmallestMemoryHolds) {
  PlannerOptions options = Options();
  options.limits.num_blocks = 0;
  std::vector<WorkerInfo> workers = {Worker(1, "a"), Worker(2, "a")};
  const Layout layout = MakeLayout(2, 1).value();
  workers[1].registration.memory_bytes = 16 << 20;
  const auto plan = Plan(2, workers, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto expected = PlanNumBlocks(
      TinyModelConfig(), layout, options.limits,
      {workers[0].registration.memory_bytes, 16 << 20}, plan->num_threads);
  ASSERT_TRUE(expected.ok());
  EXPECT_EQ(plan->limits.num_blocks, *expected);

  workers[1].registration.memory_bytes = 1000;
  EXPECT_EQ(Plan(2, workers, options).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(PlannerTest, WhatAHostCanSpareIsSharedByItsWorkersAndPromisesAreNot) {
  PlannerOptions options = Options();
  options.limits.num_blocks = 0;
  options.limits.max_sequences = 512;  // more than fit
  options.num_threads = 1;
  const Layout layout = MakeLayout(2, 1).value();
  constexpr int64_t kBytes = 16 << 20;
  const auto blocks_of = [&](const std::vector<WorkerInfo>& idle) {
    const auto plan = Plan(2, idle, options);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan.ok() ? plan->limits.num_blocks : 0;
  };
  const auto blocks_in = [&](int64_t first_bytes, int64_t second_bytes) {
    return PlanNumBlocks(TinyModelConfig(), layout, options.limits,
                         {first_bytes, second_bytes}, {1, 1})
        .value();
  };
  std::vector<WorkerInfo> workers = {Worker(1, "a"), Worker(2, "a")};
  for (WorkerInfo& worker : workers) {
    worker.registration.memory_bytes = kBytes;
    worker.registration.memory_is_of_host = true;
  }
  ASSERT_LT(blocks_in(kBytes / 2, kBytes / 2), blocks_in(kBytes, kBytes));
  EXPECT_EQ(blocks_of(workers), blocks_in(kBytes / 2, kBytes / 2));
  // A spare may hold an earlier group's memory.
  workers.push_back(Worker(3, "a"));
  EXPECT_EQ(blocks_of(workers), blocks_in(kBytes / 3, kBytes / 3));
  // The share of a host is nobody else's.
  workers[2] = Worker(3, "b");
  EXPECT_EQ(blocks_of(workers), blocks_in(kBytes / 2, kBytes / 2));
  workers.pop_back();
  workers[1].registration.memory_is_of_host = false;
  EXPECT_EQ(blocks_of(workers), blocks_in(kBytes / 2, kBytes));
  workers[0].registration.memory_is_of_host = false;
  EXPECT_EQ(blocks_of(workers), blocks_in(kBytes, kBytes));
}

TEST(PlannerTest, WhatAHostHasIsSharedByAllReplicas) {
  std::vector<WorkerInfo> workers = {Worker(1, "a"), Worker(2, "a")};
  for (WorkerInfo& worker : workers) {
    worker.registration.memory_bytes = 64 << 20;
    worker.registration.memory_is_of_host = true;
  }
  PlannerOptions options = Options();
  options.num_replicas = 2;
  EXPECT_THAT(Plan(2, workers, options)->num_threads, ElementsAre(2, 2));
  options.num_threads = 1;
  options.limits.num_blocks = 0;
  options.limits.max_sequences = 512;  // more than fit
  const int64_t of_two = Plan(2, workers, options)->limits.num_blocks;
  options.num_replicas = 1;
  EXPECT_LT(of_two, Plan(2, workers, options)->limits.num_blocks);
  for (WorkerInfo& worker : workers) worker.registration.memory_bytes /= 2;
  EXPECT_EQ(of_two, Plan(2, workers, options)->limits.num_blocks);
}

TEST(PlannerTest, RefusesAbsurdOptionsByName) {
  const auto error = [](const PlannerOptions& options) {
    const absl::Status status = CheckPlannerOptions(TinyModelConfig(), options);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(MessageOf(status));
  };
  EXPECT_TRUE(CheckPlannerOptions(TinyModelConfig(), Options()).ok());
  PlannerOptions options = Options();
  options.limits.max_sequences = kMaxStepSequences + 1;
  EXPECT_EQ(error(options), "max_sequences is 1025; allowed is 1 to 1024");
  options = Options();
  options.limits.max_context_tokens = 513;
  EXPECT_EQ(error(options), "max_context_tokens is 513; allowed is 1 to 512");
  options = Options();
  options.limits.max_step_tokens = 0;
  EXPECT_THAT(error(options), HasSubstr("max_step_tokens is 0"));
  options = Options();
  options.limits.num_blocks = 1;
  EXPECT_EQ(error(options), "num_blocks is 1; allowed is 2 to 16777216");
  options = Options();
  options.num_threads = -1;
  EXPECT_THAT(error(options), HasSubstr("num_threads is -1"));
}

}  // namespace
}  // namespace witan
