#ifndef WITAN_TESTS_TESTING_BLOCKING_QUEUE_H_
#define WITAN_TESTS_TESTING_BLOCKING_QUEUE_H_

#include <deque>
#include <optional>
#include <utility>

#include "base/mutex.h"

namespace witan {

// An unbounded queue between test threads.
template <typename T>
class BlockingQueue {
 public:
  void Push(T value) {
    MutexLock lock(mutex_);
    values_.push_back(std::move(value));
    changed_.NotifyOne();
  }
  // Waits for a value; nullopt once the queue is closed and empty.
  std::optional<T> Pop() {
    MutexLock lock(mutex_);
    while (values_.empty() && !closed_) changed_.Wait(mutex_);
    if (values_.empty()) return std::nullopt;
    T value = std::move(values_.front());
    values_.pop_front();
    return value;
  }
  void Close() {
    MutexLock lock(mutex_);
    closed_ = true;
    changed_.NotifyAll();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::deque<T> values_ WITAN_GUARDED_BY(mutex_);
  bool closed_ WITAN_GUARDED_BY(mutex_) = false;
};

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_BLOCKING_QUEUE_H_
