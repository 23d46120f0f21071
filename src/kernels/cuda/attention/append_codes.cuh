// Quantises keys and values of a step into their places of the paged cache, in either of the orders
// that attention on CUDA reads. One launch for both.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "tensor/dtype.h"

namespace lamina::kernels::cuda {

// Keys or values. Rows of the cache are swizzled in chunks of 16 codes, or as they are.
struct AppendedRows {
  const void* from;  // [N, Hkv, D]
  int64_t stride;    // elements from a token to the next
  void* cache;       // [P, Hkv, block_size, D]
  float* scales;     // [P, Hkv, block_size]
  int32_t dim;
};

struct AppendCodesParams {
  AppendedRows rows[2];
  int32_t num_kinds;            // of rows: 1, keys alone, or 2
  const int64_t* slot_mapping;  // [N]; negative: no token
  int32_t num_tokens;
  int32_t num_kv_heads;
  int32_t block_size;
  bool is_swizzled;
};

// `from` is a float, `to` a dtype of codes.
[[nodiscard]] cudaError_t launch_append_codes(const AppendCodesParams& params,
                                              DType from,
                                              DType to,
                                              cudaStream_t stream);

}  // namespace lamina::kernels::cuda
