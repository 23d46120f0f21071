#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/attention/attention_rest.cuh"
#include "kernels/cuda/attention/codes.cuh"
#include "kernels/cuda/attention/swizzle.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/primitives.cuh"

namespace lamina::kernels::cuda {
namespace {

constexpr int kWarps = 4;  // of a block

__device__ float2 load_pair(const __nv_bfloat16* from) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(from));
}
__device__ float2 load_pair(const __half* from) {
  return __half22float2(*reinterpret_cast<const __half2*>(from));
}
__device__ float2 load_pair(const float* from) {
  return *reinterpret_cast<const float2*>(from);
}
template <typename Code>
__device__ float2 load_pair(const Code* from) {
  return {widen(from[0]), widen(from[1])};
}

// One query of a token. All lanes of the warp have the same; each has pairs of elements, 64 apart.
template <typename Element, typename Cached>
class RestRow {
 public:
  __device__ RestRow(const AttentionRestParams& params, const NewToken& token, int head)
      : params_(params),
        token_(token),
        head_(head),
        place_(static_cast<int64_t>(token.token) * params.num_heads + head),
        lane_(threadIdx.x % 32) {
    const int kv_head = head / (params.num_heads / params.num_kv_heads);
    row_in_block_ = static_cast<int>(token.slot % params.block_size);
    cached_row_ =
        (token.slot / params.block_size * params.num_kv_heads + kv_head) * params.block_size +
        row_in_block_;
  }

  // The softmax over three scores: of the token's own key, of all keys before it, of the sink.
  __device__ void write() const {
    const float own = token_.slot == kNoSlot ? -INFINITY : score();
    const float cached = sees_cached_keys() ? params_.cached_lses[place_] : -INFINITY;
    const float sink = params_.sinks == nullptr ? -INFINITY : params_.sinks[head_];
    const float greatest = fmaxf(fmaxf(own, cached), sink);
    const float base = greatest == -INFINITY ? 0.0F : greatest;
    const float own_weight = expf(own - base);
    const float cached_weight = expf(cached - base);
    const float total = own_weight + cached_weight + expf(sink - base);
    const float inverse = total > 0.0F ? 1.0F / total : 0.0F;
    store(own_weight * inverse, cached_weight * inverse);
    if (lane_ == 0 && params_.lse != nullptr) {
      params_.lse[place_] = total > 0.0F ? base + logf(total) : -INFINITY;
    }
  }

 private:
  // Where it sees none, nothing was left for it.
  __device__ bool sees_cached_keys() const { return token_.position > 0 && params_.window != 1; }

  __device__ float score() const {
    const auto* query = static_cast<const Element*>(params_.q) + token_.token * params_.q_stride +
                        static_cast<int64_t>(head_) * params_.head_dim;
    float sum = 0.0F;
    for (int element = lane_ * 2; element < params_.head_dim; element += 64) {
      const float2 q = load_pair(query + element);
      const float2 k = cached_pair(params_.k_cache, params_.head_dim, element);
      sum += q.x * k.x + q.y * k.y;
    }
    const float score = warp_sum(sum) * scale_of(params_.k_scales) * params_.scale;
    if (params_.soft_cap <= 0.0F) return score;
    return params_.soft_cap * tanhf(score / params_.soft_cap);
  }

  // What has no weight may be anything, and is not read.
  __device__ void store(float own_weight, float cached_weight) const {
    const bool is_latent = params_.v_cache == nullptr;
    const void* values = is_latent ? params_.k_cache : params_.v_cache;
    const int dim = is_latent ? params_.head_dim : params_.value_dim;
    if (own_weight != 0.0F) own_weight *= scale_of(is_latent ? params_.k_scales : params_.v_scales);
    for (int element = lane_ * 2; element < params_.value_dim; element += 64) {
      const int64_t to = place_ * params_.value_dim + element;
      float2 sum = {0.0F, 0.0F};
      if (cached_weight != 0.0F) add(cached_weight, load_pair(params_.cached_outs + to), sum);
      if (own_weight != 0.0F) add(own_weight, cached_pair(values, dim, element), sum);
      store_pair(to, sum);
    }
  }

  __device__ static void add(float weight, float2 pair, float2& sum) {
    sum.x += weight * pair.x;
    sum.y += weight * pair.y;
  }

  __device__ void store_pair(int64_t to, float2 pair) const {
    if (params_.out_is_f32) {
      *reinterpret_cast<float2*>(static_cast<float*>(params_.out) + to) = pair;
    } else {
      *reinterpret_cast<uint32_t*>(static_cast<Element*>(params_.out) + to) =
          pack_pair<Element>(pair.x, pair.y);
    }
  }

  // Of the token's row in a cache with rows of `dim`.
  __device__ float2 cached_pair(const void* cache, int dim, int element) const {
    constexpr int kChunk = 16 / static_cast<int>(sizeof(Cached));
    const int chunk = swizzled_chunk(dim / kChunk, row_in_block_, element / kChunk);
    return load_pair(static_cast<const Cached*>(cache) + cached_row_ * dim + chunk * kChunk +
                     element % kChunk);
  }

  // What the elements of that row are multiplied by.
  __device__ float scale_of(const float* scales) const {
    if constexpr (is_code<Cached>) {
      return scales[cached_row_];
    } else {
      return 1.0F;
    }
  }

  const AttentionRestParams& params_;
  const NewToken token_;
  const int head_;
  const int64_t place_;  // among the step's queries
  const int lane_;
  int row_in_block_;
  int64_t cached_row_;  // among the rows of a cache
};

template <typename Element, typename Cached>
__global__ void __launch_bounds__(kWarps * 32)
    attention_rest(const __grid_constant__ AttentionRestParams params) {
  allow_next_kernel();
  // The step's tables have been there since before its first kernel.
  const int row = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int idx = row / params.num_heads;
  const bool exists = idx < *params.num_tokens;
  const NewToken token = exists ? params.tokens[idx] : NewToken{};
  wait_for_previous_kernel();
  if (exists) RestRow<Element, Cached>(params, token, row % params.num_heads).write();
}

template <typename Element, typename Cached = Element>
cudaError_t launch_typed(const AttentionRestParams& params, cudaStream_t stream) {
  const int64_t num_rows = int64_t{params.max_tokens} * params.num_heads;
  if (num_rows == 0) return cudaSuccess;
  const auto num_blocks = static_cast<unsigned>((num_rows + kWarps - 1) / kWarps);
  return launch(
      attention_rest<Element, Cached>, {dim3(num_blocks), dim3(kWarps * 32), stream}, params);
}

}  // namespace

cudaError_t launch_attention_rest(const AttentionRestParams& params,
                                  CacheElement cached,
                                  cudaStream_t stream) {
  switch (cached) {
    case CacheElement::kBF16:
      return launch_typed<__nv_bfloat16>(params, stream);
    case CacheElement::kF16:
      return launch_typed<__half>(params, stream);
    case CacheElement::kE4M3:
      return launch_typed<__nv_bfloat16, E4M3>(params, stream);
    case CacheElement::kI8:
      return launch_typed<__nv_bfloat16, I8>(params, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace lamina::kernels::cuda
