#ifndef WITAN_BASE_PROCESS_H_
#define WITAN_BASE_PROCESS_H_

#include <csignal>

namespace witan {

// Turns SIGTERM and SIGINT into calls. Construct first in main(), before any
// thread exists: the signals stay blocked in every thread started later.
// SIGPIPE is ignored.
class TerminationSignals {
 public:
  TerminationSignals();

  // Returns when one of the signals arrives, or Wake is called.
  void Wait();
  // Ends Wait. Any thread.
  void Wake();

 private:
  sigset_t signals_;
};

}  // namespace witan

#endif  // WITAN_BASE_PROCESS_H_
