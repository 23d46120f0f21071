// CUDA's error codes as this program's: a Status on the step path, an Error at start-up. Included
// by CUDA code alone.
#pragma once

#include <cuda_runtime_api.h>

#include <string_view>

#include "base/error.h"
#include "base/status.h"

namespace lamina::cuda {

// "`what`: out of memory". kResourceExhausted for memory, kUnavailable where there is no device or
// driver, kInternal else.
[[nodiscard]] Status to_status(cudaError_t error, std::string_view what);

inline void throw_if_error(cudaError_t error, std::string_view what) {
  if (error != cudaSuccess) lamina::throw_if_error(to_status(error, what));
}

}  // namespace lamina::cuda
