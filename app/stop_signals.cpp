// SPDX-License-Identifier: MIT
#include "app/stop_signals.h"

#include <unistd.h>

namespace bitnet {

StopSignals::StopSignals() {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGINT);
  sigaddset(&signals_, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals_, &mask_before_);
  waiter_ = std::thread([this] { wait(); });
}

StopSignals::~StopSignals() {
  done_ = true;
  pthread_kill(waiter_.native_handle(), SIGTERM);
  waiter_.join();
  pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
}

void StopSignals::wait() {
  for (int signal = 0; sigwait(&signals_, &signal) == 0 && !done_;)
    if (stop_requested_.exchange(true)) _exit(kInterrupted);
}

}  // namespace bitnet
