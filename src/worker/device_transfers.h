// DeviceTransfers: messages that go in one launch between a rank of the model and tiles at
// attention workers: rows of a layer's tensors, by the links of their endpoints. Fills in what
// transport/cuda_p2p is told. Confined to one thread.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "device/stream.h"
#include "tensor/tensor_view.h"
#include "transport/cuda_p2p/launch.h"
#include "transport/cuda_p2p/link.h"
#include "transport/cuda_p2p/step_guard.h"

namespace lamina {

// Of a session's links: another session has others.
inline constexpr uint32_t kLinkEpoch = 1;

// kUnimplemented unless rows of so many bytes are whole chunks of a message.
[[nodiscard]] Status check_message_rows(const char* what, size_t row_bytes);

class DeviceTransfers {
 public:
  enum class Direction : uint8_t { kSend, kReceive };

  // Of layer `layer` of the step that `guard` counts.
  DeviceTransfers(Direction direction,
                  const cuda_p2p::StepGuard& guard,
                  int32_t layer,
                  StreamView stream);

  // All rows of `tensor`, to or from a slot of `link`. Nothing for a tensor without any. Enqueues
  // what was added before if a launch takes no more.
  Status add(const cuda_p2p::Link& link, SlotIdx slot, const TensorView& tensor);
  // Enqueues what was added. On the CPU it is done when this returns.
  Status enqueue();

 private:
  Direction direction_;
  uint32_t use_;
  StreamView stream_;
  cuda_p2p::Transfers transfers_;
};

}  // namespace lamina
