#include "base/cores.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

namespace witan {
namespace {

TEST(CoresTest, CountsWhatTheThreadMayUseAndNoMore) {
  EXPECT_GE(NumUsableCores(), 1);
  // In a thread of its own, which takes its restriction with it.
  std::thread([] {
    cpu_set_t allowed;
    ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
    EXPECT_EQ(NumUsableCores(), CPU_COUNT(&allowed));
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (!CPU_ISSET(core, &allowed)) continue;
      CPU_SET(core, &one);
      break;
    }
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_EQ(NumUsableCores(), 1);
  }).join();
}

}  // namespace
}  // namespace witan
