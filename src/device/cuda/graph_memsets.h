// Captured graphs without memsets: one takes the host 3 us or more at every launch of its graph, a
// kernel a tenth of that. Included by CUDA code alone.
#pragma once

#include <cuda_runtime_api.h>

#include "base/status.h"

namespace lamina::cuda {

// Puts kernels that do the same in the place of a graph's memsets. kInternal if CUDA refuses.
[[nodiscard]] Status replace_memsets(cudaGraph_t graph);

}  // namespace lamina::cuda
