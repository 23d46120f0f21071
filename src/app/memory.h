// How much memory KV may take where nobody said.
#pragma once

#include <cstdint>

#include "device/device.h"

namespace lamina::app {

// Bytes the kernel says can be had without swapping (MemAvailable, or the cgroup's limit where that
// is lower).
uint64_t available_memory_bytes();
// `wanted`, or half of the available memory divided by `num_sharers` where it is 0.
uint64_t kv_budget_bytes(uint64_t wanted, int32_t num_sharers);

// `wanted`, or what `utilization` of a GPU's memory leaves beside what is taken already and
// `reserved` bytes. Throws Error kResourceExhausted, naming the sizes, if that is nothing.
uint64_t gpu_kv_budget_bytes(Device device, uint64_t wanted, double utilization, uint64_t reserved);

}  // namespace lamina::app
