// How a CPU reaches memory that it shares with a GPU or with another thread, for message.h: the
// side of CPU workers, and the protocol's tests. Chunks are moved by plain accesses, which the
// release word orders.
#pragma once

#include <atomic>

#include "base/clock.h"
#include "transport/cuda_p2p/poll_pace.h"
#include "transport/cuda_p2p/protocol.h"

namespace lamina::cuda_p2p {

struct HostMemory {
  // A look may give the core away: nothing is far next to that.
  static constexpr uint32_t kLooksPerFailure = 32;
  static constexpr uint32_t kLooksPerLimits = 32;
  static constexpr uint64_t kAskIntervalNs = 0;

  static bool is_leader() { return true; }

  static void store_line(Line* to, const Line& line) {
    store_relaxed(&to->halves[0], line.halves[0]);
    store_relaxed(&to->halves[1], line.halves[1]);
  }
  static Line load_line(const Line* from) {
    return {load_relaxed(&from->halves[0]), load_relaxed(&from->halves[1])};
  }
  static void store_chunk(Chunk* to, const Chunk& chunk) { *to = chunk; }
  static Chunk load_chunk(const Chunk* from) { return *from; }

  static void store_relaxed(uint64_t* to, uint64_t value) {
    std::atomic_ref(*to).store(value, std::memory_order_relaxed);
  }
  static void store_release(uint64_t* to, uint64_t value) {
    std::atomic_ref(*to).store(value, std::memory_order_release);
  }
  static uint64_t load_relaxed(const uint64_t* from) {
    return atomic(from).load(std::memory_order_relaxed);
  }
  static uint64_t load_acquire(const uint64_t* from) {
    return atomic(from).load(std::memory_order_acquire);
  }
  // Whether the caller is the first to set it.
  static bool claim(uint64_t* word) {
    return std::atomic_ref(*word).exchange(1, std::memory_order_relaxed) == 0;
  }
  // Whether it was `old` still, and is `value` now.
  static bool replace(uint64_t* word, uint64_t old, uint64_t value) {
    return std::atomic_ref(*word).compare_exchange_strong(old, value, std::memory_order_relaxed);
  }
  // The new count. Whoever counts later knows what those before knew.
  static uint64_t count_up(uint64_t* word) {
    return std::atomic_ref(*word).fetch_add(1, std::memory_order_acq_rel) + 1;
  }
  static uint64_t now_ns() {
    return static_cast<uint64_t>(steady_clock().now().time_since_epoch().count());
  }
  static void pause(uint32_t looks) { pause_after(looks); }

 private:
  // std::atomic_ref takes no const object before C++26.
  static std::atomic_ref<uint64_t> atomic(const uint64_t* word) {
    return std::atomic_ref(*const_cast<uint64_t*>(word));
  }
};
static_assert(std::atomic_ref<uint64_t>::is_always_lock_free);

// One thread as a block of its own.
struct OneThread {
  uint32_t block = 0;
  uint32_t num_blocks = 1;
  uint32_t thread = 0;
  uint32_t num_threads = 1;

  static void sync() {}
  static bool all(bool mine) { return mine; }
};

}  // namespace lamina::cuda_p2p
