#include "kernels/cuda/experts/experts_launch.h"

namespace lamina::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAll = 0xFFFFFFFFU;

__device__ bool is_routed(const ExpertsParams& params, int token, int expert) {
  return token < params.num_tokens && params.routes[token * params.routes_stride + expert] != 0.0F;
}

__device__ int tiles_for(int count, int tile_rows) {
  return (count + tile_rows - 1) / tile_rows;
}

// Sum of all threads' values, to all of them.
__device__ int block_sum(int value) {
  __shared__ int sums[kWarps];
  value = __reduce_add_sync(kAll, value);
  __syncthreads();  // of the call before, all have read
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  int total = 0;
  for (const int sum : sums) total += sum;
  return total;
}

// How many threads before this one have the flag, and how many of all.
struct Ranked {
  int before;
  int total;
};
__device__ Ranked block_rank(bool flag) {
  __shared__ int counts[kWarps];
  const unsigned flags = __ballot_sync(kAll, flag);
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  __syncthreads();
  if (lane == 0) counts[warp] = __popc(flags);
  __syncthreads();
  Ranked rank = {__popc(flags & ((1U << lane) - 1U)), 0};
  for (int i = 0; i < kWarps; ++i) {
    if (i < warp) rank.before += counts[i];
    rank.total += counts[i];
  }
  return rank;
}

// A block for each expert.
__global__ void count_tokens(const __grid_constant__ ExpertsParams params) {
  const int expert = static_cast<int>(blockIdx.x);
  int count = 0;
  for (int token = static_cast<int>(threadIdx.x); token < params.num_tokens; token += kThreads) {
    count += is_routed(params, token, expert) ? 1 : 0;
  }
  count = block_sum(count);
  if (threadIdx.x == 0) params.assignment.counts[expert] = count;
}

// Likewise.
__global__ void lay_out_tiles(const __grid_constant__ ExpertsParams params) {
  const Assignment& to = params.assignment;
  const int expert = static_cast<int>(blockIdx.x);
  int before = 0;
  for (int other = static_cast<int>(threadIdx.x); other < expert; other += kThreads) {
    before += tiles_for(to.counts[other], params.tile_rows);
  }
  const int first_tile = block_sum(before);
  const int num_tiles = tiles_for(to.counts[expert], params.tile_rows);
  if (expert == params.num_experts - 1 && threadIdx.x == 0) *to.num_tiles = first_tile + num_tiles;
  for (int i = static_cast<int>(threadIdx.x); i < num_tiles; i += kThreads) {
    to.expert_of_tile[first_tile + i] = expert;
  }
  int next_row = first_tile * params.tile_rows;
  const int end_row = next_row + num_tiles * params.tile_rows;
  for (int begin = 0; begin < params.num_tokens; begin += kThreads) {
    const int token = begin + static_cast<int>(threadIdx.x);
    const bool routed = is_routed(params, token, expert);
    const Ranked rank = block_rank(routed);
    if (routed) {
      const int row = next_row + rank.before;
      to.token_of_row[row] = token;
      to.row_of_route[static_cast<int64_t>(token) * params.num_experts + expert] = row;
    }
    next_row += rank.total;
  }
  for (int row = next_row + static_cast<int>(threadIdx.x); row < end_row; row += kThreads) {
    to.token_of_row[row] = -1;
  }
}

}  // namespace

cudaError_t launch_assignment(const ExpertsParams& params, cudaStream_t stream) {
  const auto num_blocks = static_cast<unsigned>(params.num_experts);
  count_tokens<<<num_blocks, kThreads, 0, stream>>>(params);
  lay_out_tiles<<<num_blocks, kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace lamina::kernels::cuda
