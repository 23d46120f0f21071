// A kernel that talks to another device's without end: one launch makes all round trips. The next
// begins when the answer is there as a whole, for all blocks.
#pragma once

#include "base/status.h"
#include "device/stream.h"
#include "transport/cuda_p2p/protocol.h"

namespace lamina::measure {

// How long a launch took by the GPU's clock, and by the counter that round trips are counted in.
struct ClockSpan {
  uint64_t ns;
  uint64_t cycles;
};

// Round trips of one size, messages 1, 2, ... of the epoch. Pointers are to GPU memory.
struct RoundTrips {
  cuda_p2p::StepView step;
  cuda_p2p::SlotView outbox;
  cuda_p2p::SlotView inbox;
  cuda_p2p::Plan plan;
  const cuda_p2p::Chunk* source = nullptr;  // what is sent
  cuda_p2p::Chunk* sink = nullptr;          // where what comes goes
  uint64_t num_rounds = 0;
  bool asks = false;
  uint64_t* meeting = nullptr;  // a word
  uint64_t* cycles = nullptr;   // of the first num_cycles rounds
  uint64_t num_cycles = 0;
  ClockSpan* span = nullptr;
};

// Enqueues one side. kInternal where its blocks cannot run at the same time, kUnimplemented in a
// build without CUDA.
[[nodiscard]] Status enqueue(const RoundTrips& trips, StreamView stream);

}  // namespace lamina::measure
