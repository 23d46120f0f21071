// Kernels that send each other messages of all sizes, and compare every word that comes with what
// it ought to be.
#pragma once

#include "base/status.h"
#include "device/stream.h"
#include "transport/cuda_p2p/protocol.h"

namespace lamina::cuda_p2p::testing {

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
  uint64_t* seen_words = nullptr;  // that were compared
};

// Enqueues one side. kInternal where its blocks cannot run at the same time.
[[nodiscard]] Status enqueue(const Stress& stress, StreamView stream);

}  // namespace lamina::cuda_p2p::testing
