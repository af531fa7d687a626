#include "coordinator/text/text_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <vector>

namespace witan {
namespace {

// Occupies the pool's only thread until released.
class Blocker {
 public:
  explicit Blocker(TextPool* pool) {
    // The task may still be at it when this object and its maker are gone.
    auto started = std::make_shared<std::promise<void>>();
    std::future<void> is_started = started->get_future();
    EXPECT_TRUE(
        pool->Submit([started, released = released_.get_future().share()] {
              started->set_value();
              released.wait();
            })
            .ok());
    is_started.wait();
  }
  void Release() { released_.set_value(); }

 private:
  std::promise<void> released_;
};

TEST(TextPoolTest, RunsTasksInOrder) {
  std::vector<int> order;
  {
    TextPool pool(1, 100);
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(pool.Submit([&order, i] { order.push_back(i); }).ok());
    }
  }
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
}

TEST(TextPoolTest, RefusesTasksBeyondItsQueue) {
  std::atomic<int> num_run = 0;
  {
    TextPool pool(1, 2);
    Blocker blocker(&pool);
    EXPECT_TRUE(pool.Submit([&] { ++num_run; }).ok());
    EXPECT_TRUE(pool.Submit([&] { ++num_run; }).ok());
    EXPECT_EQ(pool.Submit([&] { num_run += 100; }).code(),
              absl::StatusCode::kResourceExhausted);
    blocker.Release();
  }
  EXPECT_EQ(num_run, 2);
}

TEST(TextPoolTest, RunsAcceptedTasksBeforeItEnds) {
  std::atomic<int> num_run = 0;
  auto pool = std::make_unique<TextPool>(1, 10);
  Blocker blocker(pool.get());
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(pool->Submit([&] { ++num_run; }).ok());
  }
  std::thread destroyer([&] { pool.reset(); });
  blocker.Release();
  destroyer.join();
  EXPECT_EQ(num_run, 10);
}

TEST(TextPoolTest, ShutdownWaitsForAcceptedTasksAndRefusesOthers) {
  TextPool pool(1, 10);
  std::atomic<int> num_run = 0;
  Blocker blocker(&pool);
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(pool.Submit([&] { ++num_run; }).ok());
  }
  std::thread closer([&] {
    pool.Shutdown();
    EXPECT_EQ(num_run, 10);
  });
  blocker.Release();
  closer.join();
  EXPECT_EQ(pool.Submit([&] { ++num_run; }).code(),
            absl::StatusCode::kUnavailable);
  pool.Shutdown();
  EXPECT_EQ(num_run, 10);
}

TEST(TextPoolTest, UsesAllItsThreads) {
  std::promise<void> first;
  std::promise<void> second;
  // Each waits for the other, so that both must run at once; the pool ends
  // before what they wait for.
  TextPool pool(2, 10);
  ASSERT_TRUE(pool.Submit([&] {
                    first.set_value();
                    second.get_future().wait();
                  })
                  .ok());
  ASSERT_TRUE(pool.Submit([&] {
                    first.get_future().wait();
                    second.set_value();
                  })
                  .ok());
}

}  // namespace
}  // namespace witan
