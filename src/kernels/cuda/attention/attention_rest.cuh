// The second phase of attention to a step whose sequences have one new token each: a query meets
// its token's key, and what the first phase left of all others. For the caches of the fast kernels.
// A warp for each token and head: two rows of the cache and one of the state to read, whatever the
// context.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/attention/attention_launch.h"

namespace lamina::kernels::cuda {

struct NewToken {
  int32_t token;     // of the step
  int32_t position;  // in its sequence
  int64_t slot;      // where the cache has its key, or kNoSlot: not here
};
inline constexpr int64_t kNoSlot = -1;

// Meanings as AttentionParams has them.
struct AttentionRestParams {
  const void* q;
  int64_t q_stride;
  const void* k_cache;
  const void* v_cache;
  const float* k_scales;
  const float* v_scales;
  void* out;
  float* lse;
  // The attention over the keys before the new tokens, without sinks. Rows that saw none hold
  // anything.
  const float* cached_outs;  // [T, Hq, Dv]
  const float* cached_lses;  // [T, Hq]
  const NewToken* tokens;
  const int32_t* num_tokens;
  int32_t max_tokens;  // that there can be, in a graph's later steps too
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t value_dim;
  int32_t block_size;
  float scale;
  float soft_cap;
  int32_t window;
  const float* sinks;  // ALiBi adds nothing to a token's own key
  bool out_is_f32;
};

[[nodiscard]] cudaError_t launch_attention_rest(const AttentionRestParams& params,
                                                CacheElement cached,
                                                cudaStream_t stream);

}  // namespace lamina::kernels::cuda
