#include "device/gpu_stream.h"

#include "device/cuda/stream.h"

namespace lamina {

GpuStream::GpuStream(Device device) : device_(device), raw_(cuda::make_stream(device).release()) {}

GpuStream::~GpuStream() {
  if (raw_ != nullptr) cuda::StreamTraits::destroy(static_cast<cudaStream_t>(raw_));
}

}  // namespace lamina
