// What both sides of a link over NCCL agree on before NCCL connects their GPUs, over a connection
// of their hosts: the version of NCCL, slots, the number of channels, and NCCL's ids of these.
// Setup code: throws Error.
#pragma once

#include <nccl.h>

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "device/device.h"
#include "device/nccl/library.h"

namespace lamina::nccl {

struct LinkConfig {
  bool listens = false;  // this side names the ids
  Device device{};
  uint32_t num_channels = 1;
  std::vector<uint32_t> receive_slots = {};  // capacities in bytes, of all channels one by one
  std::vector<uint32_t> send_slots = {};
};

// An id for each channel, the same on both sides. `socket`: introduced, non-blocking, fresh. Throws
// Error: kInvalidArgument if the sides are configured differently, kUnavailable where NCCL makes no
// id or the peer hangs up, kDeadlineExceeded.
std::vector<ncclUniqueId> agree(const Library& library,
                                const LinkConfig& config,
                                int socket,
                                Deadline deadline);

}  // namespace lamina::nccl
