#include "device/stream.h"

#include <cstring>

#include "device/cuda/memory.h"

namespace lamina {

Status copy(void* to, const void* from, size_t size_bytes, StreamView stream) {
  if (size_bytes == 0) return {};
  if (stream.device().kind == DeviceKind::kCuda) return cuda::copy(to, from, size_bytes, stream);
  std::memcpy(to, from, size_bytes);
  return {};
}

Status synchronize(StreamView stream) {
  if (stream.device().kind == DeviceKind::kCuda) return cuda::synchronize(stream);
  return {};
}

}  // namespace lamina
