// A warp for each head of each token: its lanes read both lse before one of them writes.
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.h"

namespace lamina::kernels::cuda {
namespace {

constexpr int kWarps = 4;  // of a block

struct MergeParams {
  float* into;
  float* into_lse;
  const float* from;
  const float* from_lse;
  int64_t into_stride;  // of tokens, as the others
  int64_t into_lse_stride;
  int64_t from_stride;
  int64_t from_lse_stride;
  int64_t num_rows;
  int64_t num_heads;
  int64_t head_dim;
  bool is_aligned;
};

// What becomes of a head. The identity on either side leaves the other's bits untouched.
struct Shares {
  float into;
  float from;
  float lse;
};

__device__ Shares share(float into_lse, float from_lse) {
  const float top = fmaxf(into_lse, from_lse);
  const float into_weight = expf(into_lse - top);
  const float from_weight = expf(from_lse - top);
  const float total = into_weight + from_weight;
  return {into_weight / total, from_weight / total, top + logf(total)};
}

__global__ void merge_kernel(const __grid_constant__ MergeParams params) {
  after_previous_kernel();
  constexpr int kCount = kVectorElements<float>;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.y;
  if (row >= params.num_rows) return;  // of whole warps
  const int64_t token = row / params.num_heads;
  const int64_t head = row % params.num_heads;
  float* const lse = params.into_lse + token * params.into_lse_stride + head;
  const float into_lse = *lse;
  const float from_lse = params.from_lse[token * params.from_lse_stride + head];
  __syncwarp();
  if (from_lse == -INFINITY) return;
  const bool replaces = into_lse == -INFINITY;
  const Shares shares = replaces ? Shares{0.0F, 1.0F, from_lse} : share(into_lse, from_lse);
  if (threadIdx.x == 0) *lse = shares.lse;
  float* const into = params.into + token * params.into_stride + head * params.head_dim;
  const float* const from = params.from + token * params.from_stride + head * params.head_dim;
  for (int64_t begin = threadIdx.x * kCount; begin < params.head_dim;
       begin += kWarpLanes * kCount) {
    const int64_t left = params.head_dim - begin;
    float merged[kCount];
    load_upto(from + begin, left, params.is_aligned, merged);
    if (!replaces) {
      float old[kCount];
      load_upto(into + begin, left, params.is_aligned, old);
#pragma unroll
      for (int i = 0; i < kCount; ++i) merged[i] = old[i] * shares.into + merged[i] * shares.from;
    }
    store_upto(merged, into + begin, left, params.is_aligned);
  }
}

}  // namespace

Status merge_partials(const AttentionPartial& into,
                      const AttentionPartial& from,
                      StreamView stream) {
  MergeParams params{};
  params.into = into.out.as<float>();
  params.into_lse = into.lse.as<float>();
  params.from = from.out.as<float>();
  params.from_lse = from.lse.as<float>();
  params.into_stride = into.out.row_stride;
  params.into_lse_stride = into.lse.row_stride;
  params.from_stride = from.out.row_stride;
  params.from_lse_stride = from.lse.row_stride;
  params.num_heads = into.out.shape[1];
  params.head_dim = into.out.shape[2];
  params.num_rows = into.out.shape[0] * params.num_heads;
  if (params.num_rows == 0) return {};
  params.is_aligned = has_aligned_rows(into.out, into.out.shape[0]) &&
                      has_aligned_rows(from.out, from.out.shape[0]) &&
                      params.head_dim % kVectorElements<float> == 0;
  const auto grid = static_cast<unsigned>(ceil_div(params.num_rows, int64_t{kWarps}));
  const dim3 block(kWarpLanes, kWarps);
  const Launch how = {dim3(grid), block, lamina::cuda::raw(stream)};
  return lamina::cuda::to_status(launch(merge_kernel, how, params), "merge_partials");
}

}  // namespace lamina::kernels::cuda
