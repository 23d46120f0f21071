// The product that narrow products are measured against: cuBLASLt's as operators use it, or none
// where the benchmark is built with nothing but CUDA (no_product_peer.cc).
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/products/narrow_product.h"

namespace lamina::bench {

// Whether there is one. Ends the program if it fails. The first call on a stream is not captured.
bool multiply_by_peer(const kernels::cuda::NarrowProduct& product, cudaStream_t stream);

}  // namespace lamina::bench
