// Attention and append for whatever the fast kernels do not take: f32, mixed dtypes, heads of any
// size up to kMaxGeneralDim, values that lie in keys of other sizes than attention_latent.cuh has.
// Plain and exact rather than fast: a block for each query and head.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "tensor/dtype.h"

namespace lamina::kernels::cuda {

inline constexpr int32_t kMaxGeneralDim = 1024;

// Meanings as RaggedAttentionArgs has them; KvOrder::kRows.
struct GeneralAttentionParams {
  const void* q;
  int64_t q_stride;  // elements from a token to the next
  const void* k_cache;
  const void* v_cache;    // null: values lie in the keys
  const float* k_scales;  // of caches of codes
  const float* v_scales;
  void* out;
  float* lse;                  // or null
  const int32_t* query_begin;  // tokens past its last have no attention
  const int32_t* context_len;
  const int32_t* block_tables;
  int64_t max_blocks;
  const int32_t* num_sequences;
  int32_t num_tokens;
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t value_dim;
  int32_t block_size;
  float scale;
  float soft_cap;  // 0: none
  int32_t window;  // 0: none
  const float* alibi_slopes;
  const float* sinks;
  bool meets_cached;  // keys that were there before the step
  bool meets_new;     // the step's own
  // Where these were met before, else null: the attention over them, without sinks.
  const float* cached_outs;  // [T, Hq, Dv]
  const float* cached_lses;  // [T, Hq]
};

// q and out are floats, out f32 or of q's; the cache is of floats or codes.
[[nodiscard]] cudaError_t launch_general_attention(const GeneralAttentionParams& params,
                                                   DType q_dtype,
                                                   DType kv_dtype,
                                                   DType out_dtype,
                                                   cudaStream_t stream);

// One of k and v: [N, Hkv, D] into [P, Hkv, block_size, D], converted.
struct GeneralAppendParams {
  const void* from;
  int64_t stride;  // elements from a token to the next
  void* cache;
  const int64_t* slot_mapping;
  int32_t num_tokens;
  int32_t num_kv_heads;
  int32_t dim;
  int32_t block_size;
};
[[nodiscard]] cudaError_t launch_general_append(const GeneralAppendParams& params,
                                                DType dtype,
                                                DType cache_dtype,
                                                cudaStream_t stream);

}  // namespace lamina::kernels::cuda
