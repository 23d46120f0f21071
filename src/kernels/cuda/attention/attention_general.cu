#include "kernels/cuda/attention/attention_general.cuh"
#include "kernels/cuda/attention/codes.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/primitives.cuh"

namespace lamina::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kLaneElements = kMaxGeneralDim / 32;

// The sums of a warp, or of all: weights are relative to e^greatest.
struct Sums {
  float greatest;
  float total;
};

struct SharedRow {
  float query[kMaxGeneralDim];
  float sums[kMaxGeneralDim];
  Sums of_warp[kWarps];
};

// Of which sequence a token is.
__device__ int find_sequence(const GeneralAttentionParams& params, int token) {
  int begin = 0;
  int end = *params.num_sequences;
  while (end - begin > 1) {
    const int middle = (begin + end) / 2;
    if (params.query_begin[middle] <= token) {
      begin = middle;
    } else {
      end = middle;
    }
  }
  return begin;
}

template <typename Q, typename Kv>
class GeneralRow {
 public:
  __device__ GeneralRow(const GeneralAttentionParams& params, SharedRow& shared)
      : params_(params),
        shared_(shared),
        token_(blockIdx.x),
        head_(blockIdx.y),
        kv_head_(head_ / (params.num_heads / params.num_kv_heads)),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32) {
    sequence_ = find_sequence(params, token_);
    const int begin = params.query_begin[sequence_];
    const int num_tokens = params.query_begin[sequence_ + 1] - begin;
    first_new_ = params.context_len[sequence_] - num_tokens;
    position_ = first_new_ + token_ - begin;
  }

  __device__ void load_query() {
    const Q* q = static_cast<const Q*>(params_.q) + token_ * params_.q_stride +
                 static_cast<int64_t>(head_) * params_.head_dim;
    for (int i = threadIdx.x; i < params_.head_dim; i += kThreads) {
      shared_.query[i] = widen(q[i]);
    }
    __syncthreads();
  }

  // What was made of the cached keys is to the first warp one key more: the log-sum-exp is its
  // score.
  __device__ void meet_cached_partial() {
    if (params_.cached_outs == nullptr || warp_ != 0) return;
    const float lse = params_.cached_lses[place()];
    if (lse == -INFINITY) return;
    own_ = {lse, 1.0F};
    const float* values = params_.cached_outs + place() * params_.value_dim;
#pragma unroll
    for (int i = 0; i < kLaneElements; ++i) {
      const int element = i * 32 + lane_;
      if (element < params_.value_dim) values_[i] = values[element];
    }
  }

  // Each warp meets every kWarps-th key.
  __device__ void meet_keys() {
    const int first_seen = params_.window > 0 ? max(0, position_ - params_.window + 1) : 0;
    const int first = params_.meets_cached ? first_seen : max(first_seen, first_new_);
    const int end = params_.meets_new ? position_ + 1 : first_new_;
    const int32_t* table = params_.block_tables + sequence_ * params_.max_blocks;
    for (int key = first + warp_; key < end; key += kWarps) {
      const int block = table[key / params_.block_size];
      if (block < 0) continue;
      const int64_t row =
          (static_cast<int64_t>(block) * params_.num_kv_heads + kv_head_) * params_.block_size +
          key % params_.block_size;
      add_key(row, score(row, key));
    }
  }

  // The warps' sums, one after the other, into shared memory.
  __device__ Sums add_warps() {
    if (lane_ == 0) shared_.of_warp[warp_] = own_;
    __syncthreads();
    Sums all = {-INFINITY, 0.0F};
    for (const Sums& each : shared_.of_warp) all.greatest = fmaxf(all.greatest, each.greatest);
    const float base = all.greatest == -INFINITY ? 0.0F : all.greatest;
    for (const Sums& each : shared_.of_warp) all.total += expf(each.greatest - base) * each.total;
    const float factor = expf(own_.greatest - base);
    for (int turn = 0; turn < kWarps; ++turn) {
      if (turn == warp_) {
#pragma unroll
        for (int i = 0; i < kLaneElements; ++i) {
          const int element = i * 32 + lane_;
          if (element >= params_.value_dim) continue;
          const float before = turn == 0 ? 0.0F : shared_.sums[element];
          shared_.sums[element] = before + factor * values_[i];
        }
      }
      __syncthreads();
    }
    return all;
  }

  template <typename Out>
  __device__ void store(Sums all) const {
    float factor = 1.0F;
    if (params_.sinks != nullptr) {  // a key without a value
      const float sink = params_.sinks[head_];
      const float greatest = fmaxf(all.greatest, sink);
      factor = expf(all.greatest - greatest);
      all = {greatest, all.total * factor + expf(sink - greatest)};
    }
    const float inverse = all.total > 0.0F ? factor / all.total : 0.0F;
    Out* out = static_cast<Out*>(params_.out) + place() * params_.value_dim;
    for (int i = threadIdx.x; i < params_.value_dim; i += kThreads) {
      out[i] = narrow<Out>(shared_.sums[i] * inverse);
    }
    if (threadIdx.x == 0 && params_.lse != nullptr) {
      params_.lse[place()] = all.total > 0.0F ? all.greatest + logf(all.total) : -INFINITY;
    }
  }

 private:
  // Among the step's queries.
  __device__ int64_t place() const {
    return static_cast<int64_t>(token_) * params_.num_heads + head_;
  }

  // What the elements of a cached row are multiplied by.
  __device__ static float scale_of(const float* scales, int64_t row) {
    if constexpr (is_code<Kv>) {
      return scales[row];
    } else {
      return 1.0F;
    }
  }

  __device__ float score(int64_t row, int key) const {
    const Kv* keys = static_cast<const Kv*>(params_.k_cache) + row * params_.head_dim;
    float sum = 0.0F;
    for (int i = lane_; i < params_.head_dim; i += 32) sum += shared_.query[i] * widen(keys[i]);
    float score = warp_sum(sum) * scale_of(params_.k_scales, row) * params_.scale;
    if (params_.soft_cap > 0.0F) score = params_.soft_cap * tanhf(score / params_.soft_cap);
    if (params_.alibi_slopes != nullptr) {
      score += params_.alibi_slopes[head_] * static_cast<float>(key - position_);
    }
    return score;
  }

  __device__ void add_key(int64_t row, float score) {
    const float greatest = fmaxf(own_.greatest, score);
    const float factor = own_.greatest == -INFINITY ? 0.0F : expf(own_.greatest - greatest);
    const float weight = greatest == -INFINITY ? 0.0F : expf(score - greatest);
    own_ = {greatest, own_.total * factor + weight};
    const bool is_latent = params_.v_cache == nullptr;
    const float scaled = weight * scale_of(is_latent ? params_.k_scales : params_.v_scales, row);
    const Kv* values = static_cast<const Kv*>(is_latent ? params_.k_cache : params_.v_cache) +
                       row * (is_latent ? params_.head_dim : params_.value_dim);
#pragma unroll
    for (int i = 0; i < kLaneElements; ++i) {
      const int element = i * 32 + lane_;
      if (element >= params_.value_dim) continue;
      values_[i] = values_[i] * factor + scaled * widen(values[element]);
    }
  }

  const GeneralAttentionParams& params_;
  SharedRow& shared_;
  const int token_;
  const int head_;
  const int kv_head_;
  const int warp_;
  const int lane_;
  int sequence_;
  int first_new_;  // position of the step's first token
  int position_;
  Sums own_ = {-INFINITY, 0.0F};
  float values_[kLaneElements] = {};
};

template <typename Q, typename Kv, typename Out>
__global__ void __launch_bounds__(kThreads)
    general_attention(const __grid_constant__ GeneralAttentionParams params) {
  __shared__ SharedRow shared;
  if (static_cast<int>(blockIdx.x) >= params.query_begin[*params.num_sequences]) return;
  GeneralRow<Q, Kv> row(params, shared);
  row.load_query();
  row.meet_cached_partial();
  row.meet_keys();
  row.template store<Out>(row.add_warps());
}

template <typename From, typename To>
__global__ void general_append(const __grid_constant__ GeneralAppendParams params) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = i / params.dim;
  if (row >= static_cast<int64_t>(params.num_tokens) * params.num_kv_heads) return;
  const int element = static_cast<int>(i % params.dim);
  const int head = static_cast<int>(row % params.num_kv_heads);
  const int64_t token = row / params.num_kv_heads;
  const int64_t slot = params.slot_mapping[token];
  if (slot < 0) return;
  const int64_t to = ((slot / params.block_size * params.num_kv_heads + head) * params.block_size +
                      slot % params.block_size) *
                         params.dim +
                     element;
  const From* from = static_cast<const From*>(params.from) + token * params.stride +
                     static_cast<int64_t>(head) * params.dim;
  static_cast<To*>(params.cache)[to] = narrow<To>(widen(from[element]));
}

// Calls body(T{}) with the device's type for `dtype`.
template <typename Body>
cudaError_t with_type(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kF32:
      return body(float{});
    case DType::kF16:
      return body(__half{});
    case DType::kBF16:
      return body(__nv_bfloat16{});
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  return cudaErrorInvalidValue;
}

// The same for a cache's, codes too.
template <typename Body>
cudaError_t with_cached_type(DType dtype, const Body& body) {
  if (dtype == DType::kI8) return body(I8{});
  if (dtype == DType::kF8E4M3) return body(E4M3{});
  return with_type(dtype, body);
}

}  // namespace

cudaError_t launch_general_attention(const GeneralAttentionParams& params,
                                     DType q_dtype,
                                     DType kv_dtype,
                                     DType out_dtype,
                                     cudaStream_t stream) {
  if (params.head_dim > kMaxGeneralDim || params.value_dim > kMaxGeneralDim) {
    return cudaErrorInvalidValue;
  }
  if (params.num_tokens == 0 || params.num_heads == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(params.num_tokens),
                  static_cast<unsigned>(params.num_heads));
  return with_type(q_dtype, [&](auto q) {
    return with_cached_type(kv_dtype, [&](auto kv) {
      using Q = decltype(q);
      using Kv = decltype(kv);
      if (out_dtype == DType::kF32) {
        general_attention<Q, Kv, float><<<grid, kThreads, 0, stream>>>(params);
      } else {
        general_attention<Q, Kv, Q><<<grid, kThreads, 0, stream>>>(params);
      }
      return cudaGetLastError();
    });
  });
}

cudaError_t launch_general_append(const GeneralAppendParams& params,
                                  DType dtype,
                                  DType cache_dtype,
                                  cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(params.num_tokens) * params.num_kv_heads * params.dim;
  if (count == 0) return cudaSuccess;
  const auto num_blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  return with_type(dtype, [&](auto from) {
    return with_type(cache_dtype, [&](auto to) {
      general_append<decltype(from), decltype(to)><<<num_blocks, kThreads, 0, stream>>>(params);
      return cudaGetLastError();
    });
  });
}

}  // namespace lamina::kernels::cuda
