#include "app/signals.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>

namespace lamina::app {
namespace {

sigset_t termination_set() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

void block_termination_signals() {
  sigset_t set = termination_set();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int wait_for_termination() {
  const sigset_t set = termination_set();
  int number = 0;
  while (sigwait(&set, &number) != 0) {
  }
  return number;
}

void unblock_termination_signals() {
  sigset_t set = termination_set();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void exit_with_parent(int parent_pid) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent_pid) std::exit(1);
}

}  // namespace lamina::app
