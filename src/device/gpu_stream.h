// GpuStream: owner of a stream of a GPU, for rooms that see nothing of CUDA. Move-only through
// unique_ptr; outlives every StreamView of it.
#pragma once

#include "device/stream.h"

namespace lamina {

class GpuStream {
 public:
  // Throws Error kUnavailable if there is no such device, kUnimplemented in a build without CUDA.
  explicit GpuStream(Device device);
  GpuStream(const GpuStream&) = delete;
  GpuStream& operator=(const GpuStream&) = delete;
  ~GpuStream();

  [[nodiscard]] StreamView view() const { return {device_, raw_}; }

 private:
  Device device_;
  void* raw_ = nullptr;
};

}  // namespace lamina
