// How much of a GPU's memory is left for KV blocks. One arithmetic for servers, which ask the
// device, and for the planner, which knows it from a catalogue.
#pragma once

#include <cstdint>

namespace lamina {

// Beside KV, weights and activations: staging of messages and tables of work.
inline constexpr uint64_t kGpuReservedBytes = uint64_t{2} << 30;

// Of a device of `total_bytes`, of which `taken_bytes` are in use or kept for something else. 0 if
// nothing is left.
inline uint64_t kv_room_bytes(uint64_t total_bytes, double utilization, uint64_t taken_bytes) {
  const auto usable = static_cast<uint64_t>(static_cast<double>(total_bytes) * utilization);
  return usable > taken_bytes ? usable - taken_bytes : 0;
}

}  // namespace lamina
