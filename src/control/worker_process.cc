#include "control/worker_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "control/attention_control_server.h"
#include "control/control_testing.h"

namespace lamina::control {

WorkerProcess::WorkerProcess(uint16_t port) {
  spawn(port);
  read_port();
}

WorkerProcess::~WorkerProcess() {
  kill_and_wait();
}

void WorkerProcess::spawn(uint16_t port) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw Error(StatusCode::kInternal, "pipe2 failed");
  output_.reset(ends[0]);
  const FileHandle child_output(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, child_output.get(), STDOUT_FILENO);
  std::string program = "/proc/self/exe";
  std::string flag = "--control-worker";
  std::string port_text = std::to_string(port);
  char* arguments[] = {program.data(), flag.data(), port_text.data(), nullptr};
  const int error = posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw Error(StatusCode::kInternal, "posix_spawn failed");
}

void WorkerProcess::read_port() {
  pollfd waited{.fd = output_.get(), .events = POLLIN, .revents = 0};
  char text[16] = {};
  if (poll(&waited, 1, 10'000) != 1 || read(output_.get(), text, sizeof(text) - 1) <= 0) {
    throw Error(StatusCode::kDeadlineExceeded, "the worker process does not listen");
  }
  port_ = static_cast<uint16_t>(std::strtoul(text, nullptr, 10));
}

void WorkerProcess::signal(int number) const {
  kill(pid_, number);
}

void WorkerProcess::kill_and_wait() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

int worker_process_main(uint16_t port) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  RecordingHandler handler;
  const AttentionControlServer server({.listen = {.port = port}, .security = {}}, handler);
  std::printf("%u\n", static_cast<unsigned>(server.port()));
  std::fflush(stdout);
  for (;;) pause();
}

}  // namespace lamina::control
