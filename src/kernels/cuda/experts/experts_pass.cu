#include <algorithm>

#include "kernels/cuda/experts/experts_launch.h"
#include "kernels/cuda/experts/experts_tile.cuh"
#include "kernels/cuda/experts/gate.cuh"

namespace lamina::kernels::cuda {
namespace {

constexpr int kSumThreads = 256;
constexpr unsigned kAll = 0xFFFFFFFFU;

// The tile of a block, by its place in the pass; expert < 0 past the last.
struct Tile {
  int expert;
  int64_t first_row;      // in the pass
  const int32_t* tokens;  // of its rows
};

__device__ Tile tile_of(const ExpertsParams& params, int tile_in_pass) {
  const int tile = params.first_tile + tile_in_pass;
  if (tile >= *params.assignment.num_tiles) return {-1, 0, nullptr};
  return {params.assignment.expert_of_tile[tile],
          static_cast<int64_t>(tile_in_pass) * params.tile_rows,
          params.assignment.token_of_row + static_cast<int64_t>(tile) * params.tile_rows};
}

template <typename Element>
__device__ bool can_read_chunks(const void* data, int64_t stride, int depth) {
  constexpr int kChunk = 16 / static_cast<int>(sizeof(Element));
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % kChunk == 0 && depth % kChunk == 0;
}

// Addresses of rows [begin, begin + kTileColumns) of a matrix [num_rows, depth].
template <typename Element>
__device__ void point_at_rows(
    const Element* matrix, int begin, int num_rows, int depth, const Element** rows) {
  for (int i = static_cast<int>(threadIdx.x); i < kTileColumns; i += kTileThreads) {
    rows[i] = begin + i < num_rows ? matrix + static_cast<int64_t>(begin + i) * depth : nullptr;
  }
}

template <typename Element>
__device__ float bias_at(const void* bias, int64_t i) {
  return bias == nullptr ? 0.0F : widen(static_cast<const Element*>(bias)[i]);
}

template <typename Element>
__device__ float rounded(float value) {
  return widen(narrow<Element>(value));
}

// A block makes 64 columns of the inner activations of a tile's tokens:
// activated[row, i] = gated(gate_up[expert] x[token of row] + bias).
template <typename Element, int kRows>
__global__ void __launch_bounds__(kTileThreads)
    multiply_gate_up(const __grid_constant__ ExpertsParams params) {
  __shared__ TileShared<Element, kRows, 2> shared;
  __shared__ const Element* x_rows[kRows];
  __shared__ const Element* weight_rows[2][kTileColumns];
  const Tile tile = tile_of(params, static_cast<int>(blockIdx.y));
  if (tile.expert < 0) return;
  const auto* x = static_cast<const Element*>(params.x);
  for (int i = static_cast<int>(threadIdx.x); i < kRows; i += kTileThreads) {
    const int token = tile.tokens[i];
    x_rows[i] = token < 0 ? nullptr : x + token * params.x_stride;
  }
  const int begin = static_cast<int>(blockIdx.x) * kTileColumns;
  const int64_t half = static_cast<int64_t>(params.inner) * params.depth;
  const Element* gate = static_cast<const Element*>(params.gate_up) + tile.expert * 2 * half;
  point_at_rows(gate, begin, params.inner, params.depth, weight_rows[0]);
  point_at_rows(gate + half, begin, params.inner, params.depth, weight_rows[1]);
  const bool aligned = can_read_chunks<Element>(params.gate_up, 0, params.depth);
  multiply_tile<Element, kRows, 2>(
      {x_rows, params.depth, can_read_chunks<Element>(params.x, params.x_stride, params.depth)},
      {{weight_rows[0], params.depth, aligned}, {weight_rows[1], params.depth, aligned}},
      shared);
  const int64_t bias_begin = tile.expert * params.gate_up_bias_stride + begin;
  auto* out = static_cast<Element*>(params.activated) + tile.first_row * params.inner + begin;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kTileColumns; i += kTileThreads) {
    const int row = i / kTileColumns;
    const int column = i % kTileColumns;
    if (x_rows[row] == nullptr || begin + column >= params.inner) continue;
    const float gate_bias = bias_at<Element>(params.gate_up_bias, bias_begin + column);
    const float up_bias = bias_at<Element>(params.gate_up_bias, bias_begin + params.inner + column);
    // As linear() would leave them.
    const float gate_value = rounded<Element>(shared.sums[0][row][column] + gate_bias);
    const float up_value = rounded<Element>(shared.sums[1][row][column] + up_bias);
    out[static_cast<int64_t>(row) * params.inner + column] =
        narrow<Element>(gated(gate_value, up_value, params.gate));
  }
}

// A block makes 64 columns of results[row] = down[expert] activated[row] + bias.
template <typename Element, int kRows>
__global__ void __launch_bounds__(kTileThreads)
    multiply_down(const __grid_constant__ ExpertsParams params) {
  __shared__ TileShared<Element, kRows, 1> shared;
  __shared__ const Element* inner_rows[kRows];
  __shared__ const Element* weight_rows[kTileColumns];
  const Tile tile = tile_of(params, static_cast<int>(blockIdx.y));
  if (tile.expert < 0) return;
  const auto* inner = static_cast<const Element*>(params.activated);
  for (int i = static_cast<int>(threadIdx.x); i < kRows; i += kTileThreads) {
    inner_rows[i] = tile.tokens[i] < 0 ? nullptr : inner + (tile.first_row + i) * params.inner;
  }
  const int begin = static_cast<int>(blockIdx.x) * kTileColumns;
  const Element* down = static_cast<const Element*>(params.down) +
                        static_cast<int64_t>(tile.expert) * params.width * params.inner;
  point_at_rows(down, begin, params.width, params.inner, weight_rows);
  multiply_tile<Element, kRows, 1>(
      {inner_rows, params.inner, can_read_chunks<Element>(inner, 0, params.inner)},
      {{weight_rows, params.inner, can_read_chunks<Element>(params.down, 0, params.inner)}},
      shared);
  const int64_t bias_begin = tile.expert * params.down_bias_stride + begin;
  float* out = params.results + tile.first_row * params.width + begin;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kTileColumns; i += kTileThreads) {
    const int row = i / kTileColumns;
    const int column = i % kTileColumns;
    if (inner_rows[row] == nullptr || begin + column >= params.width) continue;
    out[static_cast<int64_t>(row) * params.width + column] =
        shared.sums[0][row][column] + bias_at<Element>(params.down_bias, bias_begin + column);
  }
}

// out[t] = sum of routes[t, expert] * results[row of it], by ascending experts. A block for some
// columns of a token, a thread for each; warps look at 32 routes at once.
template <typename Element>
__global__ void sum_results(const __grid_constant__ ExpertsParams params) {
  const int first_row = params.first_tile * params.tile_rows;
  const int end_row = first_row + params.pass_tiles * params.tile_rows;
  const int all_rows = *params.assignment.num_tiles * params.tile_rows;
  if (first_row > 0 && first_row >= all_rows) return;
  const int64_t token = blockIdx.x;
  const int column = static_cast<int>(blockIdx.y) * kSumThreads + static_cast<int>(threadIdx.x);
  const bool is_column = column < params.width;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float sum = 0.0F;
  if (first_row > 0 && is_column) sum = params.sums[token * params.width + column];
  for (int begin = 0; begin < params.num_experts; begin += 32) {
    const int expert = begin + lane;
    float weight = 0.0F;
    int row = -1;
    if (expert < params.num_experts) weight = params.routes[token * params.routes_stride + expert];
    if (weight != 0.0F) row = params.assignment.row_of_route[token * params.num_experts + expert];
    const bool is_here = row >= first_row && row < end_row;
    for (unsigned left = __ballot_sync(kAll, is_here); left != 0; left &= left - 1) {
      const int from = __ffs(static_cast<int>(left)) - 1;
      const float its_weight = __shfl_sync(kAll, weight, from);
      const int64_t its_row = __shfl_sync(kAll, row, from) - first_row;
      if (is_column) sum += its_weight * params.results[its_row * params.width + column];
    }
  }
  if (!is_column) return;
  static_cast<Element*>(params.out)[token * params.out_stride + column] = narrow<Element>(sum);
  if (end_row < all_rows) params.sums[token * params.width + column] = sum;
}

unsigned ceil_blocks(int count, int size) {
  return static_cast<unsigned>((count + size - 1) / size);
}

template <typename Element, int kRows>
cudaError_t launch_pass(const ExpertsParams& params, cudaStream_t stream) {
  const auto num_tiles = static_cast<unsigned>(params.pass_tiles);
  multiply_gate_up<Element, kRows>
      <<<dim3(ceil_blocks(params.inner, kTileColumns), num_tiles), kTileThreads, 0, stream>>>(
          params);
  multiply_down<Element, kRows>
      <<<dim3(ceil_blocks(params.width, kTileColumns), num_tiles), kTileThreads, 0, stream>>>(
          params);
  sum_results<Element>
      <<<dim3(static_cast<unsigned>(params.num_tokens), ceil_blocks(params.width, kSumThreads)),
         kSumThreads,
         0,
         stream>>>(params);
  return cudaGetLastError();
}

template <typename Element>
cudaError_t launch_pass_of(const ExpertsParams& params, cudaStream_t stream) {
  return params.tile_rows == kWideTileRows ? launch_pass<Element, kWideTileRows>(params, stream)
                                           : launch_pass<Element, kNarrowTileRows>(params, stream);
}

}  // namespace

cudaError_t launch_experts_pass(const ExpertsParams& params,
                                ElementKind element,
                                cudaStream_t stream) {
  switch (element) {
    case ElementKind::kF32:
      return launch_pass_of<float>(params, stream);
    case ElementKind::kF16:
      return launch_pass_of<__half>(params, stream);
    case ElementKind::kBF16:
      return launch_pass_of<__nv_bfloat16>(params, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace lamina::kernels::cuda
