// How a GPU reaches memory that it shares with another GPU or with a CPU, for message.h: one PTX
// instruction each, at system scope but for what is between blocks. Device code only.
//
// Lines are vectors of two 64-bit elements: PTX promises that an element is moved as one, not that
// a vector is, and a half of a line needs no more. Everything that another device may write is read
// past the L1 cache (.relaxed.sys, .acquire.sys).
#pragma once

#include <cstddef>
#include <cstdint>

#include "transport/cuda_p2p/protocol.h"

namespace lamina::cuda_p2p {

struct DeviceMemory {
  // A look is the better part of a microsecond: a wait hears of another's failure within some 20
  // of them, and of the host's word and of time within a few hundred.
  static constexpr uint32_t kLooksPerFailure = 32;
  static constexpr uint32_t kLooksPerLimits = 512;
  static constexpr uint64_t kAskIntervalNs = 100'000;

  // Whether this thread is the lowest of those of its warp that run together here. The lowest of
  // all that wait is that wherever it is: there is always one.
  __device__ static bool is_leader() {
    uint32_t lower = 0;
    asm("mov.u32 %0, %lanemask_lt;" : "=r"(lower));
    return (__activemask() & lower) == 0;
  }

  __device__ static void store_line(Line* to, const Line& line) {
    asm volatile("st.relaxed.sys.global.v2.b64 [%0], {%1, %2};" ::"l"(to),
                 "l"(line.halves[0]),
                 "l"(line.halves[1])
                 : "memory");
  }
  __device__ static Line load_line(const Line* from) {
    Line line;
    asm volatile("ld.relaxed.sys.global.v2.b64 {%0, %1}, [%2];"
                 : "=l"(line.halves[0]), "=l"(line.halves[1])
                 : "l"(from)
                 : "memory");
    return line;
  }
  // Weak: the release after it orders it.
  __device__ static void store_chunk(Chunk* to, const Chunk& chunk) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to),
                 "r"(chunk.words[0]),
                 "r"(chunk.words[1]),
                 "r"(chunk.words[2]),
                 "r"(chunk.words[3])
                 : "memory");
  }
  __device__ static Chunk load_chunk(const Chunk* from) {
    Chunk chunk;
    asm volatile(
        "ld.relaxed.sys.global.v4.b32 {%0, %1, %2, %3}, [%4];"
        : "=r"(chunk.words[0]), "=r"(chunk.words[1]), "=r"(chunk.words[2]), "=r"(chunk.words[3])
        : "l"(from)
        : "memory");
    return chunk;
  }

  __device__ static void store_relaxed(uint64_t* to, uint64_t value) {
    asm volatile("st.relaxed.sys.global.b64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
  }
  __device__ static void store_release(uint64_t* to, uint64_t value) {
    asm volatile("st.release.sys.global.b64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
  }
  __device__ static uint64_t load_relaxed(const uint64_t* from) {
    uint64_t value;
    asm volatile("ld.relaxed.sys.global.b64 %0, [%1];" : "=l"(value) : "l"(from) : "memory");
    return value;
  }
  __device__ static uint64_t load_acquire(const uint64_t* from) {
    uint64_t value;
    asm volatile("ld.acquire.sys.global.b64 %0, [%1];" : "=l"(value) : "l"(from) : "memory");
    return value;
  }
  // Of this GPU's memory.
  __device__ static bool claim(uint64_t* word) {
    return atomicExch(reinterpret_cast<unsigned long long*>(word), 1ULL) == 0;
  }
  // Of this GPU's memory: whether it was `old` still, and is `value` now.
  __device__ static bool replace(uint64_t* word, uint64_t old, uint64_t value) {
    return atomicCAS(reinterpret_cast<unsigned long long*>(word), old, value) == old;
  }
  // Of this GPU's memory, by its blocks; the new count. Whoever counts later knows what those
  // before knew.
  __device__ static uint64_t count_up(uint64_t* word) {
    uint64_t before = 0;
    asm volatile("atom.acq_rel.gpu.global.add.u64 %0, [%1], 1;"
                 : "=l"(before)
                 : "l"(word)
                 : "memory");
    return before + 1;
  }
  // The clock of the whole GPU, which does not change with its frequency. May stand still for a
  // microsecond.
  __device__ static uint64_t now_ns() {
    uint64_t ns;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns));
    return ns;
  }
  __device__ static void pause(uint32_t /*looks*/) {}
};

// Where a step's messages begin and whether it has failed, in one load past the L1 cache.
struct StepBegin {
  Stamp base;
  bool has_failed;
};
static_assert(offsetof(StepState, base) == 0 && offsetof(StepState, failed) == sizeof(Stamp));

__device__ inline StepBegin load_begin(const StepView& step) {
  const Line both = DeviceMemory::load_line(reinterpret_cast<const Line*>(step.state));
  return {both.halves[0], both.halves[1] != 0};
}

// A kernel may start while the one before it on the stream still runs: until this returns, nothing
// of what that one writes may be read, nor anything be sent. Every thread comes here first: the
// kernel after takes this one's end for the end of all before.
__device__ inline void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel of the stream start. Not before a wait for a peer is over: what starts early
// would take up room for as long as that lasts.
__device__ inline void allow_next_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// The threads of a block, and the blocks of a grid's row.
struct BlockTeam {
  uint32_t block = blockIdx.x;
  uint32_t num_blocks = gridDim.x;
  uint32_t thread = threadIdx.x;
  uint32_t num_threads = blockDim.x;

  __device__ static void sync() { __syncthreads(); }
  __device__ static bool all(bool mine) { return __syncthreads_and(mine) != 0; }
};

}  // namespace lamina::cuda_p2p
