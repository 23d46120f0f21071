// Fills the rows of a product with its bias, for products that then add to what is there: where
// cuBLASLt takes no bias of that dtype or alignment.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/element_kind.h"

namespace lamina::kernels::cuda {

// out[t, n] = bias[n].  bias [N] of bias_element, out [T, N] of out_element, which is the same or
// kF32; rows of out are out_stride elements apart.
struct BiasRowsParams {
  const void* bias;
  void* out;
  ElementKind bias_element;
  ElementKind out_element;
  int64_t num_rows;
  int64_t num_columns;
  int64_t out_stride;
};

[[nodiscard]] cudaError_t launch_bias_rows(const BiasRowsParams& params, cudaStream_t stream);

}  // namespace lamina::kernels::cuda
