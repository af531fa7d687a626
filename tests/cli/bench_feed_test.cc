// Who is sent when, with time as an argument.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/limits.h"
#include "cli/bench/feed.h"

namespace witan::bench {
namespace {

using ::testing::ElementsAre;

Plan PlanOf(const WorkloadOptions& options) {
  const auto workload = MakeWorkload(options);
  EXPECT_TRUE(workload.ok()) << workload.status();
  auto plan = Plan::Make(*workload, {320, 4096});
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

TEST(BenchFeedTest, AClientHasOneRequestAndThinksBetweenTwo) {
  const Plan plan = PlanOf(
      {.settings = {
           {"clients", "2"}, {"num-requests", "5"}, {"think-time-ms", "10"}}});
  LoadFeed feed(plan);
  ASSERT_EQ(feed.NextDue(), 0);
  const PlannedRequest first = feed.Take();
  ASSERT_EQ(feed.NextDue(), 0);
  const PlannedRequest second = feed.Take();
  EXPECT_EQ(feed.NextDue(), std::nullopt);  // both wait
  feed.OnEnd(second, 7000);
  ASSERT_EQ(feed.NextDue(), 17000);
  feed.OnEnd(first, 6000);
  ASSERT_EQ(feed.NextDue(), 16000);
  const PlannedRequest third = feed.Take();
  EXPECT_EQ(third.due_us, 16000);
  const PlannedRequest fourth = feed.Take();
  EXPECT_EQ(fourth.due_us, 17000);
  EXPECT_THAT(
      std::vector({first.index, second.index, third.index, fourth.index}),
      ElementsAre(0, 1, 2, 3));
  feed.OnEnd(third, 20000);
  feed.OnEnd(fourth, 20000);
  EXPECT_EQ(feed.Take().index, 4);
  EXPECT_EQ(feed.NextDue(), std::nullopt);  // the other client has no more
}

TEST(BenchFeedTest, NoClientBeginsAfterTheEnd) {
  const Plan plan = PlanOf({.settings = {{"clients", "1"}}, .duration_s = 0.5});
  LoadFeed feed(plan);
  feed.OnEnd(feed.Take(), 499999);
  ASSERT_EQ(feed.NextDue(), 499999);
  feed.OnEnd(feed.Take(), 500000);
  EXPECT_EQ(feed.NextDue(), std::nullopt);
}

TEST(BenchFeedTest, SaysWhenTheLimitOfRequestsEndsAClosedLoop) {
  const Plan endless =
      PlanOf({.settings = {{"clients", "1"}}, .duration_s = 60});
  LoadFeed feed(endless);
  for (int64_t i = 0; i < kMaxBenchRequests; ++i) {
    ASSERT_EQ(feed.NextDue(), 0);
    feed.OnEnd(feed.Take(), 0);
  }
  EXPECT_FALSE(feed.stopped_at_max_requests());
  EXPECT_EQ(feed.NextDue(), std::nullopt);
  EXPECT_TRUE(feed.stopped_at_max_requests());
}

TEST(BenchFeedTest, AClosedLoopThatEndsByItselfIsNotSaidToBeStopped) {
  const Plan counted =
      PlanOf({.settings = {{"clients", "2"}, {"num-requests", "3"}}});
  const Plan timed = PlanOf({.settings = {{"clients", "2"}}, .duration_s = 1});
  for (const Plan* plan : {&counted, &timed}) {
    LoadFeed feed(*plan);
    while (const std::optional<Micros> due = feed.NextDue()) {
      feed.OnEnd(feed.Take(), *due + 300000);
    }
    EXPECT_FALSE(feed.stopped_at_max_requests());
  }
}

TEST(BenchFeedTest, AnOpenLoopWaitsForNobody) {
  const Plan plan =
      PlanOf({.settings = {{"rate", "100"}, {"num-requests", "50"}}});
  LoadFeed feed(plan);
  for (int64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(feed.num_left(), 50 - i);
    ASSERT_EQ(feed.NextDue(), plan.open_loop()[static_cast<size_t>(i)].due_us);
    EXPECT_EQ(feed.Take().index, i);
  }
  EXPECT_EQ(feed.NextDue(), std::nullopt);
}

TEST(BenchFeedTest, CountsWhatClientsHaveYetToAsk) {
  const Plan plan =
      PlanOf({.settings = {{"clients", "2"}, {"num-requests", "5"}}});
  LoadFeed feed(plan);
  for (int64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(feed.num_left(), 5 - i);
    const std::optional<Micros> due = feed.NextDue();
    ASSERT_TRUE(due.has_value());
    feed.OnEnd(feed.Take(), *due + 1);
  }
  EXPECT_EQ(feed.num_left(), 0);
  // Of clients that ask until the time is over, nobody knows.
  const Plan timed = PlanOf({.settings = {{"clients", "2"}}, .duration_s = 1});
  EXPECT_EQ(LoadFeed(timed).num_left(), 0);
}

TEST(BenchFeedTest, ClassesAreMergedByTime) {
  const Plan plan =
      PlanOf({.classes = {"open:rate=50,num-requests=40",
                          "closed:clients=3,think-time-ms=30,num-requests=30,"
                          "start-s=0.1"}});
  LoadFeed feed(plan);
  Micros last = 0;
  std::map<int, int> counts;
  while (const std::optional<Micros> due = feed.NextDue()) {
    EXPECT_LE(last, *due);
    last = *due;
    const PlannedRequest request = feed.Take();
    EXPECT_EQ(request.due_us, last);
    if (request.class_index == 1) {
      EXPECT_GE(last, 100000);
    }
    ++counts[request.class_index];
    feed.OnEnd(request, last);
  }
  EXPECT_EQ(counts[0], 40);
  EXPECT_EQ(counts[1], 30);
}

TEST(BenchFeedTest, WarmUpSendsAFewAtATime) {
  const Plan plan = PlanOf({.num_warmup_requests = 20});
  WarmupFeed feed(plan);
  std::vector<PlannedRequest> in_flight;
  while (feed.NextDue().has_value()) in_flight.push_back(feed.Take());
  EXPECT_EQ(static_cast<int64_t>(in_flight.size()), kMaxBenchWarmupClients);
  int64_t count = kMaxBenchWarmupClients;
  while (!in_flight.empty()) {
    feed.OnEnd(in_flight.back(), count);
    in_flight.pop_back();
    if (!feed.NextDue().has_value()) continue;
    EXPECT_EQ(feed.NextDue(), count);
    in_flight.push_back(feed.Take());
    EXPECT_TRUE(in_flight.back().is_warmup);
    ++count;
  }
  EXPECT_EQ(count, 20);
}

}  // namespace
}  // namespace witan::bench
