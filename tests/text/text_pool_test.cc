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
    std::promise<void> started;
    EXPECT_TRUE(pool->Submit([&] {
                      started.set_value();
                      released_.get_future().wait();
                    })
                    .ok());
    started.get_future().wait();
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

TEST(TextPoolTest, UsesAllItsThreads) {
  TextPool pool(2, 10);
  // Each waits for the other, so that both must run at once.
  std::promise<void> first;
  std::promise<void> second;
  std::promise<void> done;
  ASSERT_TRUE(pool.Submit([&] {
                    first.set_value();
                    second.get_future().wait();
                    done.set_value();
                  })
                  .ok());
  ASSERT_TRUE(pool.Submit([&] {
                    first.get_future().wait();
                    second.set_value();
                  })
                  .ok());
  done.get_future().wait();
}

}  // namespace
}  // namespace witan
