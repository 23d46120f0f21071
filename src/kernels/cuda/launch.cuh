// How kernels are launched: each may start while the one before it on the stream still runs, so
// that a step of many short kernels pays for few starts. Such a kernel calls
// after_previous_kernel() before anything else; one that is launched otherwise waits, as ever,
// until those before it have ended.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <atomic>
#include <cstdint>

#include "kernels/cuda/primitives.cuh"

namespace lamina::kernels::cuda {

// Lets the next kernel of the stream start, whose blocks then wait, and returns once the kernel
// before has ended and what it wrote is seen. No thread may end before: the kernel after this one
// takes this one's end for the end of all before.
__device__ inline void after_previous_kernel() {
  allow_next_kernel();
  wait_for_previous_kernel();
}

// Whether the current device, of sm_90 or later, starts kernels early.
inline bool starts_kernels_early() {
  constexpr int kMaxDevices = 64;
  enum : int8_t { kUnknown, kNo, kYes };
  static std::array<std::atomic<int8_t>, kMaxDevices> known{};
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= kMaxDevices) return false;
  std::atomic<int8_t>& answer = known[static_cast<size_t>(device)];
  if (answer == kUnknown) {
    int major = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess) {
      return false;
    }
    answer = major >= 9 ? kYes : kNo;
  }
  return answer == kYes;
}

struct Launch {
  dim3 grid;
  dim3 block;
  cudaStream_t stream = nullptr;
  int shared_bytes = 0;
};

// Enqueues a kernel that calls after_previous_kernel().
template <typename... Params, typename... Args>
cudaError_t launch(void (*kernel)(Params...), const Launch& how, const Args&... args) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = how.grid;
  config.blockDim = how.block;
  config.dynamicSmemBytes = static_cast<size_t>(how.shared_bytes);
  config.stream = how.stream;
  config.attrs = &early;
  config.numAttrs = starts_kernels_early() ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

}  // namespace lamina::kernels::cuda
