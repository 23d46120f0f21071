// Starts the CUDA attention kernels: the host's side of attention_kernel.cuh.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/attention/attention_params.h"

namespace lamina::kernels::cuda {

// What a cache is of: elements like those of the queries, or codes, for queries of bf16.
enum class CacheElement : uint8_t { kBF16, kF16, kE4M3, kI8 };

// Whether there is a kernel for heads of that many elements.
[[nodiscard]] bool has_attention_kernel(int32_t head_dim);
// Whether there is one for keys of that many elements, not codes, in which values of
// kLatentValueDim lie. It takes 155 KiB of shared memory.
[[nodiscard]] bool has_latent_kernel(int32_t key_dim, int device);

// Enqueues the items of `params`, all narrow or all wide. params.num_stages is filled in. A launch
// that fails is the error that it returns; cudaErrorInvalidValue without a kernel for the head;
// kLatentKeyDim is the latent one.
[[nodiscard]] cudaError_t launch_attention(AttentionParams params,
                                           CacheElement cached,
                                           int32_t head_dim,
                                           bool is_wide,
                                           cudaStream_t stream);

// Its part for codes.
[[nodiscard]] cudaError_t launch_attention_over_codes(const AttentionParams& params,
                                                      CacheElement cached,
                                                      int32_t head_dim,
                                                      bool is_wide,
                                                      cudaStream_t stream);

}  // namespace lamina::kernels::cuda
