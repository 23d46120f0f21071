// The launches that experts() is made of. Called by experts.cc alone.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/experts/experts_params.h"

namespace lamina::kernels::cuda {

// Writes params.assignment from params.routes.
[[nodiscard]] cudaError_t launch_assignment(const ExpertsParams& params, cudaStream_t stream);

// Adds the experts of the tiles of a pass to out, or where first_tile is 0 writes them there: all
// passes, in order, give out. 16-bit elements are multiplied by tensor cores.
[[nodiscard]] cudaError_t launch_experts_pass(const ExpertsParams& params,
                                              ElementKind element,
                                              cudaStream_t stream);

}  // namespace lamina::kernels::cuda
