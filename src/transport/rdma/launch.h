// Sending and receiving messages by NICs that GPUs drive themselves: kernels that are enqueued on a
// stream or captured in a graph, as cuda_p2p's, whose step's limits and counts they share. What a
// message is made of is put together in the sender's window; one put of NCCL's takes it to the
// same place of the receiver's, with a signal of its slot after it. Used by RdmaChannel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/stream.h"
#include "transport/cuda_p2p/launch.h"
#include "transport/rdma/gin_library.h"
#include "transport/rdma/window_layout.h"

namespace lamina::rdma {

// From or to `rows`; a received one without their data stays in its place.
struct Message {
  const ncclDevComm* communicator = nullptr;  // in the GPU's memory
  ncclWindow_t window = nullptr;
  size_t offset = 0;  // of its place in both windows
  uint32_t signal = 0;
  MessageHeader* header = nullptr;  // at that place of this GPU's
  cuda_p2p::Plan plan;
  cuda_p2p::Rows rows;
  uint32_t use = 0;  // the step's messages of a slot are counted from 1

  [[nodiscard]] LAMINA_HOST_DEVICE cuda_p2p::Chunk* payload() const {
    return reinterpret_cast<cuda_p2p::Chunk*>(header + 1);
  }
};

struct Launch {
  cuda_p2p::StepView step;
  uint32_t num_messages = 0;
  Message messages[cuda_p2p::kMaxPeers];
};

// As cuda_p2p's. Throws Error.
void load_kernels(Device device);
// Of 1 to kMaxPeers messages that fit their places. After a wait has failed nothing is sent.
[[nodiscard]] Status send(const Launch& launch, StreamView stream);
[[nodiscard]] Status receive(const Launch& launch, StreamView stream);

}  // namespace lamina::rdma
