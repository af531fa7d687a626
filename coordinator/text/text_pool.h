#ifndef WITAN_COORDINATOR_TEXT_TEXT_POOL_H_
#define WITAN_COORDINATOR_TEXT_TEXT_POOL_H_

#include <absl/status/status.h>

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace witan {

// A bounded pool of threads for work on text (templates, tokenizing), so that
// it never runs inside an RPC callback. Tasks start in the order of Submit.
// Submit may be called from any thread, also from a task.
class TextPool {
 public:
  // REQUIRES: 1 <= num_threads <= kMaxTextPoolThreads and
  // 1 <= max_queued <= kMaxTextPoolQueue.
  TextPool(int num_threads, int max_queued);

  // As Shutdown; no Submit may run or follow, except from tasks.
  ~TextPool();

  TextPool(const TextPool&) = delete;
  TextPool& operator=(const TextPool&) = delete;

  // RESOURCE_EXHAUSTED when `max_queued` tasks wait already, UNAVAILABLE once
  // the pool shuts down. `task` must not throw.
  absl::Status Submit(std::function<void()> task) WITAN_EXCLUDES(mutex_);

  // Runs every task that was accepted, then joins the threads; refuses others.
  // Not from a task, and from one thread only. Nothing when called again.
  void Shutdown() WITAN_EXCLUDES(mutex_);

 private:
  void RunTasks() WITAN_EXCLUDES(mutex_);

  const size_t max_queued_;
  Mutex mutex_;
  CondVar task_added_;
  std::deque<std::function<void()>> tasks_ WITAN_GUARDED_BY(mutex_);
  bool stopping_ WITAN_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_TEXT_POOL_H_
