// The attention kernels over caches of codes: a file of their own, since they take as long to
// compile as all others.
#include "kernels/cuda/attention/attention_launch.cuh"
#include "kernels/cuda/attention/attention_launch.h"

namespace lamina::kernels::cuda {

cudaError_t launch_attention_over_codes(const AttentionParams& params,
                                        CacheElement cached,
                                        int32_t head_dim,
                                        bool is_wide,
                                        cudaStream_t stream) {
  return cached == CacheElement::kI8
             ? launch_for<__nv_bfloat16, I8>(params, head_dim, is_wide, stream)
             : launch_for<__nv_bfloat16, E4M3>(params, head_dim, is_wide, stream);
}

}  // namespace lamina::kernels::cuda
