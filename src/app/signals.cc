#include "app/signals.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>

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

ExitOnTermination::ExitOnTermination()
    : thread_([this] {
        const sigset_t set = termination_set();
        const timespec pause{.tv_sec = 0, .tv_nsec = 20'000'000};
        while (!is_over_) {
          const int number = sigtimedwait(&set, nullptr, &pause);
          if (number > 0)
            ::_exit(128 + number);  // as a shell reports it; workers end with their parent
        }
      }) {}

ExitOnTermination::~ExitOnTermination() {
  is_over_ = true;
  thread_.join();
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
  if (getppid() != parent_pid) std::_Exit(1);
}

}  // namespace lamina::app
