#include "device/cuda/stream.h"

#include <fmt/format.h>

#include "base/log.h"
#include "device/cuda/error.h"

namespace lamina::cuda {
namespace {

void log_failure(cudaError_t error, std::string_view what) noexcept {
  if (error != cudaSuccess) log_error("{}: {}", what, cudaGetErrorString(error));
}

}  // namespace

void StreamTraits::destroy(Raw raw) noexcept {
  log_failure(cudaStreamDestroy(raw), "destroying a CUDA stream");
}

void EventTraits::destroy(Raw raw) noexcept {
  log_failure(cudaEventDestroy(raw), "destroying a CUDA event");
}

DeviceGuard::DeviceGuard(Device device) {
  throw_if_error(cudaGetDevice(&before_), device_name(device));
  throw_if_error(cudaSetDevice(device.idx), device_name(device));
}

DeviceGuard::~DeviceGuard() {
  log_failure(cudaSetDevice(before_), "going back to the CUDA device before");
}

Stream make_stream(Device device) {
  const DeviceGuard guard(device);
  cudaStream_t raw = nullptr;
  throw_if_error(cudaStreamCreateWithFlags(&raw, cudaStreamNonBlocking),
                 fmt::format("creating a stream on {}", device_name(device)));
  return Stream(raw);
}

Event make_event() {
  cudaEvent_t raw = nullptr;
  throw_if_error(cudaEventCreateWithFlags(&raw, cudaEventDisableTiming), "creating a CUDA event");
  return Event(raw);
}

}  // namespace lamina::cuda
