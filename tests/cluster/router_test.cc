#include "coordinator/cluster/router.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/limits.h"

namespace witan {
namespace {

std::vector<BlockName> Names(const std::string& tenant, TokenId first,
                             size_t num_blocks) {
  const std::vector<TokenId> tokens(num_blocks * kBlockTokens, first);
  return BlockNames(RootBlockName({"w", "n"}, tenant, "", 0), tokens,
                    num_blocks);
}

// A prompt of 32 blocks and 10 tokens.
constexpr int64_t kPromptTokens = 32 * kBlockTokens + 10;

Router Serving(int num_replicas, RoutingPolicy policy,
               int64_t num_blocks = 1000) {
  Router router(num_replicas, policy);
  for (int i = 0; i < num_replicas; ++i) router.OnServing(i, 1, num_blocks);
  return router;
}

TEST(RouterTest, NothingServesNothingIsChosen) {
  Router router(2, RoutingPolicy::kPrefix);
  EXPECT_FALSE(router.Choose(10, 10, {}).has_value());
  router.OnServing(1, 1, 100);
  EXPECT_EQ(router.Choose(10, 10, {})->replica, 1);
  router.OnNotServing(1);
  EXPECT_FALSE(router.Choose(10, 10, {}).has_value());
}

TEST(RouterTest, AnotherModelThanTheFirstGetsNothing) {
  Router router(3, RoutingPolicy::kRoundRobin);
  EXPECT_FALSE(router.identity().has_value());
  EXPECT_TRUE(router.OnServing(1, 1, 100, {"weights", "numerics"}));
  EXPECT_FALSE(router.OnServing(0, 1, 100, {"weights", "other"}));
  EXPECT_FALSE(router.OnServing(2, 1, 100, {"other", "numerics"}));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(router.Choose(10, 10, {})->replica, 1);
  router.OnNotServing(1);
  EXPECT_FALSE(router.OnServing(0, 2, 100, {"weights", "other"}));
  EXPECT_FALSE(router.Choose(10, 10, {}).has_value());
  EXPECT_TRUE(router.OnServing(0, 3, 100, {"weights", "numerics"}));
  EXPECT_EQ(router.Choose(10, 10, {})->replica, 0);
}

TEST(RouterTest, ChoicesGoWhereTheFirstOneWentOrNowhere) {
  Router router = Serving(2, RoutingPolicy::kPrefix);
  const std::vector<BlockName> names = Names("a", 1, 1);
  const Route first = *router.Choose(kBlockTokens + 2, 100, names);
  for (int i = 0; i < 3; ++i) {
    const Route route =
        *router.Choose(kBlockTokens + 2, 100, names, first.replica);
    EXPECT_EQ(route.replica, first.replica);
    EXPECT_EQ(route.cost_tokens, 2 + 100);
  }
  router.OnNotServing(first.replica);
  EXPECT_FALSE(
      router.Choose(kBlockTokens + 2, 100, names, first.replica).has_value());
}

TEST(RouterTest, RequestsGoInTurnToThoseThatServe) {
  Router router = Serving(3, RoutingPolicy::kRoundRobin);
  router.OnNotServing(1);
  std::string order;
  for (int i = 0; i < 4; ++i) {
    order += std::to_string(router.Choose(10, 10, {})->replica);
  }
  EXPECT_EQ(order, "0202");
}

TEST(RouterTest, APromptGoesWhereItsBeginningWent) {
  Router router = Serving(3, RoutingPolicy::kPrefix);
  std::map<std::string, int> home;
  for (const char* tenant : {"a", "b", "c"}) {
    const Route route = *router.Choose(kPromptTokens, 16, Names(tenant, 1, 32));
    EXPECT_EQ(route.num_hit_tokens, 0);
    EXPECT_EQ(route.cost_tokens, kPromptTokens + 16);
    home[tenant] = route.replica;
    router.OnFinished(route);
  }
  EXPECT_EQ(std::set<int>({home["a"], home["b"], home["c"]}).size(), 3u);
  for (int i = 0; i < 5; ++i) {
    for (const char* tenant : {"c", "a", "b"}) {
      const Route route =
          *router.Choose(kPromptTokens, 16, Names(tenant, 1, 32));
      EXPECT_EQ(route.replica, home[tenant]);
      EXPECT_EQ(route.num_hit_tokens, 32 * kBlockTokens);
      EXPECT_EQ(route.cost_tokens, 10 + 16);
    }
  }
}

TEST(RouterTest, ACachedPromptIsWorthTwiceItsLengthInLoad) {
  Router router = Serving(2, RoutingPolicy::kPrefix);
  const std::vector<BlockName> names = Names("a", 1, 32);
  const int home = router.Choose(kPromptTokens, 1, names)->replica;
  int64_t load = router.outstanding_tokens(home);
  EXPECT_EQ(load, kPromptTokens + 1);
  int num_at_home = 0;
  while (router.Choose(kPromptTokens, 1, names)->replica == home) {
    ++num_at_home;
    load += 10 + 1;  // what is not cached, and the output
    ASSERT_EQ(router.outstanding_tokens(home), load);
    ASSERT_LE(load + 2 * 10, 2 * kPromptTokens + 11);
  }
  EXPECT_GT(load + 2 * 10, 2 * kPromptTokens);
  EXPECT_GT(num_at_home, 50);
}

TEST(RouterTest, WorkThatEndedIsForgottenAndSoIsThatOfEarlierEpochs) {
  Router router = Serving(2, RoutingPolicy::kPrefix);
  const Route first = *router.Choose(500, 16, {});
  const Route second = *router.Choose(500, 16, {});
  EXPECT_NE(first.replica, second.replica);
  router.OnFinished(first);
  EXPECT_EQ(router.outstanding_tokens(first.replica), 0);
  EXPECT_EQ(router.outstanding_tokens(second.replica), 516);
  router.OnNotServing(second.replica);
  router.OnServing(second.replica, 2, 100);
  EXPECT_EQ(router.outstanding_tokens(second.replica), 0);
  router.OnFinished(second);
  EXPECT_EQ(router.outstanding_tokens(second.replica), 0);
}

TEST(RouterTest, ANewEpochHasAnEmptyCache) {
  Router router = Serving(1, RoutingPolicy::kPrefix);
  const std::vector<BlockName> names = Names("a", 1, 32);
  router.OnFinished(*router.Choose(kPromptTokens, 16, names));
  router.OnServing(0, 1, 1000);  // known already
  EXPECT_GT(router.Choose(kPromptTokens, 16, names)->num_hit_tokens, 0);
  router.OnServing(0, 2, 1000);
  EXPECT_EQ(router.Choose(kPromptTokens, 16, names)->num_hit_tokens, 0);
}

TEST(RouterTest, NoMoreIsRememberedThanTheCacheHoldsLeavesForgottenFirst) {
  Router router = Serving(1, RoutingPolicy::kPrefix, 40);
  const std::vector<BlockName> a = Names("a", 1, 32);
  const std::vector<BlockName> b = Names("b", 1, 16);
  router.Choose(kPromptTokens, 1, a);
  router.Choose(kPromptTokens, 1, b);
  // 8 of 32 + 16 had to go: the last ones of a.
  EXPECT_EQ(router.Choose(kPromptTokens, 1, b)->num_hit_tokens,
            16 * kBlockTokens);
  EXPECT_EQ(router.Choose(kPromptTokens, 1, a)->num_hit_tokens,
            24 * kBlockTokens);
}

TEST(RouterTest, TheWholePromptIsNeverExpectedInTheCache) {
  Router router = Serving(1, RoutingPolicy::kPrefix);
  const std::vector<BlockName> names = Names("a", 1, 2);
  router.Choose(2 * kBlockTokens, 1, names);
  EXPECT_EQ(router.Choose(2 * kBlockTokens, 1, names)->num_hit_tokens,
            2 * kBlockTokens - 1);
}

}  // namespace
}  // namespace witan
