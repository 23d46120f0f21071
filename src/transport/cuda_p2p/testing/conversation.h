// Kernels that talk to each other without end, for the tests and the benchmark: one launch makes
// all round trips. Every message is received as a whole, by all blocks, before one of them answers,
// as a step's kernels would have it.
#pragma once

#include "base/status.h"
#include "device/stream.h"
#include "transport/cuda_p2p/protocol.h"

namespace lamina::cuda_p2p::testing {

// How long a launch took by the GPU's clock, and by the counter that round trips are counted in.
struct ClockSpan {
  uint64_t ns;
  uint64_t cycles;
};

// Round trips of one size, messages 1, 2, ... of the epoch. Pointers are to GPU memory.
struct RoundTrips {
  StepView step;
  SlotView outbox;
  SlotView inbox;
  Plan plan;
  const Chunk* source = nullptr;  // what is sent
  Chunk* sink = nullptr;          // where what comes goes
  uint64_t num_rounds = 0;
  bool asks = false;
  uint64_t* meeting = nullptr;  // a word
  uint64_t* cycles = nullptr;   // of the first num_cycles rounds
  uint64_t num_cycles = 0;
  ClockSpan* span = nullptr;
};

inline constexpr uint32_t kStressSlots = 4;
inline constexpr uint32_t kStressBlocks = 8;

// Requests of all sizes and forms, each answered, as many under way as there are slots; every word
// that comes is compared with what it ought to be.
struct Stress {
  StepView step;
  SlotView outboxes[kStressSlots];
  SlotView inboxes[kStressSlots];
  Limits limits;
  uint32_t max_bytes = 0;
  uint64_t num_messages = 0;
  uint64_t faulty_message = 0;  // has one wrong word; 0: none has
  bool asks = false;
  uint64_t* meeting = nullptr;
  uint64_t* wrong_words = nullptr;
  uint64_t* seen_chunks = nullptr;  // that were compared
};

// Enqueue one side. kInternal where its blocks cannot run at the same time.
[[nodiscard]] Status enqueue(const RoundTrips& trips, StreamView stream);
[[nodiscard]] Status enqueue(const Stress& stress, StreamView stream);

}  // namespace lamina::cuda_p2p::testing
