// Termination signals, as a wait instead of a handler: blocked in every thread, taken by one.
#pragma once

namespace lamina::app {

// Blocks SIGINT, SIGTERM and SIGPIPE in this thread and all it will start. Call before any thread
// exists.
void block_termination_signals();
// Waits for SIGINT or SIGTERM; returns its number.
int wait_for_termination();
// After this, the next SIGINT or SIGTERM ends the process at once.
void unblock_termination_signals();
// The kernel sends this process SIGTERM when its parent `parent_pid` ends; ends at once if that
// happened already.
void exit_with_parent(int parent_pid);

}  // namespace lamina::app
