#include "transport/wake_flag.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"

namespace lamina {

EventFd::EventFd() : event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (!event_) throw Error(StatusCode::kResourceExhausted, "cannot create an eventfd");
}

void EventFd::signal() {
  const uint64_t one = 1;
  // It can only fail because it was signalled 2^64 - 2 times before.
  [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof(one));
}

void EventFd::drain() {
  uint64_t count = 0;
  // It can only fail because there was nothing to drain.
  [[maybe_unused]] const ssize_t got = ::read(event_.get(), &count, sizeof(count));
}

// The waiter stores `sleeps_` and then looks at `raised_`; this stores `raised_` and then looks at
// `sleeps_`: in a total order one of them sees the other, so no raise is lost. An event written
// after the waiter left its sleep costs the next one an early end.
void WakeFlag::raise() {
  raised_.store(1, std::memory_order_seq_cst);
  if (!sleeps_.load(std::memory_order_seq_cst)) return;
  wake_sleepers(raised_);
  event_.signal();
}

}  // namespace lamina
