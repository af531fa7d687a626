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

TEST_F(WaitingQueueTest, OneThatWaitsIsNotOvertakenByNewTenantsForEver) {
  // Of two that run one was served more, and wants more.
  Enter("other");
  queue_.PopAdmitted();
  Sequence& running = Enter("waits");
  queue_.PopAdmitted();
  queue_.Charge(running, 10000);
  Enter("new-0");
  Enter("waits");
  int num_served_before = 0;
  for (int i = 1; i < 5000; ++i) {
    // Two new names wait at any time.
    Enter("new-" + std::to_string(i));
    if (Serve(100) == "waits") break;
    ++num_served_before;
  }
  // It is 5,000 ahead of equal shares for two; four share what is served now.
  EXPECT_GE(num_served_before, 10);
  EXPECT_LE(num_served_before, 5000 * 4 / 100 + 4);
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

// What four tenants are like. A step has 16 places.
struct Tenants {
  int num_of_greedy = 200;  // requests in the system at any time
  int num_of_light = 12;    // of each of three
  int64_t max_output_tokens = 64;
  int64_t num_output_tokens_of_greedy = 0;  // of every request; 0: as of others
  int64_t num_blocks = 400;
  // The light ones come when the greedy one has been alone for so long.
  int first_light_step = 0;
};

// Tokens of prompts and answers in 20,000 steps, from the first light request
// on. `told`: the scheduler knows who is who.
Service ServeFourTenants(const Tenants& tenants, bool told) {
  SchedulerOptions options;
  options.max_step_tokens = 256;
  options.max_prefill_chunk_tokens = 64;
  options.max_sequences = 16;
  options.num_blocks = tenants.num_blocks;
  options.max_context_tokens = 8192;
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
  for (int step = 0; step < tenants.first_light_step + 20000; ++step) {
    const bool is_shared = step >= tenants.first_light_step;
    for (const std::string tenant : {"greedy", "light1", "light2", "light3"}) {
      const bool is_greedy = tenant == "greedy";
      if (!is_greedy && !is_shared) continue;
      const int num_wanted =
          is_greedy ? tenants.num_of_greedy : tenants.num_of_light;
      for (; num_open[tenant] < num_wanted; ++num_open[tenant]) {
        SequenceSpec spec;
        spec.id = next_id++;
        if (told) spec.tenant = tenant;
        spec.prompt.assign(16 + below(is_greedy ? 240 : 80), 7);
        spec.stop.max_tokens =
            is_greedy && tenants.num_output_tokens_of_greedy > 0
                ? tenants.num_output_tokens_of_greedy
                : 1 + static_cast<int64_t>(below(tenants.max_output_tokens));
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
      int64_t* const tokens = &service.tokens[owner.at(
          end != nullptr ? end->id : std::get<TokenEvent>(event).id)];
      if (end != nullptr) --num_open[owner.at(end->id)];
      if (!is_shared) continue;
      *tokens += end == nullptr ? 1 : end->usage.num_prompt_tokens;
    }
  }
  return service;
}

TEST(FairnessTest, AGreedyTenantGetsNoMoreThanThreeLightOnes) {
  const Service fair = ServeFourTenants({}, true);
  RecordProperty("service_ratio", std::to_string(fair.Ratio()));
  EXPECT_LE(fair.Ratio(), 1.2);
  const Service first_come = ServeFourTenants({}, false);
  RecordProperty("first_come_ratio", std::to_string(first_come.Ratio()));
  EXPECT_GT(first_come.Ratio(), 4);
}

TEST(FairnessTest, ATenantThatHasAllPlacesForLongAnswersGivesThemUp) {
  const Service fair = ServeFourTenants({.num_of_greedy = 40,
                                         .max_output_tokens = 1000,
                                         .num_output_tokens_of_greedy = 7900,
                                         .num_blocks = 4200,
                                         .first_light_step = 500},
                                        true);
  RecordProperty("service_ratio", std::to_string(fair.Ratio()));
  EXPECT_LE(fair.Ratio(), 1.2);
}

TEST(FairnessTest, ATenantThatHasAllBlocksForLongAnswersGivesThemUp) {
  const Service fair = ServeFourTenants({.num_of_greedy = 40,
                                         .max_output_tokens = 1000,
                                         .num_output_tokens_of_greedy = 7900,
                                         .num_blocks = 600,
                                         .first_light_step = 500},
                                        true);
  RecordProperty("service_ratio", std::to_string(fair.Ratio()));
  EXPECT_LE(fair.Ratio(), 1.2);
}

}  // namespace
}  // namespace witan
