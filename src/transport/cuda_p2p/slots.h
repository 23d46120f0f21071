// Where the slots of a region lie: the same on both sides of a link, from the same capacities and
// limits. Plain functions; the memory is whoever's (SharedMemory).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "transport/cuda_p2p/protocol.h"

namespace lamina::cuda_p2p {

// Bytes of a region of slots with room for messages of so many bytes each.
size_t region_bytes(std::span<const uint32_t> capacities, const Limits& limits);

// The slots of a region at `memory`, which is aligned to 128 bytes, as mapped at that address: on a
// GPU, an address that the host cannot read. The memory is zero before the first message.
std::vector<SlotView> slot_views(std::byte* memory,
                                 std::span<const uint32_t> capacities,
                                 const Limits& limits);

}  // namespace lamina::cuda_p2p
