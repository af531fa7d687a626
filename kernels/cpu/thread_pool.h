#ifndef WITAN_KERNELS_CPU_THREAD_POOL_H_
#define WITAN_KERNELS_CPU_THREAD_POOL_H_

// Fork-join over the threads of one rank.

#include <absl/status/statusor.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace witan {

// Sets MXCSR to 0x1f80 (round to nearest even, subnormals kept, exceptions
// masked) for its lifetime: the bits of a kernel must not depend on what the
// calling thread did before.
class ScopedFloatingPointMode {
 public:
  ScopedFloatingPointMode();
  ~ScopedFloatingPointMode();
  ScopedFloatingPointMode(const ScopedFloatingPointMode&) = delete;
  ScopedFloatingPointMode& operator=(const ScopedFloatingPointMode&) = delete;

 private:
  uint32_t saved_;
};

// `num_threads` threads, the caller's included, so that one thread means no
// thread is started. Owned and called by one thread. Between two calls the
// others spin for at most 50 us, then sleep; with more threads than cores they
// sleep at once.
class ThreadPool {
 public:
  // RESOURCE_EXHAUSTED when the system gives no more threads.
  static absl::StatusOr<std::unique_ptr<ThreadPool>> Create(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Items so far that ran on other threads than the caller's.
  int64_t num_items_of_other_threads() const {
    return num_items_of_other_threads_.load(std::memory_order_relaxed);
  }

  // Calls body(item, thread) once for every item in [0, num_items), thread in
  // [0, num_threads()), each item on whichever thread is free first. Returns
  // when all are done. Which thread runs an item must not affect its result.
  using Body = std::function<void(int64_t item, int thread)>;
  void ForEach(int64_t num_items, const Body& body);

 private:
  explicit ThreadPool(int num_threads);

  void WorkerLoop(int thread);
  // Returns how many items it ran.
  int64_t RunItems(int thread);

  const bool may_spin_;
  // Written by the caller before `generation_` rises.
  const Body* body_ = nullptr;
  int64_t num_items_ = 0;
  alignas(64) std::atomic<int64_t> next_item_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<uint32_t> num_busy_{0};
  std::atomic<int64_t> num_items_of_other_threads_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace witan

#endif  // WITAN_KERNELS_CPU_THREAD_POOL_H_
