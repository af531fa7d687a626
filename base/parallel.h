#ifndef WITAN_BASE_PARALLEL_H_
#define WITAN_BASE_PARALLEL_H_

#include <atomic>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

namespace witan {

// Calls run(0) to run(count - 1), each once, on up to num_threads threads, of
// which the caller's is one; for work of milliseconds, since the threads are
// made anew.
template <typename Run>
void ForEachOnThreads(size_t count, int num_threads, const Run& run) {
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < count; i = next++) run(i);
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < num_threads && static_cast<size_t>(i) < count; ++i) {
    try {
      threads.emplace_back(work);
    } catch (const std::system_error&) {
      break;  // no more threads on this machine: those there do the work
    }
  }
  work();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace witan

#endif  // WITAN_BASE_PARALLEL_H_
