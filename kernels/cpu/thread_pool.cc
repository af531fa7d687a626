#include "kernels/cpu/thread_pool.h"

#include <xmmintrin.h>

#include <chrono>
#include <system_error>

#include "base/cores.h"
#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

constexpr uint32_t kFloatingPointMode = 0x1f80;

// Returns once `value` is no longer `old`.
void WaitWhileEqual(const std::atomic<uint32_t>& value, uint32_t old,
                    bool may_spin) {
  if (may_spin) {
    const auto deadline = std::chrono::steady_clock::now() +
                          std::chrono::microseconds(kMaxSpinUs);
    do {
      for (int i = 0; i < 64; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        _mm_pause();
      }
    } while (std::chrono::steady_clock::now() < deadline);
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old);
}

}  // namespace

ScopedFloatingPointMode::ScopedFloatingPointMode() : saved_(_mm_getcsr()) {
  _mm_setcsr(kFloatingPointMode);
}

ScopedFloatingPointMode::~ScopedFloatingPointMode() { _mm_setcsr(saved_); }

ThreadPool::ThreadPool(int num_threads)
    : may_spin_(num_threads <= NumUsableCores()) {}

absl::StatusOr<std::unique_ptr<ThreadPool>> ThreadPool::Create(
    int num_threads) {
  std::unique_ptr<ThreadPool> pool(new ThreadPool(num_threads));
  for (int thread = 1; thread < num_threads; ++thread) {
    try {
      pool->workers_.emplace_back(
          [raw = pool.get(), thread] { raw->WorkerLoop(thread); });
    } catch (const std::system_error& error) {
      return ResourceExhausted("cannot start thread {} of {}: {}", thread + 1,
                               num_threads, error.what());
    }
  }
  return pool;
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ForEach(int64_t num_items, const Body& body) {
  if (num_items <= 0) return;
  if (workers_.empty() || num_items == 1) {
    for (int64_t item = 0; item < num_items; ++item) body(item, 0);
    return;
  }
  body_ = &body;
  num_items_ = num_items;
  next_item_.store(0, std::memory_order_relaxed);
  num_busy_.store(static_cast<uint32_t>(workers_.size()),
                  std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  RunItems(0);
  for (uint32_t busy = num_busy_.load(std::memory_order_acquire); busy != 0;
       busy = num_busy_.load(std::memory_order_acquire)) {
    WaitWhileEqual(num_busy_, busy, may_spin_);
  }
}

int64_t ThreadPool::RunItems(int thread) {
  int64_t num_run = 0;
  for (int64_t item = next_item_.fetch_add(1, std::memory_order_relaxed);
       item < num_items_;
       item = next_item_.fetch_add(1, std::memory_order_relaxed)) {
    (*body_)(item, thread);
    ++num_run;
  }
  return num_run;
}

void ThreadPool::WorkerLoop(int thread) {
  ScopedFloatingPointMode mode;
  for (uint32_t seen = 0;; ++seen) {
    WaitWhileEqual(generation_, seen, may_spin_);
    if (stopping_.load()) return;
    num_items_of_other_threads_.fetch_add(RunItems(thread),
                                          std::memory_order_relaxed);
    num_busy_.fetch_sub(1, std::memory_order_release);
    num_busy_.notify_one();
  }
}

}  // namespace witan
