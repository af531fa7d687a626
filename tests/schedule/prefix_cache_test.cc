#include "coordinator/schedule/prefix_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace witan {
namespace {

std::vector<TokenId> Tokens(TokenId first) {
  std::vector<TokenId> tokens(kBlockTokens);
  for (int i = 0; i < kBlockTokens; ++i) tokens[i] = first + i;
  return tokens;
}

BlockName NameOf(TokenId first) {
  return ChildBlockName(RootBlockName({"w", "n"}, "tenant", "", 0),
                        Tokens(first));
}

TEST(PrefixCacheTest, AReleasedBlockIsFoundAgainOnlyByNameAndTokens) {
  PrefixCache cache(4);
  const int32_t block = cache.Allocate().value();
  EXPECT_FALSE(cache.Find(NameOf(1), Tokens(1)).has_value());
  ASSERT_TRUE(cache.Insert(block, NameOf(1), Tokens(1)));
  cache.Release(block);
  EXPECT_EQ(cache.num_available(), 3);
  EXPECT_EQ(cache.Find(NameOf(1), Tokens(1)), block);
  EXPECT_FALSE(cache.Find(NameOf(2), Tokens(2)).has_value());
  // A collision of names.
  EXPECT_FALSE(cache.Find(NameOf(1), Tokens(2)).has_value());
  cache.Hold(block);
  EXPECT_EQ(cache.num_available(), 2);
  EXPECT_TRUE(cache.is_held(block));
}

TEST(PrefixCacheTest, OneNameIsGivenOnce) {
  PrefixCache cache(4);
  const int32_t first = cache.Allocate().value();
  const int32_t second = cache.Allocate().value();
  EXPECT_TRUE(cache.Insert(first, NameOf(1), Tokens(1)));
  EXPECT_FALSE(cache.Insert(second, NameOf(1), Tokens(1)));
  cache.Release(second);  // free, it has no name
  EXPECT_EQ(cache.num_named(), 1);
  EXPECT_EQ(cache.Allocate(), second);
}

TEST(PrefixCacheTest, FreeBlocksGoBeforeKeptOnesAndHeldOnesNever) {
  PrefixCache cache(4);
  std::vector<int32_t> blocks;
  for (TokenId i = 0; i < 3; ++i) {
    blocks.push_back(cache.Allocate().value());
    ASSERT_TRUE(cache.Insert(blocks.back(), NameOf(i), Tokens(i)));
  }
  EXPECT_FALSE(cache.Allocate().has_value());
  cache.Release(blocks[1]);
  cache.Release(blocks[0]);
  EXPECT_EQ(cache.Allocate(), blocks[1]);  // released first
  EXPECT_EQ(cache.num_evictions(), 1);
  EXPECT_FALSE(cache.Find(NameOf(1), Tokens(1)).has_value());
  EXPECT_TRUE(cache.Find(NameOf(0), Tokens(0)).has_value());
  EXPECT_EQ(cache.Allocate(), blocks[0]);
  EXPECT_FALSE(cache.Allocate().has_value());
  EXPECT_TRUE(cache.Find(NameOf(2), Tokens(2)).has_value());
}

TEST(PrefixCacheTest, NamesDependOnEverythingThatDecidesTheBits) {
  std::set<std::string> names;
  const auto add = [&names](const BlockName& name) {
    names.insert(std::string(name.bytes.begin(), name.bytes.end()));
  };
  const PrefixIdentity identities[] = {
      {"w", "n"}, {"w2", "n"}, {"w", "n2"}, {"wn", ""}, {"", "wn"}};
  for (const PrefixIdentity& identity : identities) {
    for (const char* tenant : {"a", "b", "n"}) {
      const BlockName root = RootBlockName(identity, tenant, "", 0);
      add(root);
      add(ChildBlockName(root, Tokens(1)));
      add(ChildBlockName(root, Tokens(2)));
      add(ChildBlockName(ChildBlockName(root, Tokens(1)), Tokens(2)));
    }
  }
  EXPECT_EQ(names.size(), 5u * 3 * 4);
}

// A naive cache: lists, searched from one end to the other.
struct NaiveCache {
  std::list<int32_t> kept;  // longest unused first
  std::map<int32_t, TokenId> name_of;
  std::map<int32_t, int> num_holders;
};

TEST(PrefixCacheTest, BehavesAsANaiveOneInRandomRuns) {
  int64_t num_evictions = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    PrefixCache cache(9);
    NaiveCache naive;
    for (int turn = 0; turn < 2000; ++turn) {
      const TokenId name = static_cast<TokenId>(random() % 12);
      const auto named = std::find_if(
          naive.name_of.begin(), naive.name_of.end(),
          [name](const auto& entry) { return entry.second == name; });
      const std::optional<int32_t> found =
          cache.Find(NameOf(name), Tokens(name));
      ASSERT_EQ(found.has_value(), named != naive.name_of.end());
      if (found) {
        ASSERT_EQ(*found, named->first);
        if (naive.num_holders[*found]++ == 0) naive.kept.remove(*found);
        cache.Hold(*found);
      } else if (naive.num_holders.size() + naive.kept.size() < 8 ||
                 !naive.kept.empty()) {
        const int32_t block = cache.Allocate().value();
        if (naive.num_holders.size() + naive.kept.size() == 8) {
          ASSERT_EQ(block, naive.kept.front());
          naive.kept.pop_front();
          ++num_evictions;
        } else {
          ASSERT_FALSE(naive.name_of.contains(block));
        }
        ASSERT_FALSE(naive.num_holders.contains(block));
        naive.num_holders[block] = 1;
        naive.name_of.erase(block);
        if (random() % 4 != 0) {
          ASSERT_TRUE(cache.Insert(block, NameOf(name), Tokens(name)));
          naive.name_of[block] = name;
        }
      } else {
        ASSERT_FALSE(cache.Allocate().has_value());
      }
      while (!naive.num_holders.empty() && random() % 2 == 0) {
        auto it = naive.num_holders.begin();
        std::advance(it, random() % naive.num_holders.size());
        const int32_t block = it->first;
        cache.Release(block);
        if (--it->second > 0) continue;
        naive.num_holders.erase(it);
        if (naive.name_of.contains(block)) naive.kept.push_back(block);
      }
      ASSERT_EQ(cache.num_available(),
                8 - static_cast<int64_t>(naive.num_holders.size()));
      ASSERT_EQ(cache.num_named(), static_cast<int64_t>(naive.name_of.size()));
    }
  }
  EXPECT_GT(num_evictions, 500);
}

}  // namespace
}  // namespace witan
