// How a CPU waits between looks at memory that another device writes, where there is nothing to
// sleep on: it gives its core to whoever wants it, and after a while leaves it alone. Two processes
// that poll on shared cores would else keep each other from what they wait for.
#pragma once

#include <chrono>
#include <cstdint>
#include <thread>

namespace lamina::cuda_p2p {

// After `looks` looks in a row that found nothing.
inline void pause_after(uint32_t looks) {
  constexpr uint32_t kEagerLooks = 500;  // some 100 us
  constexpr std::chrono::microseconds kNap(50);
  if (looks < kEagerLooks) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(kNap);
  }
}

}  // namespace lamina::cuda_p2p
