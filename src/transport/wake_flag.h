// WakeFlag: lets any thread end another's wait_any(). The raiser first leaves its news where the
// waiter looks (a queue, a flag to stop), then raises; the waiter clears, then looks. EventFd: a
// descriptor that is readable once signalled, for sleeps on descriptors.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/file.h"
#include "transport/kernel_wait.h"

namespace lamina {

// signal() and drain() from any thread.
class EventFd {
 public:
  // Throws Error: kResourceExhausted when the process has no descriptor left.
  EventFd();
  [[nodiscard]] int fd() const { return event_.get(); }
  void signal();
  void drain();

 private:
  FileHandle event_;
};

// raise() from any thread; the rest from the one thread that waits.
class WakeFlag {
 public:
  // Throws as EventFd does.
  WakeFlag() = default;

  // Ends the wait under way, or the next one. Costs a system call only if the waiter sleeps.
  void raise();
  // Stays true, and no wait blocks, until clear().
  [[nodiscard]] bool is_raised() const { return raised_.load(std::memory_order_seq_cst) != 0; }
  void clear() { raised_.store(0, std::memory_order_seq_cst); }

  // For wait_any(). After begin_sleep() every raise() also ends a sleep on word() or event_fd().
  void begin_sleep() { sleeps_.store(true, std::memory_order_seq_cst); }
  void end_sleep() { sleeps_.store(false, std::memory_order_relaxed); }
  [[nodiscard]] FutexWord word() { return {.word = &raised_, .seen = 0}; }
  [[nodiscard]] int event_fd() const { return event_.fd(); }
  // After event_fd() became readable, before the next look at is_raised().
  void drain_event() { event_.drain(); }

 private:
  std::atomic<uint32_t> raised_{0};  // futex word
  std::atomic<bool> sleeps_{false};
  EventFd event_;
};

}  // namespace lamina
