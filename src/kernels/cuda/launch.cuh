// How kernels are launched: each may start while the one before it on the stream still runs, so
// that a step of many short kernels pays for few starts. Such a kernel calls
// after_previous_kernel() before anything else; one that is launched otherwise waits, as ever,
// until those before it have ended.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/card.h"
#include "kernels/cuda/primitives.cuh"

namespace lamina::kernels::cuda {

// Lets the next kernel of the stream start, whose blocks then wait, and returns once the kernel
// before has ended and what it wrote is seen. No thread may end before: the kernel after this one
// takes this one's end for the end of all before.
__device__ inline void after_previous_kernel() {
  allow_next_kernel();
  wait_for_previous_kernel();
}

// Whether the current device starts kernels early.
inline bool starts_kernels_early() {
  static OfDevices<bool> answers;
  bool is_early = false;
  const auto ask = [](const Card& card, bool& answer) {
    answer = card.is_hopper;
    return cudaSuccess;
  };
  return answers.find(ask, is_early) == cudaSuccess && is_early;
}

struct Launch {
  dim3 grid;
  dim3 block;
  cudaStream_t stream = nullptr;
  int shared_bytes = 0;
};

// Enqueues a kernel that calls after_previous_kernel(), or waits where it first needs to.
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
