// DeviceTransfers: messages that go in one launch between a rank of the model and tiles at
// attention workers: rows of a layer's tensors, by the links of a channel. Confined to one thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "base/status.h"
#include "tensor/tensor_view.h"
#include "transport/device_link.h"

namespace lamina {

// kUnimplemented unless devices can send rows of so many bytes.
[[nodiscard]] Status check_message_rows(const char* what, size_t row_bytes);

class DeviceTransfers {
 public:
  enum class Direction : uint8_t { kSend, kReceive };

  // Of layer `layer` of the channel's step.
  DeviceTransfers(Direction direction, DeviceChannel& channel, int32_t layer);

  // All rows of `tensor`, to or from a slot by the channel's link of that index. Nothing for a
  // tensor without any. Enqueues what was added before if a launch takes no more.
  Status add(size_t link_idx, SlotIdx slot, const TensorView& tensor);
  // Enqueues what was added. On the CPU it is done when this returns.
  Status enqueue();

 private:
  Direction direction_;
  DeviceChannel& channel_;
  uint32_t use_;
  std::array<DeviceTransfer, kMaxLaunchMessages> transfers_;
  size_t num_transfers_ = 0;
};

}  // namespace lamina
