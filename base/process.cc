#include "base/process.h"

#include <pthread.h>
#include <unistd.h>

namespace witan {

TerminationSignals::TerminationSignals() {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGTERM);
  sigaddset(&signals_, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

void TerminationSignals::Wait() {
  int signal = 0;
  sigwait(&signals_, &signal);
}

void TerminationSignals::Wake() { kill(getpid(), SIGTERM); }

}  // namespace witan
