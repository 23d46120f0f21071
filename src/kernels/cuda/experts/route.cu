#include <cmath>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/experts/route.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/primitives.cuh"

namespace lamina::kernels::cuda {
namespace {

constexpr int kLanes = 32;
constexpr unsigned kAll = 0xFFFFFFFFU;

// Of one row, in shared memory.
struct RowScores {
  float* weights;    // [X] what a chosen expert's weight is
  float* choosing;   // [X] what is chosen by; -inf: out of question
  float* of_groups;  // [num_groups] likewise; NaN: the group stays
};

// Index of the largest score, the first among equals; 0 if all are -inf or NaN.
__device__ int best_of(const float* scores, int count, int lane) {
  float top = -INFINITY;
  int best = 0;
  for (int i = lane; i < count; i += kLanes) {
    if (scores[i] > top) top = scores[best = i];
  }
  for (int step = kLanes / 2; step > 0; step /= 2) {
    const float other_top = __shfl_xor_sync(kAll, top, step);
    const int other = __shfl_xor_sync(kAll, best, step);
    if (other_top > top || (other_top == top && other < best)) {
      top = other_top;
      best = other;
    }
  }
  return best;
}

__device__ void score(const RouteParams& params, int64_t row, const RowScores& scores, int lane) {
  const float* logits = params.logits + row * params.logits_stride;
  float top = -INFINITY;
  for (int i = lane; i < params.num_experts; i += kLanes) {
    const float logit = logits[i];
    scores.weights[i] = logit;
    if (logit > top) top = logit;
  }
  top = warp_max(top);
  float total = 0.0F;
  for (int i = lane; i < params.num_experts; i += kLanes) {
    const float logit = scores.weights[i];
    const float weight = params.is_softmax ? expf(logit - top) : 1.0F / (1.0F + expf(-logit));
    scores.weights[i] = weight;
    total += weight;
  }
  total = warp_sum(total);
  for (int i = lane; i < params.num_experts; i += kLanes) {
    if (params.is_softmax) scores.weights[i] /= total;
    const float shift =
        params.bias == nullptr ? 0.0F : load_float(params.bias, params.bias_element, i);
    scores.choosing[i] = scores.weights[i] + shift;
  }
  __syncwarp();
}

// The best score of a group; with a bias the sum of its two best.
__device__ float group_score(const float* scores, int size, bool sum_of_two) {
  float first = -INFINITY;
  float second = -INFINITY;
  for (int i = 0; i < size; ++i) {
    if (scores[i] > first) {
      second = first;
      first = scores[i];
    } else if (scores[i] > second) {
      second = scores[i];
    }
  }
  return sum_of_two && size > 1 ? first + second : first;
}

__device__ void leave_best_groups(const RouteParams& params, const RowScores& scores, int lane) {
  const int size = params.num_experts / params.num_groups;
  for (int g = lane; g < params.num_groups; g += kLanes) {
    scores.of_groups[g] = group_score(scores.choosing + g * size, size, params.bias != nullptr);
  }
  __syncwarp();
  for (int i = 0; i < params.top_groups; ++i) {
    const int best = best_of(scores.of_groups, params.num_groups, lane);
    __syncwarp();
    if (lane == 0) scores.of_groups[best] = NAN;
    __syncwarp();
  }
  for (int i = lane; i < params.num_experts; i += kLanes) {
    if (!isnan(scores.of_groups[i / size])) scores.choosing[i] = -INFINITY;
  }
  __syncwarp();
}

// A warp for each row.
__global__ void route(const __grid_constant__ RouteParams params) {
  after_previous_kernel();
  extern __shared__ float memory[];
  const RowScores scores = {memory, memory + params.num_experts, memory + 2 * params.num_experts};
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t row = blockIdx.x;
  score(params, row, scores, lane);
  if (params.num_groups > 1) leave_best_groups(params, scores, lane);
  float* out = params.out + row * params.out_stride;
  for (int i = lane; i < params.num_experts; i += kLanes) out[i] = 0.0F;
  float total = 0.0F;
  for (int k = 0; k < params.top_k; ++k) {
    const int best = best_of(scores.choosing, params.num_experts, lane);
    total += scores.weights[best];
    __syncwarp();
    if (lane == 0) {
      scores.choosing[best] = -INFINITY;
      out[best] = scores.weights[best];
    }
    __syncwarp();
  }
  const float factor = params.renormalize ? params.scale / (total + 1e-20F) : params.scale;
  // No more than top_k are routed even where scores are NaN: what follows has room for that many.
  for (int i = lane; i < params.num_experts; i += kLanes) {
    if (out[i] != 0.0F) out[i] *= factor;
  }
}

}  // namespace

cudaError_t launch_route(const RouteParams& params, cudaStream_t stream) {
  if (params.num_tokens == 0) return cudaSuccess;
  const int num_floats = 2 * params.num_experts + params.num_groups;
  const Launch how = {.grid = dim3(static_cast<unsigned>(params.num_tokens)),
                      .block = dim3(kLanes),
                      .stream = stream,
                      .shared_bytes = num_floats * static_cast<int>(sizeof(float))};
  return launch(route, how, params);
}

}  // namespace lamina::kernels::cuda
