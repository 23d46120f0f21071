// Memory and copies of the CUDA devices, behind Buffer and copy(): what device/ itself calls, in
// builds with CUDA and without.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"
#include "device/device.h"
#include "device/stream.h"

namespace lamina::cuda {

// kCuda: of the calling thread's current device, zeroed; kPinnedHost: zeroed host memory that
// devices read and write directly. Throws Error kResourceExhausted naming size and what is free,
// kUnavailable without a device, kUnimplemented without CUDA.
std::byte* allocate(MemoryKind kind, size_t size_bytes);
// What allocate() gave. Logs a failure.
void release(MemoryKind kind, std::byte* data) noexcept;

[[nodiscard]] Status copy(void* to, const void* from, size_t size_bytes, StreamView stream);
[[nodiscard]] Status copy_rows(const RowCopy& rows, StreamView stream);
[[nodiscard]] Status synchronize(StreamView stream);
[[nodiscard]] bool has_pending_work(StreamView stream);

// The calling thread's CUDA calls go to `device` from now on. Logs a failure.
void use_device(Device device) noexcept;

struct DeviceMemory {
  uint64_t free_bytes = 0;
  uint64_t total_bytes = 0;
};
// Throws Error kUnavailable if there is no such device, kUnimplemented without CUDA.
DeviceMemory memory_of(Device device);
// 0 without CUDA, a driver or a device.
int32_t num_devices();

}  // namespace lamina::cuda
