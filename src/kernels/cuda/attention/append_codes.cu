#include "kernels/cuda/attention/append_codes.cuh"
#include "kernels/cuda/attention/codes.cuh"
#include "kernels/cuda/attention/swizzle.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.cuh"

namespace lamina::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsPerBlock = kThreads / kWarpLanes;

// The largest magnitude of a row as bits: a NaN is larger than any infinity, and that than any
// number.
template <typename From>
__device__ float largest_magnitude(const From* from, int count) {
  uint32_t largest = 0;
  for (int i = static_cast<int>(threadIdx.x) % kWarpLanes; i < count; i += kWarpLanes) {
    largest = max(largest, __float_as_uint(widen(from[i])) & 0x7FFFFFFFU);
  }
  return __uint_as_float(__reduce_max_sync(~0U, largest));
}

// A warp for each row of a token and head; the grid's second axis is keys, values.
template <typename From, typename Code>
__global__ void append_codes(const __grid_constant__ AppendCodesParams params) {
  constexpr int kChunkCodes = 16;
  after_previous_kernel();
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + warp;
  if (row >= static_cast<int64_t>(params.num_tokens) * params.num_kv_heads) return;
  const int64_t slot = params.slot_mapping[row / params.num_kv_heads];
  if (slot < 0) return;
  const AppendedRows& rows = params.rows[blockIdx.y];
  const int64_t head = row % params.num_kv_heads;
  const int token = static_cast<int>(slot % params.block_size);
  const int64_t to_row =
      (slot / params.block_size * params.num_kv_heads + head) * params.block_size + token;
  const From* from = static_cast<const From*>(rows.from) + row / params.num_kv_heads * rows.stride +
                     head * rows.dim;
  const RowScale scale = row_scale<Code>(largest_magnitude(from, rows.dim));
  if (lane == 0) rows.scales[to_row] = scale.scale;
  Code* to = static_cast<Code*>(rows.cache) + to_row * rows.dim;
  for (int i = lane; i < rows.dim; i += kWarpLanes) {
    const int chunk = i / kChunkCodes;
    const int place =
        params.is_swizzled ? swizzled_chunk(rows.dim / kChunkCodes, token, chunk) : chunk;
    to[place * kChunkCodes + i % kChunkCodes] =
        scale.inverse == 0.0F ? Code{} : to_code<Code>(widen(from[i]) * scale.inverse);
  }
}

template <typename From, typename Code>
cudaError_t launch_typed(const AppendCodesParams& params, cudaStream_t stream) {
  const int64_t num_rows = static_cast<int64_t>(params.num_tokens) * params.num_kv_heads;
  if (num_rows == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(ceil_div(num_rows, int64_t{kRowsPerBlock})),
                  static_cast<unsigned>(params.num_kinds));
  return launch(append_codes<From, Code>, {grid, dim3(kThreads), stream}, params);
}

template <typename Code>
cudaError_t launch_from(const AppendCodesParams& params, DType from, cudaStream_t stream) {
  switch (from) {
    case DType::kF32:
      return launch_typed<float, Code>(params, stream);
    case DType::kF16:
      return launch_typed<__half, Code>(params, stream);
    case DType::kBF16:
      return launch_typed<__nv_bfloat16, Code>(params, stream);
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_append_codes(const AppendCodesParams& params,
                                DType from,
                                DType to,
                                cudaStream_t stream) {
  return to == DType::kI8 ? launch_from<I8>(params, from, stream)
                          : launch_from<E4M3>(params, from, stream);
}

}  // namespace lamina::kernels::cuda
