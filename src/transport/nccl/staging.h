// Staging: memory of a device in which messages whose rows have gaps lie without them, a place for
// each slot. Plain memory; what uses it follows in stream order.
#pragma once

#include <vector>

#include "device/buffer.h"
#include "transport/nccl/nccl_link.h"

namespace lamina::nccl {

class Staging {
 public:
  // Room for each of `slots`; none at all if `is_packed`. Allocates on the current device. Throws
  // Error kResourceExhausted.
  Staging(DeviceKind device, const NcclLink::Slots& slots, bool is_packed);

  // kInvalidArgument if the message is larger than its slot, or no slot of this channel's.
  [[nodiscard]] Status check(const DeviceTransfer& transfer) const;
  // Of a message that passed check(): the place of its slot, or where it lies where that has no
  // gaps.
  [[nodiscard]] std::byte* place_of(const DeviceTransfer& transfer) const;

 private:
  NcclLink::Slots slots_;
  std::vector<size_t> offsets_;
  Buffer memory_;
};

}  // namespace lamina::nccl
