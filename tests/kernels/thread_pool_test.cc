// Fork-join: every item once, whatever the number of threads, and threads that
// end in order, also when the system gives too few.

#include "kernels/cpu/thread_pool.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/backend.h"

namespace {

std::atomic<int> threads_left{std::numeric_limits<int>::max()};

}  // namespace

// In the place of the system's, which it calls as long as threads are left.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attr,
                              void* (*start)(void*), void* argument) noexcept {
  using Create =
      int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto system_create =
      reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (threads_left.fetch_sub(1) <= 0) return EAGAIN;
  return system_create(thread, attr, start, argument);
}

namespace witan {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<ThreadPool> MakePool(int num_threads) {
  auto pool = ThreadPool::Create(num_threads);
  return pool.ok() ? *std::move(pool) : nullptr;
}

// The system's letter for what a thread does: R runs, S sleeps.
char StateOfThread(const std::filesystem::path& task) {
  std::ifstream file(task / "stat");
  std::string stat((std::istreambuf_iterator<char>(file)), {});
  const size_t end_of_name = stat.rfind(") ");
  return end_of_name == std::string::npos ? '?' : stat[end_of_name + 2];
}

// Returns once all threads of this process but the caller sleep.
void WaitUntilOthersSleep() {
  for (bool all_sleep = false; !all_sleep; std::this_thread::yield()) {
    int num_awake = 0;
    for (const auto& task :
         std::filesystem::directory_iterator("/proc/self/task")) {
      if (StateOfThread(task.path()) != 'S') ++num_awake;
    }
    all_sleep = num_awake <= 1;
  }
}

TEST(ThreadPoolTest, RunsEveryItemOnceAndReturnsWhenAllAreDone) {
  for (const int num_threads : {1, 2, 3, 8}) {
    const auto pool = MakePool(num_threads);
    ASSERT_NE(pool, nullptr);
    EXPECT_EQ(pool->num_threads(), num_threads);
    for (int call = 0; call < 3000; ++call) {
      const int64_t num_items = call % 40;
      // Plain integers: only the fork and the join order their accesses.
      std::vector<int> runs(static_cast<size_t>(num_items), call);
      pool->ForEach(num_items, [&](int64_t item, int) {
        ++runs[static_cast<size_t>(item)];
      });
      for (const int count : runs) ASSERT_EQ(count, call + 1);
    }
  }
}

TEST(ThreadPoolTest, GivesEachThreadANumberOfItsOwn) {
  constexpr int kThreads = 4;
  const auto pool = MakePool(kThreads);
  ASSERT_NE(pool, nullptr);
  std::vector<std::atomic<int>> in_use(kThreads);
  std::atomic<bool> fits{true};
  for (int call = 0; call < 200; ++call) {
    pool->ForEach(64, [&](int64_t, int thread) {
      if (thread < 0 || thread >= kThreads) {
        fits = false;
        return;
      }
      if (in_use[static_cast<size_t>(thread)]++ != 0) fits = false;
      in_use[static_cast<size_t>(thread)]--;
    });
  }
  EXPECT_TRUE(fits);
}

TEST(ThreadPoolTest, WakesThreadsThatSleep) {
  const auto pool = MakePool(3);
  ASSERT_NE(pool, nullptr);
  for (int call = 0; call < 20; ++call) {
    WaitUntilOthersSleep();
    std::atomic<int> runs{0};
    // Items that wait for each other: all three threads must come.
    pool->ForEach(3, [&](int64_t, int) {
      ++runs;
      while (runs < 3) std::this_thread::yield();
    });
    EXPECT_EQ(runs, 3);
    EXPECT_EQ(pool->num_items_of_other_threads(), 2 * (call + 1));
  }
}

TEST(ThreadPoolTest, EndsWhileItsThreadsStartSpinOrSleep) {
  for (int i = 0; i < 100; ++i) {
    auto pool = MakePool(1 + i % 5);
    ASSERT_NE(pool, nullptr);
    if (i % 2 == 1) pool->ForEach(10, [](int64_t, int) {});
    if (i % 4 >= 2) WaitUntilOthersSleep();
    pool.reset();
  }
}

TEST(ThreadPoolTest, NamesTheThreadThatTheSystemDoesNotGive) {
  for (const int given : {0, 1, 3}) {
    threads_left = given;
    const auto pool = ThreadPool::Create(8);
    threads_left = given;
    const auto backend = MakeCpuBackend({.num_threads = 8});
    threads_left = std::numeric_limits<int>::max();
    for (const absl::Status& status : {pool.status(), backend.status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
      EXPECT_THAT(
          std::string(MessageOf(status)),
          HasSubstr(fmt::format("cannot start thread {} of 8", given + 2)));
    }
  }
  EXPECT_NE(MakePool(8), nullptr);
}

}  // namespace
}  // namespace witan
