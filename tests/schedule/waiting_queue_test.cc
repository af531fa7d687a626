#include "coordinator/schedule/waiting_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/limits.h"
#include "coordinator/schedule/scheduler.h"

namespace witan {
namespace {

class WaitingQueueTest : public ::testing::Test {
 protected:
  Sequence& Enter(const std::string& tenant, int32_t priority = 0) {
    sequences_.push_back(std::make_unique<Sequence>());
    Sequence& sequence = *sequences_.back();
    sequence.spec.tenant = tenant;
    sequence.spec.priority = priority;
    sequence.arrival = sequences_.size();
    queue_.Enter(sequence);
    queue_.Push(sequence);
    return sequence;
  }
  // Admits the next one for `num_tokens` of work; its tenant.
  std::string Serve(int64_t num_tokens) {
    Sequence* const next = queue_.Next();
    if (next == nullptr) return "";
    queue_.PopAdmitted();
    queue_.Charge(*next, num_tokens);
    queue_.Leave(*next);
    return next->spec.tenant;
  }

  WaitingQueue queue_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
};

TEST_F(WaitingQueueTest, OneTenantIsServedInOrderOfArrival) {
  std::vector<Sequence*> added;
  for (int i = 0; i < 5; ++i) added.push_back(&Enter("a"));
  for (Sequence* const sequence : added) {
    EXPECT_EQ(queue_.Next(), sequence);
    Serve(100);
  }
  EXPECT_EQ(queue_.Next(), nullptr);
  EXPECT_EQ(queue_.size(), 0);
}

TEST_F(WaitingQueueTest, HigherPrioritiesGoFirstWhoeverWasServedLess) {
  Enter("a", 0);
  Enter("b", 1);
  Enter("b", 1);
  Enter("c", -1);
  EXPECT_EQ(Serve(1000), "b");
  EXPECT_EQ(Serve(1000), "b");
  EXPECT_EQ(Serve(1), "a");
  EXPECT_EQ(Serve(1), "c");
}

TEST_F(WaitingQueueTest, TheTenantServedLeastGoesFirst) {
  for (int i = 0; i < 6; ++i) Enter("greedy");
  for (int i = 0; i < 3; ++i) Enter("light");
  std::string order;
  for (int i = 0; i < 9; ++i) order += Serve(10)[0];
  EXPECT_EQ(order, "glglglggg");
}

TEST_F(WaitingQueueTest, ATenantThatComesBackClaimsNothingForItsAbsence) {
  Enter("a");
  Serve(10);
  for (int i = 0; i < 40; ++i) Enter("b");
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Serve(10), "b");
  for (int i = 0; i < 10; ++i) Enter("a");
  std::map<std::string, int> num_served;
  for (int i = 0; i < 20; ++i) ++num_served[Serve(10)];
  EXPECT_EQ(num_served["a"], 10);
  EXPECT_EQ(num_served["b"], 10);
}

TEST_F(WaitingQueueTest, ATenantDoesNotShedItsDebtByLeaving) {
  Enter("greedy");
  Enter("light");
  Serve(5000);
  for (int i = 0; i < 3; ++i) {
    Enter("greedy");
    Enter("light");
  }
  EXPECT_EQ(Serve(10), "light");
  EXPECT_EQ(Serve(10), "light");
  EXPECT_EQ(Serve(10), "light");
  EXPECT_EQ(Serve(10), "light");
  EXPECT_EQ(Serve(10), "greedy");
}

TEST_F(WaitingQueueTest,
       OneThatWaitsIsNotOvertakenByOneNewTenantAfterTheOther) {
  // It is served, runs on, and wants more.
  Sequence& running = Enter("waits");
  ASSERT_EQ(queue_.Next(), &running);
  queue_.PopAdmitted();
  queue_.Charge(running, 5000);
  Enter("waits");
  int num_served_before = 0;
  for (int i = 0; i < 100; ++i) {
    Enter("new" + std::to_string(i));
    if (Serve(100) == "waits") break;
    ++num_served_before;
  }
  EXPECT_LE(num_served_before, 1);
}

TEST_F(WaitingQueueTest, OneThatWasOnlyRunningSavesNothingUp) {
  Sequence& running = Enter("a");
  queue_.PopAdmitted();
  for (int i = 0; i < 40; ++i) Enter("b");
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Serve(10), "b");
  // Preempted: it waits again, at the count of long ago.
  queue_.Push(running);
  for (int i = 0; i < 9; ++i) Enter("a");
  std::map<std::string, int> num_served;
  for (int i = 0; i < 20; ++i) ++num_served[Serve(10)];
  EXPECT_EQ(num_served["a"], 10);
  EXPECT_EQ(num_served["b"], 10);
}

TEST_F(WaitingQueueTest, TheSharesOfTenantsThatAreGoneAreBounded) {
  for (size_t i = 0; i < 3 * kMaxIdleTenants; ++i) {
    Enter("tenant" + std::to_string(i));
    Serve(static_cast<int64_t>(i) + 1);
  }
  EXPECT_LE(queue_.num_shares(), kMaxIdleTenants);
}

// --- A greedy tenant and three light ones ------------------------------------

struct Service {
  std::map<std::string, int64_t> tokens;
  double Ratio() const {
    int64_t least = INT64_MAX, most = 0;
    for (const auto& [tenant, num_tokens] : tokens) {
      least = std::min(least, num_tokens);
      most = std::max(most, num_tokens);
    }
    return static_cast<double>(most) / static_cast<double>(least);
  }
};

// Four tenants for 20,000 steps. The greedy one always has 200 requests in the
// system, each light one 12, which is more than a quarter of the 16 places.
// `told`: the scheduler knows who is who.
Service ServeFourTenants(bool told) {
  SchedulerOptions options;
  options.max_step_tokens = 256;
  options.max_prefill_chunk_tokens = 64;
  options.max_sequences = 16;
  options.num_blocks = 400;
  options.max_context_tokens = 1024;
  options.prefix_cache = false;
  Scheduler scheduler(options, 1, 1);
  std::map<SequenceId, std::string> owner;
  std::map<std::string, int> num_open;
  Service service;
  uint64_t random = 1;
  const auto below = [&random](uint64_t n) {
    random = random * 6364136223846793005 + 1442695040888963407;
    return (random >> 33) % n;
  };
  SequenceId next_id = 1;
  for (int step = 0; step < 20000; ++step) {
    for (const std::string tenant : {"greedy", "light1", "light2", "light3"}) {
      const bool is_greedy = tenant == "greedy";
      for (; num_open[tenant] < (is_greedy ? 200 : 12); ++num_open[tenant]) {
        SequenceSpec spec;
        spec.id = next_id++;
        if (told) spec.tenant = tenant;
        spec.prompt.assign(16 + below(is_greedy ? 240 : 80), 7);
        spec.stop.max_tokens = 1 + static_cast<int64_t>(below(64));
        owner[spec.id] = tenant;
        EXPECT_TRUE(scheduler.Add(spec, 0).ok());
      }
    }
    const std::optional<StepPlan> plan = scheduler.Plan(0);
    StepResult result{.epoch = 1, .step = plan->step};
    for (const uint8_t samples : plan->samples) {
      if (samples != 0) result.tokens.emplace_back();
    }
    EXPECT_TRUE(scheduler.Apply(std::move(result), 0).ok());
    for (const SchedulerEvent& event : scheduler.TakeEvents()) {
      const auto* end = std::get_if<FinishEvent>(&event);
      if (end == nullptr) continue;
      const std::string& tenant = owner.at(end->id);
      --num_open[tenant];
      service.tokens[tenant] +=
          end->usage.num_prompt_tokens + end->usage.num_output_tokens;
    }
  }
  return service;
}

TEST(FairnessTest, AGreedyTenantGetsNoMoreThanThreeLightOnes) {
  const Service fair = ServeFourTenants(true);
  RecordProperty("service_ratio", std::to_string(fair.Ratio()));
  EXPECT_LE(fair.Ratio(), 1.2);
  const Service first_come = ServeFourTenants(false);
  RecordProperty("first_come_ratio", std::to_string(first_come.Ratio()));
  EXPECT_GT(first_come.Ratio(), 4);
}

}  // namespace
}  // namespace witan
