#include "kernels/cuda/attention/attention_launch.cuh"
#include "kernels/cuda/attention/attention_launch.h"

namespace lamina::kernels::cuda {
namespace {

template <typename Element>
cudaError_t launch_of(const AttentionParams& params,
                      int32_t head_dim,
                      bool is_wide,
                      cudaStream_t stream) {
  if (head_dim != kLatentKeyDim) return launch_for<Element>(params, head_dim, is_wide, stream);
  return is_wide ? launch_with<LatentTraits<Element, kWideRows>>(params, stream)
                 : launch_with<LatentTraits<Element, kNarrowRows>>(params, stream);
}

}  // namespace

bool has_attention_kernel(int32_t head_dim) {
#define LAMINA_IS_HEAD_DIM(dim) || head_dim == dim
  return false LAMINA_HEAD_DIMS(LAMINA_IS_HEAD_DIM);
#undef LAMINA_IS_HEAD_DIM
}

bool has_latent_kernel(int32_t key_dim, int device) {
  if (key_dim != kLatentKeyDim) return false;
  using Widest = LatentTraits<__nv_bfloat16, kWideRows>;
  Card card{.device = device};
  return read_card(card) == cudaSuccess && count_stages<Widest>(card) >= Widest::kFewestStages;
}

cudaError_t launch_attention(AttentionParams params,
                             CacheElement cached,
                             int32_t head_dim,
                             bool is_wide,
                             cudaStream_t stream) {
  switch (cached) {
    case CacheElement::kBF16:
      return launch_of<__nv_bfloat16>(params, head_dim, is_wide, stream);
    case CacheElement::kF16:
      return launch_of<__half>(params, head_dim, is_wide, stream);
    case CacheElement::kE4M3:
    case CacheElement::kI8:
      return launch_attention_over_codes(params, cached, head_dim, is_wide, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace lamina::kernels::cuda
