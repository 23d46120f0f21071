// Sending and receiving messages, as devices do it themselves: on a GPU kernels that are enqueued
// on a stream or captured in a graph, while nothing waits on the host; on a CPU done by the calling
// thread. What a step's messages are waited for is bounded by its StepView. Plain structs; knows no
// tensor.
//
// Grids are small, whatever the sizes: blocks that wait must never keep the blocks from running
// that somebody else waits for. After a failed wait the step's later kernels end at once and send
// nothing; what was received is not to be used then. StepGuard::status() tells.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "device/stream.h"
#include "transport/cuda_p2p/merge.h"
#include "transport/cuda_p2p/protocol.h"

namespace lamina::cuda_p2p {

inline constexpr uint32_t kThreads = 512;  // of a block at most
// Blocks that wait for a message where others' kernels run at the same time.
inline constexpr uint32_t kMaxWaitingBlocks = 4;
inline constexpr uint32_t kMaxMergeBlocks = 32;

// Whole warps, a thread for each of so many units if that is not too many.
constexpr uint32_t threads_for(uint32_t num_units) {
  constexpr uint32_t kWarp = 32;
  return num_units >= kThreads ? kThreads : divide_up(num_units, kWarp) * kWarp;
}

// A matrix in GPU memory whose rows are messages' consecutive chunks.
struct Rows {
  Chunk* data = nullptr;
  uint32_t row_chunks = 1;
  uint32_t stride_chunks = 1;

  // Unit `idx` of the message: a Chunk or a HalfChunk.
  template <typename Unit>
  [[nodiscard]] LAMINA_HOST_DEVICE Unit* at(uint32_t idx) const {
    constexpr uint32_t kUnits = sizeof(Chunk) / sizeof(Unit);
    const uint32_t row_units = kUnits * row_chunks;
    Unit* const row = reinterpret_cast<Unit*>(data + size_t{idx / row_units} * stride_chunks);
    return row + idx % row_units;
  }
};

// One message: number base + `use` of the step, from or to `rows`.
struct Transfer {
  SlotView slot;
  Plan plan;
  Rows rows;
  uint32_t use = 0;
};

struct Transfers {
  StepView step;
  uint32_t num_messages = 0;
  Transfer messages[kMaxPeers];
};

struct Merge {
  StepView step;
  MergeShape shape;
  uint32_t num_sources = 0;
  PartialSource sources[kMaxPeers];
  void* out = nullptr;  // [T, Hq, D], f32 or bf16, tokens out_stride elements apart
  uint32_t out_stride = 0;
  bool out_is_bf16 = false;
  float* lse = nullptr;  // [T, Hq] or null
};

// Loads all of these kernels on a GPU. Once, before any of them waits: a kernel that is loaded when
// it is first launched may wait for all others of its GPU, also for one that waits for it. Links of
// GPUs do this. Throws Error.
void load_kernels(Device device);

// Sends each message to its own destination, all in one launch. Errors of all: kInvalidArgument for
// none or more than kMaxPeers, or a message that its slot has no room for; kUnimplemented in a
// build without CUDA.
[[nodiscard]] Status send(const Transfers& transfers, StreamView stream);
// Receives each message. Where `rows` has no data, it stays in its slot, which has to have been
// pushed: kernels that are enqueued after read it there, until the reply is sent.
[[nodiscard]] Status receive(const Transfers& transfers, StreamView stream);
// Receives partials and merges them in the order of sources, each as soon as it and those before it
// are there.
[[nodiscard]] Status receive_merged(const Merge& merge, StreamView stream);
// The messages of the next step begin after `num_messages` more.
[[nodiscard]] Status advance(const StepView& step, uint32_t num_messages, StreamView stream);

}  // namespace lamina::cuda_p2p
