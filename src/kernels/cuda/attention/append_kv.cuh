// Writes keys and values of a step into their places of the paged cache, in the order that
// attention_kernel.cuh reads. One launch for both.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace lamina::kernels::cuda {

// Rows of 16-bit elements, as many bytes as `row_bytes` says, a multiple of 16.
struct AppendKvParams {
  const void* k;           // [N, Hkv, D], rows start at multiples of 16 bytes
  const void* v;           // or null: keys alone
  int64_t k_stride_bytes;  // from a token to the next
  int64_t v_stride_bytes;
  void* k_cache;  // [P, Hkv, block_size, D]
  void* v_cache;
  const int64_t* slot_mapping;  // [N]; negative: no token
  int32_t num_tokens;
  int32_t num_kv_heads;
  int32_t block_size;
  int32_t row_bytes;
};

[[nodiscard]] cudaError_t launch_append_kv(const AppendKvParams& params, cudaStream_t stream);

}  // namespace lamina::kernels::cuda
