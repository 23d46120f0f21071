// Termination signals, as a wait instead of a handler: blocked in every thread, taken by one.
#pragma once

#include <atomic>
#include <thread>

namespace lamina::app {

// Blocks SIGINT, SIGTERM and SIGPIPE in this thread and all it will start. Call before any thread
// exists.
void block_termination_signals();
// While it lives, SIGINT or SIGTERM end the process at once: for the time before there is anything
// to end in order.
class ExitOnTermination {
 public:
  ExitOnTermination();
  ExitOnTermination(const ExitOnTermination&) = delete;
  ExitOnTermination& operator=(const ExitOnTermination&) = delete;
  ~ExitOnTermination();

 private:
  std::atomic<bool> is_over_{false};
  std::thread thread_;
};
// Waits for SIGINT or SIGTERM; returns its number.
int wait_for_termination();
// After this, the next SIGINT or SIGTERM ends the process at once.
void unblock_termination_signals();
// The kernel sends this process SIGTERM when its parent `parent_pid` ends; ends at once if that
// happened already.
void exit_with_parent(int parent_pid);

}  // namespace lamina::app
