// Stream and Event: owners of CUDA's handles. A worker has a stream of its own for each role and
// passes it on as a StreamView. Included by CUDA code alone.
#pragma once

#include <cuda_runtime_api.h>

#include "base/unique_handle.h"
#include "device/stream.h"

namespace lamina::cuda {

struct StreamTraits {
  using Raw = cudaStream_t;
  static constexpr Raw kInvalid = nullptr;
  static void destroy(Raw raw) noexcept;  // logs a failure
};
using Stream = UniqueHandle<StreamTraits>;

struct EventTraits {
  using Raw = cudaEvent_t;
  static constexpr Raw kInvalid = nullptr;
  static void destroy(Raw raw) noexcept;
};
using Event = UniqueHandle<EventTraits>;

// While it lives, the calling thread's CUDA calls go to `device`.
class DeviceGuard {
 public:
  // Throws Error kUnavailable if there is no such device.
  explicit DeviceGuard(Device device);
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;
  ~DeviceGuard();

 private:
  int before_ = 0;
};

// A stream that does not wait for the default stream. Throws Error.
Stream make_stream(Device device);
// Without a time. Throws Error.
Event make_event();

inline StreamView view(const Stream& stream, Device device) {
  return {device, stream.get()};
}
inline cudaStream_t raw(StreamView stream) {
  return static_cast<cudaStream_t>(stream.cuda_stream());
}

}  // namespace lamina::cuda
