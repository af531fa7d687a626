#include "base/cores.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace witan {

int NumUsableCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) {
    return std::max(1, CPU_COUNT(&cores));
  }
  // More cores than cpu_set_t can name.
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace witan
