#include "device/cuda/error.h"

#include <fmt/format.h>

namespace lamina::cuda {

Status to_status(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return {};
  std::string message = fmt::format("{}: {}", what, cudaGetErrorString(error));
  switch (error) {
    case cudaErrorMemoryAllocation:
      return resource_exhausted(std::move(message));
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorDevicesUnavailable:
      return {StatusCode::kUnavailable, std::move(message)};
    default:
      return internal_error(std::move(message));
  }
}

}  // namespace lamina::cuda
