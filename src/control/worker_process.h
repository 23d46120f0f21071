// WorkerProcess: an attention worker's control server in a child process, to be killed, stopped and
// restarted by tests. The child is the test program itself, started anew (gRPC does not survive
// fork()). Tests only.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "base/file.h"

namespace lamina::control {

class WorkerProcess {
 public:
  // Port 0: any free one. Throws Error if the child does not listen within ten seconds.
  explicit WorkerProcess(uint16_t port = 0);
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;
  ~WorkerProcess();  // kills it

  [[nodiscard]] uint16_t port() const { return port_; }
  void signal(int number) const;
  // SIGKILL, and waits for its end.
  void kill_and_wait();

 private:
  void spawn(uint16_t port);
  void read_port();

  pid_t pid_ = -1;
  FileHandle output_;
  uint16_t port_ = 0;
};

// The child's main: serves until killed. Called by the test program's main for
// "--control-worker PORT".
int worker_process_main(uint16_t port);

}  // namespace lamina::control
