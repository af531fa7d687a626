#ifndef WITAN_BASE_MUTEX_H_
#define WITAN_BASE_MUTEX_H_

// std::mutex and std::condition_variable with Clang's thread-safety
// annotations. Used instead of absl::Mutex everywhere, because Debian's Abseil
// is not built with ThreadSanitizer and its locks are invisible to it.

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define WITAN_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define WITAN_THREAD_ANNOTATION(x)
#endif

#define WITAN_GUARDED_BY(x) WITAN_THREAD_ANNOTATION(guarded_by(x))
#define WITAN_REQUIRES(...) \
  WITAN_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define WITAN_EXCLUDES(...) WITAN_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))

namespace witan {

class WITAN_THREAD_ANNOTATION(capability("mutex")) Mutex {
 public:
  void Lock() WITAN_THREAD_ANNOTATION(acquire_capability()) { mutex_.lock(); }
  void Unlock() WITAN_THREAD_ANNOTATION(release_capability()) {
    mutex_.unlock();
  }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// Holds `mutex` for the lifetime of the object.
class WITAN_THREAD_ANNOTATION(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex)
      WITAN_THREAD_ANNOTATION(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.Lock();
  }
  ~MutexLock() WITAN_THREAD_ANNOTATION(release_capability()) {
    mutex_.Unlock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

class CondVar {
 public:
  // REQUIRES: the caller holds `mutex`; it is released while waiting. May wake
  // spuriously: call in a loop that tests the condition.
  void Wait(Mutex& mutex) WITAN_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // Like Wait; returns false once `deadline` has passed.
  template <typename Clock, typename Duration>
  bool WaitUntil(Mutex& mutex,
                 std::chrono::time_point<Clock, Duration> deadline)
      WITAN_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const bool in_time =
        condition_.wait_until(lock, deadline) == std::cv_status::no_timeout;
    lock.release();
    return in_time;
  }
  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace witan

#endif  // WITAN_BASE_MUTEX_H_
