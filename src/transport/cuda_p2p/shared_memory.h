// Memory that one process makes and another maps, by a descriptor: a GPU's, or the host's where a
// CPU is at one end. Zero at first. It lives as long as someone has it mapped: a peer that dies
// takes nothing away.
#pragma once

#include <cstddef>
#include <memory>

#include "base/file.h"
#include "device/device.h"

namespace lamina::cuda_p2p {

class SharedMemory {
 public:
  virtual ~SharedMemory() = default;
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // As this side's device has it mapped: on a GPU, not the host's to touch.
  [[nodiscard]] virtual std::byte* data() const = 0;
  // What another process maps it by. Throws Error kInternal if there is none to be had.
  [[nodiscard]] virtual FileHandle descriptor() const = 0;
  // Sets all of it to zero, and waits for that. kInternal.
  [[nodiscard]] virtual Status clear() = 0;

 protected:
  SharedMemory() = default;
};

// Host memory for `device`, a GPU or a CPU: `size_bytes`, of this process, or another's. Throws
// Error: kResourceExhausted; kInvalidArgument for a descriptor of anything else; kUnimplemented for
// a GPU in a build without CUDA.
std::unique_ptr<SharedMemory> make_host_memory(size_t size_bytes, Device device);
std::unique_ptr<SharedMemory> map_host_memory(FileHandle descriptor,
                                              size_t size_bytes,
                                              Device device);

// Memory of GPU `device`; and memory of any GPU of this host, that `device` is to write. Throws
// Error: kResourceExhausted; kUnavailable where a GPU cannot share memory, or reach the other;
// kInvalidArgument for a descriptor of anything else; kUnimplemented in a build without CUDA.
std::unique_ptr<SharedMemory> make_gpu_memory(size_t size_bytes, Device device);
std::unique_ptr<SharedMemory> map_gpu_memory(FileHandle descriptor,
                                             size_t size_bytes,
                                             Device device);

// Lets `device` reach `size_bytes` of host memory at `data`, which is page-aligned; its address
// there. Throws Error kInternal. unpin_host_memory() undoes it, and logs a failure.
std::byte* pin_host_memory(std::byte* data, size_t size_bytes, Device device);
void unpin_host_memory(std::byte* data) noexcept;

}  // namespace lamina::cuda_p2p
