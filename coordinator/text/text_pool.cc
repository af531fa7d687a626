#include "coordinator/text/text_pool.h"

#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/status.h"

namespace witan {

TextPool::TextPool(int num_threads, int max_queued)
    : max_queued_(static_cast<size_t>(max_queued)) {
  WITAN_CHECK(num_threads >= 1 && num_threads <= kMaxTextPoolThreads,
              "{} threads", num_threads);
  WITAN_CHECK(max_queued >= 1 && max_queued <= kMaxTextPoolQueue,
              "{} queued tasks", max_queued);
  threads_.reserve(num_threads);
  for (int i = 0; i < num_threads; ++i) {
    threads_.emplace_back([this] { RunTasks(); });
  }
}

TextPool::~TextPool() { Shutdown(); }

void TextPool::Shutdown() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  task_added_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

absl::Status TextPool::Submit(std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    if (stopping_) return Unavailable("the text pool is shutting down");
    if (tasks_.size() >= max_queued_) {
      return ResourceExhausted("the text pool's queue of {} tasks is full",
                               max_queued_);
    }
    tasks_.push_back(std::move(task));
  }
  task_added_.NotifyOne();
  return absl::OkStatus();
}

void TextPool::RunTasks() {
  while (true) {
    std::function<void()> task;
    {
      MutexLock lock(mutex_);
      while (tasks_.empty() && !stopping_) task_added_.Wait(mutex_);
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace witan
